"""What the demo found: the facts behind its page."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from freshdata.demo.reconcile import Check
from freshdata.freshness import Freshness
from freshdata.lake.progress import PartitionProgress


@dataclass(frozen=True)
class CheckOutcome:
    """An asset check's last evaluation, from Dagster's event log."""

    asset: str
    name: str
    passed: bool
    severity: str


@dataclass(frozen=True)
class Answer:
    """One question to Gold and its answer."""

    title: str
    rows: list[dict[str, object]]


@dataclass(frozen=True)
class Outcome:
    """Everything the page shows.

    Attributes:
        title: What was run.
        claim: What it shows when all holds.
        hints: Commands to go on with, and what each does.
        now: The replay's present.
        progress: What became of each stream's records.
        reasons: Rejection reason to number of events.
        tables: Table to its rows and data files.
        checks: Asset checks.
        freshness: Stream to the freshness of its tenants.
        answers: Questions to Gold.
        reconciliation: Ledger, lake and source compared.
        steps: Step to its duration in seconds.
        failures: Dagster runs that failed, one line each.
        logs: Folder of the log files.
    """

    title: str
    claim: str
    hints: dict[str, str]
    now: datetime
    progress: dict[str, PartitionProgress]
    reasons: dict[str, int]
    tables: dict[str, tuple[int, int]]
    checks: list[CheckOutcome]
    freshness: dict[str, Freshness]
    answers: list[Answer]
    reconciliation: list[Check]
    steps: list[tuple[str, float]]
    failures: list[str]
    logs: Path

    @property
    def problems(self) -> list[str]:
        """What does not hold, one line each: equations, runs, blocking checks, freshness."""
        return [
            *(f"{check.claim}: {check.expected} is not {check.found}" for check in self.reconciliation if not check.ok),
            *self.failures,
            *(f"{c.asset}: check {c.name} failed" for c in self.checks if not c.passed and c.severity == "ERROR"),
            *(f"{stream}: a tenant is late" for stream, freshness in self.freshness.items() if not freshness.passed),
            *([] if self.checks else ["Dagster recorded no check"]),
        ]

    @property
    def ok(self) -> bool:
        """Whether all of it holds."""
        return not self.problems
