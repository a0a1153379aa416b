"""What environments there are: each is a folder of the instance's, and tables in namespaces of its own."""

import fcntl
import getpass
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlparse

from pyiceberg.catalog import Catalog

from freshdata.environments.catalog import SEPARATOR
from freshdata.errors import DeploymentError
from freshdata.files import replace_file
from freshdata.settings import Settings
from freshdata.transform.versions import read_versions, write_versions

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
LONGEST_NAME = 40
State = Literal["planning", "ready", "refused", "same", "promoted"]


@dataclass(frozen=True)
class Environment:
    """An environment as it was planned last.

    Attributes:
        name: Its name.
        by: Who planned it.
        at: When, ISO 8601 in UTC.
        state: ``planning`` until its plan is complete; then ``ready`` to be promoted, ``refused`` by a gate, or the
            ``same`` as production; or ``promoted``.
        base: Fingerprint of production's models at the plan.
        fingerprint: Fingerprint of its own.
        commit: Git commit of its models, or an empty string.
        changes: Model to what happens to it: see :class:`freshdata.environments.changes.ModelChange`.
        reasons: Why it was refused.
    """

    name: str
    by: str
    at: str
    state: State
    base: str
    fingerprint: str
    commit: str
    changes: dict[str, str]
    reasons: tuple[str, ...] = ()


def environment_settings(settings: Settings, name: str) -> Settings:
    """The settings of an environment: the working copy's project over a folder of its own.

    Raises:
        DeploymentError: the name is none that an environment can have.
    """
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise DeploymentError(
            name,
            "has a name that none can have",
            [f"it must be lower-case letters and digits, with single underscores between, at most {LONGEST_NAME}"],
            remedy="Choose another, for example your own in lower case.",
        )
    # Always on DuckDB: only this process's face of the catalog keeps an environment's tables apart from production's.
    own: dict[str, Any] = {"home_override": settings.home / "environments" / name, "project": settings.own_project}
    own |= {"engine": "duckdb", "state_uri": None}
    return settings.model_copy(update=own)


def read_environments(settings: Settings) -> list[Environment]:
    """The instance's environments, by name."""
    folders = sorted((settings.home / "environments").glob("*/environment.json"))
    return [_read(path) for path in folders]


def read_environment(settings: Settings, name: str) -> Environment:
    """One environment.

    Raises:
        DeploymentError: there is no such environment.
    """
    path = _file(environment_settings(settings, name))
    if not path.is_file():
        known = ", ".join(found.name for found in read_environments(settings)) or "none"
        raise DeploymentError(
            name, "does not exist", [f"the environments are: {known}"], remedy=f"Make it: `freshdata plan {name}`."
        )
    return _read(path)


def write_environment(settings: Settings, environment: Environment) -> None:
    """Keep what is known of an environment."""
    path = _file(environment_settings(settings, environment.name))
    replace_file(path, json.dumps(asdict(environment)))


def drop_environment(settings: Settings, catalog: Catalog, name: str) -> list[str]:
    """Remove an environment with its tables and files; returns the tables.

    An instance to which nothing was ever promoted runs the project's own files again when its last environment is gone.

    Raises:
        DeploymentError: there is no such environment, or it is being planned or promoted.
    """
    read_environment(settings, name)
    own = environment_settings(settings, name)
    with locked(settings, name):
        dropped = drop_tables(catalog, name)
        shutil.rmtree(own.home)
    if not read_environments(settings) and len(read_versions(settings)) == 1:
        write_versions(settings, [])
    return dropped


def drop_tables(catalog: Catalog, name: str) -> list[str]:
    """Drop an environment's tables with their files; returns their names."""
    dropped = []
    for namespace in catalog.list_namespaces():
        if not namespace[0].startswith(name + SEPARATOR):
            continue
        for table in catalog.list_tables(namespace):
            catalog.purge_table(table)
            dropped.append(".".join(table))
        catalog.drop_namespace(namespace)
        warehouse = urlparse(catalog.properties.get("warehouse", ""))
        if warehouse.scheme == "file":  # Its folders are left, empty.
            shutil.rmtree(Path(unquote(warehouse.path), *namespace), ignore_errors=True)
    return sorted(dropped)


@contextmanager
def locked(settings: Settings, name: str) -> Iterator[None]:
    """Be the only one who plans, promotes or drops an environment; the name ``production`` is production's own.

    Raises:
        DeploymentError: another process is at it.
    """
    folder = settings.home / "environments"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DeploymentError(
                name, "is in use", ["another process plans, promotes or drops it"], remedy="Wait for it to end."
            ) from error
        yield


def user() -> str:
    """Who is at work."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # A container's user may have no name.
        return "unknown"


def _read(path: Path) -> Environment:
    item = json.loads(path.read_text())
    return Environment(**{**item, "reasons": tuple(item["reasons"])})


def _file(settings: Settings) -> Path:
    return settings.home / "environment.json"
