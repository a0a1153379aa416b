"""Build a working copy's models beside production, compare them with it, and judge whether they may follow it."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from pyiceberg.catalog import Catalog

from freshdata.clock import instance_clock
from freshdata.contracts import Contract, load_contracts
from freshdata.environments.catalog import SEPARATOR, EnvironmentCatalog
from freshdata.environments.changes import ModelChange, model_changes, other_changes
from freshdata.environments.datadiff import PRODUCTION, DataDiff, compare_rows
from freshdata.environments.frozen import Frozen, freeze
from freshdata.environments.gates import (
    Gate,
    audit_gate,
    contract_gate,
    lint_gate,
    partition_gate,
    unit_test_gate,
)
from freshdata.environments.records import (
    Environment,
    State,
    drop_tables,
    environment_settings,
    locked,
    user,
    write_environment,
)
from freshdata.errors import DeploymentError, TransformError
from freshdata.lake.catalog import open_catalog
from freshdata.lake.duck import attach_face, attach_lake, catalog_face, catalog_shown
from freshdata.lake.progress import summary_property
from freshdata.lake.rest_catalog import CatalogFace
from freshdata.settings import Settings
from freshdata.transform.context import open_context
from freshdata.transform.manifest import ModelInfo, load_manifest, sources
from freshdata.transform.results import ModelRun
from freshdata.transform.runner import Runner
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
    from sqlmesh import Context

# Up to so many rows of Bronze, an environment holds all days; beyond, the newest.
SMALL_ROWS = 5_000_000
WINDOW = timedelta(days=13)
Tell = Callable[[str], None]


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
        production, models = load_manifest(settings), load_manifest(working)
        changes = model_changes(production, settings.models_dir, models, working.models_dir)
        files = other_changes(settings.models_dir, working.models_dir)
        catalog = open_catalog(settings)
        drop_tables(catalog, name)
        fingerprint = _begin(own, working)
        frozen = freeze(catalog, production, {change.model for change in changes if change.rebuilt})
        with ExitStack() as stack:
            stack.enter_context(catalog_shown(own, EnvironmentCatalog(catalog, name, frozen.read)))
            connection = stack.enter_context(_both_sides(own, catalog, frozen))
            build = _Build(own, models, changes, _days(connection, settings, models, changes, frozen, start, end), tell)
            build.gates.append(partition_gate(production, models))
            build.run(instance_clock(settings.home).now().date())
            tell("Comparing rows")
            diffs = tuple(
                compare_rows(connection, built, models[built].grain, day=models[built].partition_column, days=build.days)
                for built in build.runs
                if built in frozen.compared
            )
        reasons = tuple(f"{gate.name}: {gate.detail}" for gate in build.gates if not gate.passed)
        state: State = "refused" if reasons else "same" if fingerprint == base else "ready"
        version = read_versions(own)[-1]
        kinds = {change.model: change.kind for change in changes}
        environment = Environment(
            name, version.by, version.at, state, base, fingerprint, version.commit, dict(kinds), reasons
        )
        write_environment(settings, vars(environment))
        tables = {model: (f"{name}{SEPARATOR}{model}", run.rows) for model, run in build.runs.items()}
        notes = (*frozen.notes, *build.notes)
        return Plan(environment, build.days, changes, files, tables, diffs, tuple(build.gates), notes)


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


def _begin(own: Settings, working: Settings) -> str:
    """An empty environment that follows a copy of the working copy's models; returns their fingerprint."""
    shutil.rmtree(own.home, ignore_errors=True)
    fingerprint = keep_models(own, working.models_dir)
    commit = next(iter(code_properties(working).values()), "")
    write_versions(own, [Version(fingerprint, "planned", user(), commit=commit)])
    return fingerprint


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


class _Build:
    """Runs the gates, and builds the models between them."""

    def __init__(
        self,
        own: Settings,
        models: Mapping[str, ModelInfo],
        changes: tuple[ModelChange, ...],
        days: tuple[date, date] | None,
        tell: Tell,
    ) -> None:
        self.own = own
        self.models = models
        self.changes = {change.model: change for change in changes}
        self.days = days
        self.tell = tell
        self.gates: list[Gate] = []
        self.runs: dict[str, ModelRun] = {}
        self.notes: list[str] = []

    def run(self, today: date) -> None:
        """Lint, test, build, audit and check."""
        with open_context(self.own) as context:
            self.tell("Running the linter and the unit tests")
            self.gates += [lint_gate(context), unit_test_gate(context)]
            if all(gate.passed for gate in self.gates):
                self.build(context)
        contracts = load_contracts(self.own.contracts_dir)
        for model in self.runs:
            contract = contracts.get(model.removeprefix("silver."))
            if contract and contract.kind == "stream":
                self.tell(f"Checking {model} against its contract")
                table = catalog_face(self.own).catalog.load_table(model)
                self.gates.append(contract_gate(table, self.models[model], contract, self.days, today))

    def build(self, context: "Context") -> None:
        """Build what changes and what is downstream of it; audit what is only described anew."""
        runner = Runner(self.own, context, {})
        try:
            runner.deploy()
        except TransformError as error:
            self.gates.append(Gate("build", passed=False, detail=error.message))
            return
        stopped: set[str] = set()
        for name, info in self.models.items():
            change = self.changes.get(name)
            if change is None:
                continue
            if culprits := stopped.intersection(info.depends_on):
                stopped.add(name)
                self.gates.append(Gate(f"build of {name}", passed=False, detail=f"{', '.join(sorted(culprits))} failed"))
                continue
            self.tell(f"Building {name}" if change.rebuilt else f"Auditing {name}")
            try:
                audits = self.built(runner, info).audits if change.rebuilt else runner.audit(name)
            except TransformError as error:
                self.gates.append(Gate(f"build of {name}", passed=False, detail=error.message))
                stopped.add(name)
                continue
            self.gates.append(audit_gate(name, audits))

    def built(self, runner: Runner, info: ModelInfo) -> ModelRun:
        """One model's run."""
        if self.days and info.partition_column:
            self.runs[info.name] = runner.run_partitions(info.name, *self.days)
        else:
            self.runs[info.name] = runner.run_full(info.name)
            if self.days and set(info.depends_on) & self.runs.keys():
                self.notes.append(f"{info.name} has no days: it was built from the plan's days of what is upstream")
        return self.runs[info.name]
