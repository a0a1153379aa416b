"""Which columns of the models are made from a field, so that whoever changes it knows whom it breaks."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from freshdata.contracts import Contract
from freshdata.contracts.loader import SUFFIX, contract_text, load_contract
from freshdata.errors import ContractError, TransformError
from freshdata.settings import Settings
from freshdata.transform.manifest import ModelInfo, load_models


def models_by(settings: Settings, contract: Contract) -> Mapping[str, ModelInfo]:
    """The models that the instance follows, as they are with a version of a contract in place of its file.

    None when they cannot be loaded so: they do not use what the version has and the file lacks.
    """
    with TemporaryDirectory() as scratch:
        project = Path(scratch, "project")
        shutil.copytree(settings.contracts_dir, project / "contracts")
        for path in (project / "contracts").glob(f"*{SUFFIX}"):
            if _names(path, contract.name):
                path.write_text(contract_text(contract))  # JSON is YAML.
        own = {"project": project, "models_override": settings.models_dir, "home_override": settings.home}
        try:
            return load_models(settings.model_copy(update=own))
        except (TransformError, ContractError):
            return {}


def consumers(models: Mapping[str, ModelInfo], table: str, column: str) -> list[str]:
    """The columns of the models, ``table.column``, that are made from a column of a table, nearest first."""
    found: list[str] = []
    sources = {(table, column)}
    for model in models.values():  # Upstream before downstream.
        for name, made_from in model.column_lineage.items():
            if sources & set(made_from):
                sources.add((model.name, name))
                found.append(f"{model.name}.{name}")
    return found


def _names(path: Path, name: str) -> bool:
    try:
        return load_contract(path).name == name
    except ContractError:
        return False
