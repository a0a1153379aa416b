"""What a run of a model did, and what one would do."""

from dataclasses import dataclass
from datetime import date
from typing import Literal

from freshdata.lake.cursors import Cursor

Mode = Literal["live", "partitions", "full", "rebuild"]


@dataclass(frozen=True)
class AuditResult:
    """The outcome of one audit.

    Attributes:
        name: The audit's name.
        count: Number of rows that fail it.
        blocking: Whether its failure must keep the rows from what is downstream.
        passed: Whether no row fails it.
    """

    name: str
    count: int
    blocking: bool
    passed: bool


@dataclass(frozen=True)
class ModelRun:
    """What a run did.

    Attributes:
        model: The model's name.
        mode: ``live``, ``partitions`` or ``full``.
        partitions: Recomputed day or hour, or first day of a period, to its rows now; empty for a table without any.
        rows: Rows in the table now.
        audits: The audits' outcomes; empty when nothing was recomputed.
        note: Why the run did more, or less, than usual; or an empty string.
        snapshot_id: The table's current snapshot, or None when it never had one.
        seconds: Duration.
        location: Where the table's files are.
    """

    model: str
    mode: Mode
    partitions: dict[date, int]
    rows: int
    audits: tuple[AuditResult, ...]
    note: str
    snapshot_id: int | None
    seconds: float
    location: str = ""


@dataclass(frozen=True)
class Pending:
    """What a live run would do.

    Attributes:
        behind: Whether an upstream table, or the model's code, moved since the table's cursor.
        dates: The days or hours it would recompute; None for all.
        note: Why all, or an empty string.
        cursor: What the table will have seen afterwards.
        whole_days: Whether the days are rebuilt whole because the new rows cannot be told from the others.
        keyed: Whether only the keys of the new rows are recomputed, of a table without days.
    """

    behind: bool
    dates: frozenset[date] | None
    note: str
    cursor: Cursor
    whole_days: bool = False
    keyed: bool = False
