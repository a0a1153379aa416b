"""Build a working copy's models beside production, compare them with it, and judge whether they may follow it."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from pyiceberg.catalog import Catalog

from freshdata.clock import instance_clock
from freshdata.contracts import Contract, load_contracts
from freshdata.environments.build import Build, Tell
from freshdata.environments.catalog import SEPARATOR, EnvironmentCatalog
from freshdata.environments.changes import ModelChange, model_changes, other_changes
from freshdata.environments.datadiff import PRODUCTION, DataDiff, compare_rows
from freshdata.environments.frozen import Frozen, freeze
from freshdata.environments.gates import Gate, partition_gate
from freshdata.environments.records import (
    Environment,
    State,
    drop_tables,
    environment_settings,
    locked,
    user,
    write_environment,
)
from freshdata.errors import DeploymentError
from freshdata.lake.catalog import open_catalog
from freshdata.lake.cursors import COMMIT_PROPERTY
from freshdata.lake.duck import attach_face, attach_lake, catalog_shown
from freshdata.lake.progress import summary_property
from freshdata.lake.rest_catalog import CatalogFace
from freshdata.settings import Settings
from freshdata.transform.manifest import ModelInfo, load_models, sources, stored
from freshdata.transform.stamps import code_properties
from freshdata.transform.versions import (
    Version,
    deployed_version,
    keep_models,
    read_versions,
    version_dir,
    write_versions,
)

if TYPE_CHECKING:
    import duckdb

# Up to so many rows of Bronze, an environment holds all days; beyond, the newest.
SMALL_ROWS = 5_000_000
WINDOW = timedelta(days=13)


@dataclass(frozen=True)
class Plan:
    """What a plan found.

    Attributes:
        environment: The environment.
        days: First and last day built; None for all.
        changes: The models that differ, and those downstream of them.
        files: Other files of the project that differ.
        tables: Model that was built to its table, and its rows.
        diffs: How the built models' rows differ from production's.
        gates: The gates' verdicts.
        notes: What else to know when reading it.
    """

    environment: Environment
    days: tuple[date, date] | None
    changes: tuple[ModelChange, ...]
    files: tuple[str, ...]
    tables: dict[str, tuple[str, int]]
    diffs: tuple[DataDiff, ...]
    gates: tuple[Gate, ...]
    notes: tuple[str, ...]


def plan_environment(
    settings: Settings, name: str, *, start: date | None = None, end: date | None = None, tell: Tell = lambda _: None
) -> Plan:
    """Build an environment from the project's files, as if for the first time, and compare it with production.

    Args:
        settings: The instance, with the working copy as its project.
        name: The environment's name.
        start: First day to build; two weeks when only ``end`` is given.
        end: Last day, inclusive; the newest when None. Without both, all days when the data is small.
        tell: Called with what is being done.

    Raises:
        DeploymentError: the name is wrong, another process is at it, or production has deployed no models yet.
        TransformError: the project cannot be loaded.
    """
    own = environment_settings(settings, name)
    with locked(settings, name):
        base = follow_deployed(settings)
        tell("Reading the models")
        working = settings.for_models(settings.working_models_dir)
        commit = code_properties(working).get(COMMIT_PROPERTY, "")
        fingerprint = keep_models(own, working.models_dir, commit)
        copy = version_dir(own, fingerprint)
        production, models = load_models(settings), load_models(own.for_models(copy))
        changes = model_changes(production, settings.models_dir, models, copy)
        production, models = stored(production), stored(models)  # Of a view nothing is built.
        files = other_changes(settings.models_dir, copy)
        catalog = open_catalog(settings)
        drop_tables(catalog, name)
        environment = Environment(
            name,
            user(),
            datetime.now(UTC).isoformat(timespec="seconds"),
            "planning",
            base,
            fingerprint,
            commit,
            {change.model: change.kind for change in changes},
        )
        _begin(settings, own, environment)
        frozen = freeze(catalog, production, {change.model for change in changes if change.rebuilt})
        with (
            catalog_shown(own, EnvironmentCatalog(catalog, name, frozen.read)),
            _both_sides(own, catalog, frozen) as connection,
        ):
            days = _days(connection, settings, models, changes, frozen, start=start, end=end)
            build = Build(own, models, changes, days, tell)
            build.gates.append(partition_gate(production, models))
            build.run(instance_clock(settings.home).now().date())
            tell("Comparing rows")
            diffs = tuple(
                compare_rows(
                    connection,
                    model,
                    models[model].grain,
                    day=models[model].partition_column,
                    # The hours of the days; whole months would reach beyond what was built.
                    days=models[model].period.whole(*days) if days and models[model].granularity else days,
                )
                for model in build.runs
                if model in frozen.compared
            )
        reasons = tuple(f"{gate.name}: {gate.detail}" for gate in build.gates if not gate.passed)
        state: State = "refused" if reasons else "same" if fingerprint == base else "ready"
        environment = replace(environment, state=state, reasons=reasons)
        write_environment(settings, environment)
    tables = {model: (f"{name}{SEPARATOR}{model}", run.rows) for model, run in build.runs.items()}
    return Plan(environment, days, changes, files, tables, diffs, tuple(build.gates), (*frozen.notes, *build.notes))


def follow_deployed(settings: Settings) -> str:
    """Have an instance that runs the project's own files keep the models that it deployed last.

    An environment is beside production only while production does not take up the files that are being edited.

    Returns:
        The fingerprint of production's models.

    Raises:
        DeploymentError: nothing was deployed yet.
    """
    if versions := read_versions(settings):
        return versions[-1].fingerprint
    deployed = deployed_version(settings)
    if deployed is None:
        raise DeploymentError(
            "production",
            "has no models yet",
            [f"none were deployed in {settings.home}"],
            remedy="Run the platform once: `freshdata demo` or `freshdata up`.",
        )
    write_versions(settings, [Version(deployed, "deployed", user())])
    return deployed


def _begin(settings: Settings, own: Settings, environment: Environment) -> None:
    """Make an environment anew: empty, and following its copy of the working copy's models."""
    for path in own.home.iterdir():
        if path != own.models_versions_dir:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in own.models_versions_dir.iterdir():
        if path.is_dir() and path.name != environment.fingerprint:
            shutil.rmtree(path)
    write_versions(own, [Version(environment.fingerprint, "planned", environment.by, environment.name)])
    write_environment(settings, environment)


@contextmanager
def _both_sides(own: Settings, catalog: Catalog, frozen: Frozen) -> Iterator["duckdb.DuckDBPyConnection"]:
    """A connection with the environment's catalog as ``lake`` and production's, frozen, as ``production``."""
    import duckdb

    with (
        CatalogFace(EnvironmentCatalog(catalog, "", frozen.read | frozen.compared)) as face,
        duckdb.connect() as connection,
    ):
        attach_lake(connection, own)
        attach_face(connection, face, PRODUCTION)
        yield connection


def _days(
    connection: "duckdb.DuckDBPyConnection",
    settings: Settings,
    models: Mapping[str, ModelInfo],
    changes: tuple[ModelChange, ...],
    frozen: Frozen,
    *,
    start: date | None,
    end: date | None,
) -> tuple[date, date] | None:
    """The days to build; None for all."""
    tables = set().union(*(sources(models, models[change.model]) for change in changes if change.rebuilt))
    streams = [
        contract
        for contract in load_contracts(settings.contracts_dir).values()
        if contract.kind == "stream" and contract.table in tables & frozen.read.keys()
    ]
    rows = sum(_rows(frozen, contract) for contract in streams)
    if start is None and end is None and rows <= SMALL_ROWS:
        return None
    if end is None:
        newest = [
            connection.execute(f'SELECT max("{contract.rules.event_date_field}") FROM lake.{contract.table}').fetchone()  # noqa: S608 - names of a contract.
            for contract in streams
        ]
        end = max((row[0] for row in newest if row and row[0]), default=datetime.now(UTC).date())
    return start or end - WINDOW, end


def _rows(frozen: Frozen, contract: Contract) -> int:
    head = frozen.read[contract.table].current_snapshot()
    return int((summary_property(head, "total-records") if head else None) or 0)
