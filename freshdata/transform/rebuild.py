"""Replay a layer from the one before: build each model's table anew beside the live one, reconcile the two, and swap.

Readers see the old rows until the swap, which is one snapshot; an interruption before it leaves the live table as it
was. What the live table holds and the rebuilt one does not is never given up in silence.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from freshdata.errors import TransformError
from freshdata.lake.catalog import CATALOG_NAME, load_table
from freshdata.lake.changes import partition_of
from freshdata.lake.cursors import read_cursor
from freshdata.lake.progress import standing
from freshdata.lake.replace import SHADOW, fork_table, take_over
from freshdata.transform.evaluation import Evaluation
from freshdata.transform.manifest import ModelInfo
from freshdata.transform.results import Pending
from freshdata.transform.stamps import Stamps

STRETCH_DAYS = 31  # Their rows are in memory at once.
EXAMPLES = 5


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild of a table came to.

    Attributes:
        model: The model's name.
        days: First and last day; None for a table without days.
        rows: Rows of the rebuilt days.
        gained: Rows that the live table did not have; a changed row counts here and in ``lost``.
        lost: Rows of the live table that the rebuilt one does not have.
        snapshot_id: The live table's snapshot after the swap; None when the two were equal and nothing was swapped.
        seconds: Duration.
    """

    model: str
    days: tuple[date, date] | None
    rows: int
    gained: int
    lost: int
    snapshot_id: int | None
    seconds: float


class Rebuild:
    """Rebuilds one model's table.

    Args:
        catalog: The catalog.
        evaluation: The deployed models.
        adapter: SQLMesh's engine adapter.
        stamps: What the swap's snapshot says.
    """

    def __init__(self, catalog: Catalog, evaluation: Evaluation, adapter: Any, stamps: Stamps) -> None:
        self._catalog = catalog
        self._evaluation = evaluation
        self._adapter = adapter
        self._stamps = stamps

    def run(
        self,
        info: ModelInfo,
        pending: Pending,
        days: tuple[date, date],
        *,
        whole: bool,
        allow_missing: bool,
        advance: Callable[[int, int], None],
    ) -> Rebuilt:
        """Rebuild the table, or some of its days.

        Args:
            info: The model.
            pending: What a live run would do; its cursor was read before any row is.
            days: First and last day, inclusive.
            whole: Whether these are all the days there are: then the table has seen its upstream tables afterwards.
            allow_missing: Whether rows, by key, that the live table has and the rebuilt one lacks may go.
            advance: Told how many of how many stretches are built.

        Raises:
            TransformError: the query fails, a blocking audit refuses the rebuilt rows, rows would go, or another run
                wrote to the live table meanwhile. The live table is as it was.
        """
        started, live = time.monotonic(), load_table(self._catalog, info.name)
        shadow = self._fork(live, info)
        try:
            self._fill(info, shadow, days, advance)
            rows = self._counted(f"SELECT * FROM {CATALOG_NAME}.{_shadow(info)}")  # noqa: S608 - a model's name.
            self._refuse_by_audit(info, days)
            gained = self._counted(self._difference(info, days, _shadow(info), info.name))
            lost = self._counted(self._difference(info, days, info.name, _shadow(info)))
            if lost and not allow_missing:
                self._refuse_missing(info, days)
            snapshot_id = None
            if whole:
                self._evaluation.remember_deletes(info)
            if gained or lost:
                snapshot_id = self._swap(info, live, shadow, pending, None if whole else days)
        finally:
            self._drop(info)
        span = days if info.partition_column else None
        return Rebuilt(info.name, span, rows, gained, lost, snapshot_id, time.monotonic() - started)

    def _fork(self, live: Table, info: ModelInfo) -> Table:
        self._drop(info)  # Of a rebuild that was killed.
        return fork_table(self._catalog, live, _shadow(info), {})

    def _drop(self, info: ModelInfo) -> None:
        # Its files lie in the live table's folder, whose maintenance removes those that were not taken over.
        try:
            self._catalog.drop_table(_shadow(info))
        except NoSuchTableError:
            return

    def _fill(
        self, info: ModelInfo, shadow: Table, days: tuple[date, date], advance: Callable[[int, int], None]
    ) -> None:
        stretches = [days]
        if info.partition_column:
            stretches = list(info.period.stretches(*days, STRETCH_DAYS))
        for number, (first, last) in enumerate(stretches):
            advance(number, len(stretches))
            self._adapter.append(shadow, self._evaluation.query(info, first, last))
        advance(len(stretches), len(stretches))

    def _refuse_by_audit(self, info: ModelInfo, days: tuple[date, date]) -> None:
        audits = self._evaluation.audit(info, *days, table=f"{CATALOG_NAME}.{_shadow(info)}")
        if broken := [f"{audit.name} ({audit.count} rows)" for audit in audits if audit.blocking and not audit.passed]:
            raise TransformError(
                info.name,
                f"was rebuilt, but the new rows fail {', '.join(broken)}. Nothing was swapped.",
                remedy="Correct the model or the data it reads, and run the command again.",
            )

    def _counted(self, query: str) -> int:
        from sqlglot import parse_one

        # Parsed, so that it is said in the engine's own SQL.
        (count,) = self._adapter.fetchone(parse_one(f"SELECT COUNT(*) FROM ({query}) AS found", dialect="duckdb"))  # noqa: S608
        return int(count)

    def _difference(
        self, info: ModelInfo, days: tuple[date, date], of: str, without: str, columns: tuple[str, ...] | None = None
    ) -> str:
        """The rows of one table that another does not have, or their values in some columns."""
        from freshdata.transform.exchange import literal

        # Names of the project's own, validated as identifiers where they are read.
        chosen = ", ".join(f'"{name}"' for name in columns or info.columns)
        where = ""
        if info.partition_column:
            first, last = (literal(day).sql("duckdb") for day in days)
            where = f' WHERE "{info.partition_column}" BETWEEN {first} AND {last}'
        parts = [f"SELECT {chosen} FROM {CATALOG_NAME}.{table}{where}" for table in (of, without)]  # noqa: S608
        return " EXCEPT ALL ".join(parts)

    def _refuse_missing(self, info: ModelInfo, days: tuple[date, date]) -> None:
        """Refuse to give up keys; a row that is only other than it was has not gone.

        Raises:
            TransformError: keys would go.
        """
        from sqlglot import parse_one

        keys = info.grain or tuple(info.columns)
        gone = self._difference(info, days, info.name, _shadow(info), keys)
        count = self._counted(gone)
        if not count:
            return
        query = f"SELECT * FROM ({gone}) AS gone LIMIT {EXAMPLES}"  # noqa: S608 - as above.
        some = self._adapter.fetchall(parse_one(query, dialect="duckdb"))
        examples = "; ".join(", ".join(str(value) for value in row) for row in some)
        raise TransformError(
            info.name,
            f"was rebuilt, but {count:,} of its rows are not made from the layer before any more, first {examples}. "
            "Nothing was swapped.",
            remedy="To give them up, run the command again with --allow-missing.",
        )

    def _swap(
        self, info: ModelInfo, live: Table, shadow: Table, pending: Pending, days: tuple[date, date] | None
    ) -> int:
        seen = live.current_snapshot()
        cursor = pending.cursor if days is None else read_cursor(live)

        def refuse_news() -> None:
            # A compaction meanwhile changed no row.
            if standing(live, seen.snapshot_id if seen else None) != seen:
                raise TransformError(
                    info.name,
                    "was written to by another run while it was rebuilt. Nothing was swapped.",
                    remedy="Run the command again.",
                )

        def replaced(file: DataFile) -> bool:
            return days is None or days[0] <= partition_of(live, file)[str(info.partition_column)] <= days[1]

        ranges = (days,) if days else None
        with self._stamps.stamped(info, "rebuild", lambda _: cursor, ranges):
            snapshot = take_over(live, shadow, self._stamps.of(live), within=replaced, admit=refuse_news)
        return snapshot.snapshot_id


def _shadow(info: ModelInfo) -> str:
    return f"{info.name}{SHADOW}"
