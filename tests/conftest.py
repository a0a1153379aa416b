"""Fixtures of all tests: a broker, and instances of the platform in folders of their own."""

import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from freshdata.contracts import Contract, load_contracts
from freshdata.services.kafka import bootstrap, local_broker
from freshdata.settings import PROJECT, Settings


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real broker on loopback, shared by the session; tests use topics of their own."""
    settings = Settings().for_home(tmp_path_factory.mktemp("broker"))
    with local_broker(settings):
        yield bootstrap(settings)


@pytest.fixture
def instance(tmp_path: Path) -> Settings:
    """An instance in a folder of its own, over the project's contracts and models."""
    return Settings().for_home(tmp_path / "home")


@pytest.fixture
def streaming(tmp_path: Path, broker: str) -> Settings:
    """An instance on the shared broker whose topics no other test uses."""
    project = tmp_path / "project"
    shutil.copytree(PROJECT / "contracts", project / "contracts")
    suffix = uuid.uuid4().hex[:8]
    for path in (project / "contracts").iterdir():
        path.write_text(re.sub(r"(property: topic, value: )(\S+)(\})", rf"\g<1>\g<2>.{suffix}\g<3>", path.read_text()))
    shutil.copytree(PROJECT / "sqlmesh_models", project / "sqlmesh_models")
    update = {"project": project, "kafka_bootstrap": broker, "home_override": tmp_path / "home"}
    return Settings().model_copy(update=update)


@pytest.fixture
def contracts() -> dict[str, Contract]:
    """The project's contracts by name."""
    return load_contracts(PROJECT / "contracts")


@pytest.fixture
def environment() -> Callable[[Settings], dict[str, str]]:
    """The environment that makes a child process see the same instance."""

    def build(settings: Settings) -> dict[str, str]:
        import os

        own = {"FRESHDATA_HOME": str(settings.home), "FRESHDATA_PROJECT": str(settings.project)}
        own |= {"FRESHDATA_KAFKA_BOOTSTRAP": settings.kafka_bootstrap} if settings.kafka_bootstrap else {}
        return {**os.environ, **own}

    return build
