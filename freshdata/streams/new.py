"""Write the files of a new stream: its contract, its models and their unit tests."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from freshdata.contracts import Contract, load_contracts
from freshdata.contracts.loader import IDENTIFIER, SUFFIX
from freshdata.errors import ConfigError, SampleError
from freshdata.settings import Settings
from freshdata.streams.contract import contract_yaml
from freshdata.streams.infer import infer
from freshdata.streams.model import Choices, Inferred
from freshdata.streams.models import gold_model, model_tests, silver_model
from freshdata.streams.samples import Sample


@dataclass(frozen=True)
class NewStream:
    """A stream that was written.

    Attributes:
        inferred: What was inferred.
        contract: Its contract, as the platform reads it.
        files: The files.
    """

    inferred: Inferred
    contract: Contract
    files: tuple[Path, ...]


def check_name(name: str) -> None:
    """Refuse what cannot be a stream's name.

    Raises:
        SampleError: it cannot.
    """
    if not IDENTIFIER.fullmatch(name):
        raise SampleError(
            f"{name!r} is no name for a stream.", remedy="Use lower case letters, digits and underscores."
        )


def new_stream(
    settings: Settings, name: str, sample: Sample, choices: Choices, *, overwrite: bool = False, write: bool = True
) -> NewStream:
    """Infer a stream and write its files; either all of them, or none.

    Args:
        settings: The instance; its project gets the files.
        name: Name of the stream.
        sample: Its events.
        choices: What is not to be inferred.
        overwrite: Whether files that are there are written anew.
        write: Whether anything is written at all.

    Raises:
        SampleError: no stream can be made from the sample.
        ConfigError: files are there already.
        ContractError: the contract does not fit the others, or what was chosen makes none.
    """
    check_name(name)
    inferred = infer(name, sample, choices)
    models = settings.working_models_dir
    texts = {
        settings.contracts_dir / f"{name}{SUFFIX}": contract_yaml(inferred),
        models / "models" / "silver" / f"{name}.sql": silver_model(inferred),
        models / "models" / "gold" / f"{name}_day.sql": gold_model(inferred),
        models / "tests" / f"test_{name}.yaml": model_tests(inferred),
    }
    if (there := [path for path in texts if path.exists()]) and write and not overwrite:
        raise ConfigError(
            f"{', '.join(str(path.relative_to(settings.project)) for path in there)} exist already.",
            remedy="Choose another name, or write them anew with --overwrite.",
        )
    contract = _checked(settings, name, next(iter(texts.values())))
    if write:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return NewStream(inferred, contract, tuple(texts))


def _checked(settings: Settings, name: str, text: str) -> Contract:
    """The contract as the platform will read it, beside the others.

    Raises:
        ContractError: it will not.
    """
    with TemporaryDirectory() as folder:
        beside = Path(folder)
        for path in settings.contracts_dir.glob(f"*{SUFFIX}"):
            shutil.copyfile(path, beside / path.name)
        (beside / f"{name}{SUFFIX}").write_text(text)
        return load_contracts(beside)[name]
