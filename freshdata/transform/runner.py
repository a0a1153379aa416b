"""Run models: live, following what their upstream tables gained; by partition; or whole.

Both ways lead to the same rows. *Live*, Silver merges only the rows added to Bronze since its cursor, and Gold
recomputes only the days that Silver's new snapshots touched: work grows with the news. *By partition*, the days are
rebuilt whole from upstream, and the cursor stays where it is, because such a run has not seen the other days. When
what is new cannot be told (no cursor yet, an expired or rolled back snapshot, changed model code), the whole table is
rebuilt: reading too much is harmless, reading too little is the only error.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyiceberg.table import Table

from freshdata.contracts import load_contracts
from freshdata.errors import OvertakenError, TransformError
from freshdata.intervals import each, length
from freshdata.intervals import ranges as ranges_of
from freshdata.lake.catalog import CATALOG_NAME, ensure_stream_tables, ensure_table, load_table
from freshdata.lake.cursors import COMMIT_PROPERTY, Cursor, common, read_cursor
from freshdata.lake.duck import catalog_face
from freshdata.settings import Settings
from freshdata.transform.context import LoadedProject, open_context, refuse_lint_errors
from freshdata.transform.evaluation import Evaluation, root_cause
from freshdata.transform.keyed import row_counts
from freshdata.transform.manifest import ModelInfo, build_models, kept_models, project_fingerprint, stored, table_name
from freshdata.transform.rebuild import Rebuild, Rebuilt
from freshdata.transform.results import AuditResult, Mode, ModelRun, Pending
from freshdata.transform.retry import retry
from freshdata.transform.slices import Slice
from freshdata.transform.stamps import Stamps, code_properties
from freshdata.transform.state import state_to_alter
from freshdata.transform.upstream import ROWS_KIND, Upstream
from freshdata.transform.versions import keep_deployed

if TYPE_CHECKING:
    from sqlmesh import Context
    from sqlmesh.core.snapshot import Snapshot

__all__ = ["AuditResult", "ModelRun", "Pending", "Runner", "open_runner"]

MERGE_KIND = "merge_by_key"


@contextmanager
def open_runner(
    settings: Settings, properties: Mapping[str, str] | None = None, loaded: LoadedProject | None = None
) -> Iterator["Runner"]:
    """A runner on an instance, its project deployed; other processes wait until it is closed.

    Args:
        settings: The instance.
        properties: Summary properties of each snapshot that it makes, beside its own.
        loaded: The project, if it has been loaded before.

    Raises:
        TransformError: the project cannot be loaded or deployed, or another process kept the state for too long.
    """
    with open_context(settings, loaded) as context:
        runner = Runner(settings, context, properties or {})
        runner.deploy()
        yield runner


class Runner:
    """Runs the models of one instance; see :func:`open_runner`.

    Attributes:
        manifest: The models by name, upstream before downstream.
    """

    def __init__(self, settings: Settings, context: "Context", properties: Mapping[str, str]) -> None:
        # What was promoted since the context was opened must not pass for what it deploys.
        self._settings = settings = settings.for_models(Path(context.path))
        self._context = context
        face = catalog_face(settings)
        self._catalog = face.catalog
        self._contracts = load_contracts(settings.contracts_dir)
        self.manifest = stored(kept_models(settings) or build_models(context, settings))
        self._upstream = Upstream(self._catalog, self.manifest, self._contracts)
        self._stamps = Stamps(face, {**code_properties(settings), **properties})
        self._snapshots: dict[str, Snapshot] = {}
        self._evaluation = Evaluation(context, self._snapshots)

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
            marker.unlink(missing_ok=True)  # Half a deployment must not pass for the one before.
            try:
                with state_to_alter(self._settings):
                    self._context.plan("prod", auto_apply=True, no_prompts=True, skip_backfill=True, skip_tests=True)
            except SQLMeshError as error:
                raise TransformError(
                    "of this project",
                    f"cannot be deployed: {root_cause(error)}.",
                    remedy="Correct the model; `sqlmesh plan` tells more.",
                ) from error
            marker.write_text(fingerprint)
            keep_deployed(self._settings, code_properties(self._settings).get(COMMIT_PROPERTY, ""))
        scheduler = self._context.scheduler("prod")
        self._snapshots.clear()
        self._snapshots.update({table_name(snapshot.name): snapshot for snapshot in scheduler.snapshots.values()})
        # Dropped since, to be rebuilt: SQLMesh's state still knows them as deployed.
        if dropped := [name for name in self.manifest if not self._catalog.table_exists(name)]:
            self._ensure_landing_tables()
            self._evaluation.create(dropped)

    def run_live(self, model: str) -> ModelRun:
        """Follow what the model's upstream tables gained since its cursor.

        Raises:
            TransformError: there is no such model, or its query fails.
        """
        info, started = self._model(model), time.monotonic()
        return retry(lambda: self._follow(info, started), model, lambda error: isinstance(error, OvertakenError))

    def run_partitions(self, model: str, start: date, end: date, *, tenant: str | None = None) -> ModelRun:
        """Rebuild days or hours whole from upstream, or the periods that they lie in.

        Args:
            model: The model's name.
            start: First day or hour.
            end: Last day or hour, inclusive.
            tenant: Rebuild only this tenant's rows, in a model that tells tenants apart.

        Raises:
            TransformError: there is no such model, it has no partitions, or its query fails.
        """
        info, started = self._model(model), time.monotonic()
        if info.partition_column is None:
            raise TransformError(model, "has no partitions.", remedy="Run it whole.")
        start, end = info.period.whole(start, end)
        ranges = ((start, end),)
        seen = read_cursor(self._table(model))

        def cursor(table: Table) -> Cursor | None:
            # A live run may have moved it on meanwhile; what that one added to these days is replaced by older rows.
            return common(self._catalog, seen, read_cursor(table))

        with self._stamps.stamped(info, "partitions", cursor, ranges) as run:
            audits = self._evaluation.store(info, start, end, Slice(ranges, self._tenant(info, tenant)))
            self._stamps.carry_cursor(info, run)
        return self._outcome(info, "partitions", started, days=frozenset(each(start, end)), audits=audits)

    def run_full(self, model: str) -> ModelRun:
        """Rebuild the whole table from upstream.

        Raises:
            TransformError: there is no such model, or its query fails.
        """
        info, started = self._model(model), time.monotonic()
        pending = replace(self.pending(model), dates=None, keyed=False)
        with self._stamps.stamped(info, "full", lambda _: pending.cursor, None) as run:
            audits = self._evaluate_live(info, pending, None, None)
            self._stamps.carry_cursor(info, run)
        return self._outcome(info, "full", started, days=None, audits=audits)

    def rebuild(
        self,
        model: str,
        days: tuple[date | None, date | None] = (None, None),
        *,
        allow_missing: bool = False,
        advance: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> Rebuilt:
        """Build the table, or some of its days, anew beside the live one, reconcile the two, and swap.

        Args:
            model: The model's name.
            days: First and last day, inclusive; None means the first or the last there is.
            allow_missing: Whether rows that are not made from upstream any more may go.
            advance: Told how much of it is built.

        Raises:
            TransformError: there is no such model, or nothing was swapped: it says why.
        """
        info = self._model(model)
        pending, bounds = self.pending(model), self._bounds(info, stored=True)
        first, last = info.period.whole(*(given or bound for given, bound in zip(days, bounds, strict=True)))
        rebuild = Rebuild(self._catalog, self._evaluation, self._adapter, self._stamps)
        whole = days == (None, None) or info.partition_column is None
        return rebuild.run(info, pending, (first, last), whole=whole, allow_missing=allow_missing, advance=advance)

    def audit(self, model: str) -> tuple[AuditResult, ...]:
        """Run a model's audits on all of its rows, whichever run wrote them.

        Raises:
            TransformError: there is no such model, or an audit cannot be run.
        """
        info = self._model(model)
        days = self._counts(info, None)[1]
        return self._evaluation.audit(info, *((min(days), max(days)) if days else self._bounds(info)))

    def pending(self, model: str) -> Pending:
        """What a live run of a model would do now.

        Raises:
            TransformError: there is no such model.
        """
        info = self._model(model)
        return self._upstream.pending(info, self._seen(info))

    def render_full(self, model: str) -> str:
        """The SQL that recomputes a whole model from its upstream tables, for DuckDB with the lake attached.

        Raises:
            TransformError: there is no such model.
        """
        info = self._model(model)
        return str(self._evaluation.query(info, *self._bounds(info)).sql("duckdb"))

    def _follow(self, info: ModelInfo, started: float) -> ModelRun:
        seen = self._seen(info)
        pending = self._upstream.pending(info, seen)
        if not pending.behind:
            return self._outcome(info, "live", started, days=frozenset(), note="up to date")
        if not pending.cursor.upstream:
            return self._outcome(info, "live", started, days=frozenset(), note="its upstream tables are empty")
        audits: tuple[AuditResult, ...] = ()
        ranges = None if pending.dates is None else tuple(ranges_of(pending.dates))

        def cursor(table: Table) -> Cursor:
            # A part of the table stands for all news only on top of what the run began with.
            if (ranges is not None or pending.keyed) and read_cursor(table) != seen:
                raise OvertakenError(info.name)
            return pending.cursor

        with self._stamps.stamped(info, "live", cursor, ranges) as run:
            if ranges != ():
                audits = self._evaluate_live(info, pending, ranges, seen)
            self._stamps.carry_cursor(info, run)
        note = pending.note or ("" if audits else "its upstream tables moved, but none of its days changed")
        return self._outcome(info, "live", started, days=pending.dates, audits=audits, note=note)

    def _seen(self, info: ModelInfo) -> Cursor | None:
        """The cursor of a model's table, whose columns an earlier release may have named otherwise."""
        table = self._table(info.name)
        if info.kind == ROWS_KIND and not info.columns.keys() <= set(table.schema().column_names):
            from freshdata.transform.changes import rename_flag

            rename_flag(self._catalog, info.name)
        return read_cursor(table)

    def _tenant(self, info: ModelInfo, tenant: str | None) -> tuple[str, str] | None:
        column = self._upstream.tenant_column(info)
        return (column, tenant) if tenant is not None and column else None

    def _table(self, name: str) -> Table:
        return load_table(self._catalog, name)

    def _model(self, name: str) -> ModelInfo:
        if name not in self.manifest:
            raise TransformError(name, "does not exist.", remedy=f"Use one of {', '.join(self.manifest)}.")
        return self.manifest[name]

    def _evaluate_live(
        self,
        info: ModelInfo,
        pending: Pending,
        ranges: tuple[tuple[date, date], ...] | None,
        seen: Cursor | None,
    ) -> tuple[AuditResult, ...]:
        if ranges is None and not pending.keyed:
            return self._evaluation.store(info, *self._bounds(info), Slice())
        today = datetime.now(UTC).date()
        first, last = (ranges[0][0], ranges[-1][1]) if ranges else (today, today)
        # Only a model over one table can be computed from its new rows alone; with a join, the days are replaced.
        if ranges and (info.kind != MERGE_KIND or len(info.depends_on) > 1 or pending.whole_days):
            return self._evaluation.store(info, first, last, Slice(ranges))
        (stream,) = info.depends_on
        after = seen.upstream.get(stream) if seen else None
        relation = self._adapter.stage(self._table(stream), after, pending.cursor.upstream.get(stream))
        try:
            reads = {f"{CATALOG_NAME}.{stream}": relation}
            return self._evaluation.store(info, first, last, Slice(ranges, merge=True, reads=reads))
        finally:
            self._adapter.unstage(relation)

    def _bounds(self, info: ModelInfo, *, stored: bool = False) -> tuple[date, date]:
        """First and last day or hour of the rows upstream, and of the table's own; any when there are none."""
        from sqlglot import exp

        found: list[date] = []
        for name in (*info.depends_on, *((info.name,) if stored else ())):
            if column := self._upstream.time_column(name, info):
                day = exp.column(column, quoted=True)
                query = exp.select(exp.Min(this=day), exp.Max(this=day)).from_(f"{CATALOG_NAME}.{name}")
                found += [value for value in self._adapter.fetchone(query) or () if value is not None]
        spans = [info.period.whole(value, value) for value in found or [datetime.now(UTC).date()]]
        last = max(end for _, end in spans)
        return min(start for start, _ in spans), last + length(last) * (info.period.window - 1)

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
        table = self._table(info.name)
        snapshot_id = head.snapshot_id if (head := table.current_snapshot()) else None
        seconds = time.monotonic() - started
        return ModelRun(info.name, mode, partitions, rows, audits, note, snapshot_id, seconds, table.location())

    def _counts(self, info: ModelInfo, days: frozenset[date] | None) -> tuple[int, dict[date, int]]:
        """Rows in the table, and in each of some days; of all days that have rows when they are None."""
        from sqlglot import exp

        rows = exp.alias_(exp.Count(this=exp.Star()), "rows")
        query = exp.select(rows).from_(f"{CATALOG_NAME}.{info.name}")
        if info.partition_column is None:
            (total,) = self._adapter.fetchone(query)
            return int(total), {}
        day = exp.column(info.partition_column, quoted=True)
        counts = row_counts(self._table(info.name), info.partition_column)
        if counts is None:
            found = self._adapter.fetchall(query.select(day).group_by(day))
            counts = {info.period.start(key): int(count) for count, key in found}
        chosen = counts if days is None else {key: counts.get(key, 0) for key in info.period.starts(days)}
        return sum(counts.values()), dict(sorted(chosen.items()))

    @property
    def _adapter(self) -> Any:
        return self._context.engine_adapter

    def _ensure_landing_tables(self) -> None:
        # Models are compiled against the tables they read: those must exist, though nothing may have come in yet.
        for contract in self._contracts.values():
            if contract.kind == "stream":
                ensure_stream_tables(self._catalog, contract, self._contracts)
            else:
                ensure_table(self._catalog, contract.table, contract.arrow_schema)
