"""Run models: live, following what their upstream tables gained; by partition; or whole.

Both ways lead to the same rows. *Live*, Silver merges only the rows added to Bronze since its cursor, and Gold
recomputes only the days that Silver's new snapshots touched: work grows with the news. *By partition*, the days are
rebuilt whole from upstream, and the cursor stays where it is, because such a run has not seen the other days. When
what is new cannot be told (no cursor yet, an expired or rolled back snapshot, changed model code), the whole table is
rebuilt: reading too much is harmless, reading too little is the only error.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from freshdata.contracts import load_contracts
from freshdata.errors import TransformError
from freshdata.lake.catalog import CATALOG_NAME, ensure_stream_tables, ensure_table, load_table
from freshdata.lake.changes import appends_only, date_ranges, is_ancestor, new_rows, touched_dates
from freshdata.lake.cursors import (
    MODE_PROPERTY,
    MODEL_PROPERTY,
    RUN_PROPERTY,
    Cursor,
    read_cursor,
    upstream_heads,
)
from freshdata.lake.duck import catalog_face
from freshdata.lake.progress import summary_property
from freshdata.settings import Settings
from freshdata.transform.context import open_context, refuse_lint_errors
from freshdata.transform.manifest import ModelInfo, build_manifest, project_fingerprint, table_name
from freshdata.transform.results import AuditResult, Mode, ModelRun, Pending
from freshdata.transform.slices import SLICE, Slice

if TYPE_CHECKING:
    from sqlglot import exp
    from sqlmesh import Context
    from sqlmesh.core.snapshot import Snapshot

__all__ = ["AuditResult", "ModelRun", "Pending", "Runner", "open_runner"]

MERGE_KIND = "merge_by_key"
# The temporary table that holds a stream's new rows while they are merged.
NEWS = "news"


@contextmanager
def open_runner(settings: Settings) -> Iterator["Runner"]:
    """A runner on an instance, its project deployed; other processes wait until it is closed.

    Raises:
        TransformError: the project cannot be loaded or deployed, or another process kept the state for too long.
    """
    with open_context(settings) as context:
        runner = Runner(settings, context)
        runner.deploy()
        yield runner


class Runner:
    """Runs the models of one instance; see :func:`open_runner`.

    Attributes:
        manifest: The models by name, upstream before downstream.
    """

    def __init__(self, settings: Settings, context: "Context") -> None:
        self._settings = settings
        self._context = context
        self._face = catalog_face(settings)
        self._contracts = load_contracts(settings.contracts_dir)
        self.manifest = build_manifest(context, settings)
        self._snapshots: dict[str, Snapshot] = {}

    def deploy(self) -> None:
        """Create or alter the models' tables where the project has changed since the last time; fills none of them.

        Raises:
            TransformError: a model cannot be deployed.
        """
        from sqlmesh.utils.errors import SQLMeshError

        marker = self._settings.home / "sqlmesh" / "deployed"
        fingerprint = project_fingerprint(self._settings)
        if not marker.is_file() or marker.read_text() != fingerprint:
            self._ensure_landing_tables()
            refuse_lint_errors(self._context)
            try:
                self._context.plan("prod", auto_apply=True, no_prompts=True, skip_backfill=True, skip_tests=True)
            except SQLMeshError as error:
                raise TransformError(
                    "of this project",
                    f"cannot be deployed: {_root(error)}.",
                    remedy="Correct the model; `sqlmesh plan` tells more.",
                ) from error
            marker.write_text(fingerprint)
        scheduler = self._context.scheduler("prod")
        self._snapshots = {table_name(snapshot.name): snapshot for snapshot in scheduler.snapshots.values()}

    def run_live(self, model: str) -> ModelRun:
        """Follow what the model's upstream tables gained since its cursor.

        Raises:
            TransformError: there is no such model, or its query fails.
        """
        info, started = self._model(model), time.monotonic()
        pending = self.pending(model)
        if not pending.behind:
            return self._outcome(info, "live", started, days=frozenset(), note="up to date")
        if not pending.cursor.upstream:
            return self._outcome(info, "live", started, days=frozenset(), note="its upstream tables are empty")
        audits: tuple[AuditResult, ...] = ()
        with self._stamped(info, "live", pending.cursor) as run:
            if pending.dates != frozenset():
                audits = self._evaluate_live(info, pending)
            self._carry_cursor(info, run)
        note = pending.note or ("" if audits else "its upstream tables moved, but none of its days changed")
        return self._outcome(info, "live", started, days=pending.dates, audits=audits, note=note)

    def run_partitions(self, model: str, start: date, end: date) -> ModelRun:
        """Rebuild days whole from upstream.

        Args:
            model: The model's name.
            start: First day.
            end: Last day, inclusive.

        Raises:
            TransformError: there is no such model, it has no daily partitions, or its query fails.
        """
        info, started = self._model(model), time.monotonic()
        if info.partition_column is None:
            raise TransformError(model, "has no daily partitions.", remedy="Run it whole.")
        with self._stamped(info, "partitions", read_cursor(load_table(self._face.catalog, model))):
            audits = self._evaluate(info, start, end, Slice(ranges=((start, end),)))
        days = frozenset(date.fromordinal(day) for day in range(start.toordinal(), end.toordinal() + 1))
        return self._outcome(info, "partitions", started, days=days, audits=audits)

    def run_full(self, model: str) -> ModelRun:
        """Rebuild the whole table from upstream.

        Raises:
            TransformError: there is no such model, or its query fails.
        """
        info, started = self._model(model), time.monotonic()
        pending = replace(self.pending(model), dates=None)
        with self._stamped(info, "full", pending.cursor) as run:
            audits = self._evaluate_live(info, pending)
            self._carry_cursor(info, run)
        return self._outcome(info, "full", started, days=None, audits=audits)

    def audit(self, model: str) -> tuple[AuditResult, ...]:
        """Run a model's audits on all of its rows, whichever run wrote them.

        Raises:
            TransformError: there is no such model, or an audit cannot be run.
        """
        info = self._model(model)
        days = self._counts(info, None)[1]
        return self._audited(info, self._span(min(days), max(days)) if days else self._span(*self._bounds(info)))

    def pending(self, model: str) -> Pending:
        """What a live run of a model would do now.

        Raises:
            TransformError: there is no such model.
        """
        info = self._model(model)
        # The heads are read before any row is: what is appended in between is read twice, never missed.
        heads = upstream_heads(self._face.catalog, info.depends_on)
        cursor = Cursor(heads, info.code_version)
        seen = read_cursor(load_table(self._face.catalog, model))
        if seen == cursor:
            return Pending(behind=False, dates=frozenset(), note="", cursor=cursor)
        if seen is None:
            return Pending(behind=True, dates=None, note="first run: everything is new", cursor=cursor)
        if seen.fingerprint != info.code_version:
            return Pending(
                behind=True, dates=None, note="the model's code has changed: everything is rebuilt", cursor=cursor
            )
        if info.partition_column is None:
            return Pending(behind=True, dates=None, note="", cursor=cursor)
        dates: set[date] = set()
        for name in info.depends_on:
            if heads.get(name) == seen.upstream.get(name):
                continue
            touched = self._touched(name, seen.upstream.get(name))
            if isinstance(touched, str):
                return Pending(behind=True, dates=None, note=touched, cursor=cursor)
            dates |= touched
        return Pending(behind=True, dates=frozenset(dates), note="", cursor=cursor)

    def render_full(self, model: str) -> str:
        """The SQL that recomputes a whole model from its upstream tables, for DuckDB with the lake attached.

        Raises:
            TransformError: there is no such model.
        """
        info = self._model(model)
        return str(self._query(info, *self._bounds(info)).sql("duckdb"))

    def _model(self, name: str) -> ModelInfo:
        if name not in self.manifest:
            raise TransformError(name, "does not exist.", remedy=f"Use one of {', '.join(self.manifest)}.")
        return self.manifest[name]

    def _touched(self, name: str, after: int | None) -> set[date] | str:
        """The days that an upstream table's changes since a snapshot concern, or why that cannot be told."""
        table, column = load_table(self._face.catalog, name), self._date_column(name)
        if after is None:
            return f"{name} has its first rows: everything is rebuilt"
        if not is_ancestor(table, after):
            return f"the snapshot of {name} seen last has expired or was rolled back: everything is rebuilt"
        if column is None:
            return f"{name} has changed, and it has no days: everything is rebuilt"
        if (touched := touched_dates(table, column, after)) is not None:
            return touched
        if not appends_only(table, after):
            return f"rows of {name} were changed or deleted: everything is rebuilt"
        return {day for batch in new_rows(table, after, (column,)) for day in batch.column(0).unique().to_pylist()}

    def _date_column(self, table: str) -> str | None:
        if table in self.manifest:
            return self.manifest[table].partition_column
        contract = next((contract for contract in self._contracts.values() if contract.table == table), None)
        return contract.stream.event_date_field if contract and contract.stream else None

    def _evaluate_live(self, info: ModelInfo, pending: Pending) -> tuple[AuditResult, ...]:
        if pending.dates is None:
            return self._evaluate(info, *self._bounds(info), Slice())
        first, last = min(pending.dates), max(pending.dates)
        ranges = tuple(date_ranges(pending.dates))
        # Only a model over one table can be computed from its new rows alone; with a join, the days are replaced.
        if info.kind != MERGE_KIND or len(info.depends_on) > 1:
            return self._evaluate(info, first, last, Slice(ranges))
        (stream,) = info.depends_on
        cursor = read_cursor(load_table(self._face.catalog, info.name))
        after = cursor.upstream.get(stream) if cursor else None
        head = pending.cursor.upstream.get(stream)
        self._adapter.stage(NEWS, new_rows(load_table(self._face.catalog, stream), after, until=head))
        try:
            reads = {f"{CATALOG_NAME}.{stream}": f"temp.main.{NEWS}"}
            return self._evaluate(info, first, last, Slice(ranges, merge=True, reads=reads))
        finally:
            self._adapter.unstage(NEWS)

    def _evaluate(self, info: ModelInfo, first: date, last: date, part: Slice) -> tuple[AuditResult, ...]:
        """Compute and store a slice, run the audits on its days, and book the days in SQLMesh's state."""
        import duckdb
        from sqlmesh.utils.errors import SQLMeshError

        snapshot, evaluator = self._snapshots[info.name], self._context.snapshot_evaluator
        span = self._span(first, last)
        try:
            evaluator.evaluate(
                snapshot,
                allow_destructive_snapshots=set(),
                allow_additive_snapshots=set(),
                batch_index=0,
                target_table_exists=True,
                **span,
                **{SLICE: part},
            )
        except (SQLMeshError, duckdb.Error) as error:
            raise _failed(info, error) from error
        audits = self._audited(info, span)
        if all(audit.passed or not audit.blocking for audit in audits):
            for start, end in part.ranges or ((first, last),):
                self._context.state_sync.add_interval(snapshot, start.isoformat(), end.isoformat())
        return audits

    def _audited(self, info: ModelInfo, span: dict[str, Any]) -> tuple[AuditResult, ...]:
        import duckdb
        from sqlmesh.utils.errors import SQLMeshError

        try:
            outcomes = self._context.snapshot_evaluator.audit(self._snapshots[info.name], **span)
        except (SQLMeshError, duckdb.Error) as error:
            raise _failed(info, error) from error
        return tuple(
            AuditResult(outcome.audit.name, outcome.count or 0, bool(outcome.blocking), not outcome.count)
            for outcome in outcomes
        )

    def _span(self, first: date, last: date) -> dict[str, Any]:
        from sqlmesh.core.snapshot import DeployabilityIndex

        return {
            "start": first.isoformat(),
            "end": last.isoformat(),
            "execution_time": datetime.now(UTC),
            "snapshots": {snapshot.name: snapshot for snapshot in self._snapshots.values()},
            "deployability_index": DeployabilityIndex.all_deployable(),
        }

    def _query(self, info: ModelInfo, first: date, last: date) -> "exp.Query":
        model = self._snapshots[info.name].model
        query: exp.Query = model.render_query_or_raise(**self._span(first, last), engine_adapter=self._adapter)
        return query

    def _bounds(self, info: ModelInfo) -> tuple[date, date]:
        """First and last day of the rows upstream; any day when there are none, or none are told."""
        from sqlglot import exp

        found: list[date] = []
        for name in info.depends_on:
            if column := self._date_column(name):
                day = exp.column(column, quoted=True)
                query = exp.select(exp.Min(this=day), exp.Max(this=day)).from_(f"{CATALOG_NAME}.{name}")
                found += [value for value in self._adapter.fetchone(query) or () if value is not None]
        today = datetime.now(UTC).date()
        return min(found, default=today), max(found, default=today)

    @contextmanager
    def _stamped(self, info: ModelInfo, mode: Mode, cursor: Cursor | None) -> Iterator[str]:
        """Within the context, the table's snapshots carry the cursor and say which run made them."""
        run = uuid.uuid4().hex
        properties = {MODEL_PROPERTY: info.name, MODE_PROPERTY: mode, RUN_PROPERTY: run}
        with self._face.stamp(info.name, properties | (cursor.properties() if cursor else {})):
            yield run

    def _carry_cursor(self, info: ModelInfo, run: str) -> None:
        """Make sure that the run's cursor is in the table, by an empty snapshot if the run changed no row.

        Without it the table would count as behind for ever, and in the end its cursor would name an expired snapshot.
        """
        from freshdata.transform.engine import retry_conflicts

        def commit() -> None:
            table = load_table(self._face.catalog, info.name)
            head = table.current_snapshot()
            if head is not None and summary_property(head, RUN_PROPERTY) == run:
                return
            properties = self._face.stamped(info.name)
            with table.transaction() as change, change.update_snapshot(snapshot_properties=properties).fast_append():
                pass

        retry_conflicts(commit)

    def _outcome(
        self,
        info: ModelInfo,
        mode: Mode,
        started: float,
        *,
        days: frozenset[date] | None,
        audits: tuple[AuditResult, ...] = (),
        note: str = "",
    ) -> ModelRun:
        rows, partitions = self._counts(info, days)
        head = load_table(self._face.catalog, info.name).current_snapshot()
        seconds = time.monotonic() - started
        return ModelRun(info.name, mode, partitions, rows, audits, note, head.snapshot_id if head else None, seconds)

    def _counts(self, info: ModelInfo, days: frozenset[date] | None) -> tuple[int, dict[date, int]]:
        """Rows in the table, and in each of some days; of all days that have rows when they are None."""
        from sqlglot import exp

        rows = exp.alias_(exp.Count(this=exp.Star()), "rows")
        query = exp.select(rows).from_(f"{CATALOG_NAME}.{info.name}")
        if info.partition_column is None:
            (total,) = self._adapter.fetchone(query)
            return int(total), {}
        day = exp.column(info.partition_column, quoted=True)
        counts = {key: int(count) for count, key in self._adapter.fetchall(query.select(day).group_by(day))}
        chosen = counts if days is None else {key: counts.get(key, 0) for key in sorted(days)}
        return sum(counts.values()), dict(sorted(chosen.items()))

    @property
    def _adapter(self) -> Any:
        return self._context.engine_adapter

    def _ensure_landing_tables(self) -> None:
        # Models are compiled against the tables they read: those must exist, though nothing may have come in yet.
        for contract in self._contracts.values():
            if contract.kind == "stream":
                ensure_stream_tables(self._face.catalog, contract, self._contracts)
            else:
                ensure_table(self._face.catalog, contract.table, contract.arrow_schema)


def _failed(info: ModelInfo, error: BaseException) -> TransformError:
    return TransformError(
        info.name,
        f"failed: {_root(error)}.",
        remedy=f"Correct {info.path}, or the data it reads, and run it again.",
    )


def _root(error: BaseException) -> str:
    """What went wrong at the bottom, in one line: SQLMesh wraps an engine's message, and hides it as mere context."""
    from sqlmesh.utils.errors import SQLMeshError

    while isinstance(error, SQLMeshError) and (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return " ".join(str(error).split()).rstrip(".")
