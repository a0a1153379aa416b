"""Build a plan's models in their environment, gate by gate."""

from collections.abc import Callable, Mapping
from datetime import date
from typing import TYPE_CHECKING

from freshdata.contracts import load_contracts
from freshdata.environments.changes import ModelChange
from freshdata.environments.gates import Gate, audit_gate, lint_gate, quality_gate, unit_test_gate
from freshdata.errors import TransformError
from freshdata.lake.duck import catalog_face
from freshdata.quality.suites import own_suites
from freshdata.settings import Settings
from freshdata.transform.context import open_context
from freshdata.transform.manifest import ModelInfo
from freshdata.transform.results import ModelRun
from freshdata.transform.runner import Runner

if TYPE_CHECKING:
    from sqlmesh import Context

Tell = Callable[[str], None]


class Build:
    """Runs the gates, and builds the models between them.

    Args:
        own: The environment; its catalog is shown.
        models: Its models.
        changes: What they change.
        days: First and last day to build; None for all.
        tell: Called with what is being done.

    Attributes:
        gates: The gates' verdicts.
        runs: What each model's run did.
        notes: What makes a built table another than production's would be.
    """

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
        loaded = load_contracts(self.own.contracts_dir).values()
        streams = {f"silver.{contract.name}": contract for contract in loaded if contract.kind == "stream"}
        own = own_suites(self.own.expectations_dir, streams.values(), self.models)
        for model in self.runs:
            if model in streams or model in own:
                self.tell(f"Checking the rows of {model}")
                table, info = catalog_face(self.own).catalog.load_table(model), self.models[model]
                gate = quality_gate(table, info, streams.get(model), own.get(model), days=self.days, today=today)
                self.gates.append(gate)

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
                self.gates.append(
                    Gate(f"build of {name}", passed=False, detail=f"{', '.join(sorted(culprits))} failed")
                )
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
        if self.days and info.granularity is None and set(info.depends_on) & self.runs.keys():
            what = f"has whole {info.period.unit}s" if info.partition_column else "has no days"
            self.notes.append(f"{info.name} {what}: it was built from the plan's days of what is upstream")
        if self.days and info.partition_column:
            self.runs[info.name] = runner.run_partitions(info.name, *self.days)
        else:
            self.runs[info.name] = runner.run_full(info.name)
        return self.runs[info.name]
