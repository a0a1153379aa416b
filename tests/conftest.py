"""Fixtures of all tests: a broker, and instances of the platform in folders of their own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from freshdata.contracts import Contract, load_contracts
from freshdata.errors import PrerequisiteError
from freshdata.services.kafka import bootstrap, local_broker
from freshdata.services.registry import local_registry, prepare_registry
from freshdata.settings import PROJECT, Settings

# No test passes or fails by the time it takes: on a busy machine, by default, an example of 200 ms does.
hypothesis_settings.register_profile("untimed", deadline=None)
hypothesis_settings.load_profile("untimed")


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real broker on loopback, shared by the session; tests use topics of their own."""
    settings = Settings().for_home(tmp_path_factory.mktemp("broker"))
    with local_broker(settings):
        yield bootstrap(settings)


@pytest.fixture(scope="session")
def registry_files() -> None:
    """What a schema registry needs; skips where that is missing."""
    try:
        prepare_registry(Settings())
    except PrerequisiteError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def registry(registry_files: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real schema registry on loopback, shared by the session; tests use subjects of their own."""
    settings = Settings().for_home(tmp_path_factory.mktemp("registry"))
    with local_registry(settings) as address:
        yield address


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
        own = {"FRESHDATA_HOME": str(settings.home), "FRESHDATA_PROJECT": str(settings.project)}
        own |= {"FRESHDATA_KAFKA_BOOTSTRAP": settings.kafka_bootstrap} if settings.kafka_bootstrap else {}
        return {**os.environ, **own}

    return build


@dataclass(frozen=True)
class DemoRun:
    """A finished demo: its instance, its exit code and what it printed."""

    settings: Settings
    exit_code: int
    output: str
    killed: int


@pytest.fixture(scope="session")
def january(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """One run of the demo over January 2013, whose flight worker is killed with ``kill -9`` while it commits."""
    home = tmp_path_factory.mktemp("january")
    process = subprocess.Popen(
        [sys.executable, "-m", "freshdata.cli", "demo"],
        env={**os.environ, "FRESHDATA_HOME": str(home), "COLUMNS": "160"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        killed = _kill_worker(home, process)
        output, _ = process.communicate(timeout=600)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
    return DemoRun(Settings().for_home(home), process.returncode, output, killed)


def _kill_worker(home: Path, demo: subprocess.Popen[str]) -> int:
    """Kill the flight worker once it has been assigned its partitions; returns its pid."""
    deadline = time.monotonic() + 240
    log = home / "logs" / "worker-flight_events.log"
    while demo.poll() is None and time.monotonic() < deadline:
        if log.is_file() and "assigned" in log.read_text():
            state = json.loads((home / "run" / "platform.json").read_text())
            [pid] = [child["pid"] for child in state["children"] if child["name"] == "worker-flight_events"]
            os.kill(pid, signal.SIGKILL)
            return int(pid)
        time.sleep(0.02)
    raise AssertionError(f"the worker did not start: {demo.communicate(timeout=60)[0]}")
