"""Have SQLMesh compute, store and audit a model's rows, and say in one line what went wrong."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from freshdata.errors import TransformError
from freshdata.intervals import HOUR
from freshdata.lake.catalog import CATALOG_NAME
from freshdata.transform.manifest import ModelInfo
from freshdata.transform.results import AuditResult
from freshdata.transform.slices import SLICE, Slice

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlglot import exp
    from sqlmesh import Context
    from sqlmesh.core.audit import Audit
    from sqlmesh.core.model import Model
    from sqlmesh.core.snapshot import Snapshot


# The temporary table that holds the rows a merge wrote while they are audited.
WRITTEN = "written"


class Evaluation:
    """Evaluates the deployed models of a SQLMesh context.

    Args:
        context: The context.
        snapshots: SQLMesh's snapshot of each model, by the model's name.
    """

    def __init__(self, context: "Context", snapshots: Mapping[str, "Snapshot"]) -> None:
        self._context = context
        self._snapshots = snapshots

    def create(self, models: Iterable[str]) -> None:
        """Create the tables of some models, empty."""
        from sqlmesh.core.snapshot import DeployabilityIndex

        self._context.snapshot_evaluator.create(
            [self._snapshots[name] for name in models],
            {snapshot.snapshot_id: snapshot for snapshot in self._snapshots.values()},
            DeployabilityIndex.all_deployable(),
        )

    def store(self, info: ModelInfo, first: date, last: date, part: Slice) -> tuple[AuditResult, ...]:
        """Compute and store a slice, run the audits on its days, and book the days in SQLMesh's state.

        Args:
            info: The model.
            first: First day that the query is rendered for.
            last: Last day, inclusive.
            part: What is replaced or merged.

        Raises:
            TransformError: the query or an audit fails.
        """
        snapshot, span = self._snapshots[info.name], self._span(first, last)
        with self._explained(info):
            self._context.snapshot_evaluator.evaluate(
                snapshot,
                allow_destructive_snapshots=set(),
                allow_additive_snapshots=set(),
                batch_index=0,
                target_table_exists=True,
                **span,
                **{SLICE: part},
            )
        audits = (
            self._audit_written(info, first, last, part.written[0]) if part.written else self.audit(info, first, last)
        )
        if all(audit.passed or not audit.blocking for audit in audits):
            for start, end in part.ranges or ((first, last),):
                self._context.state_sync.add_interval(snapshot, *_limits(start, end))
        return audits

    def _audit_written(self, info: ModelInfo, first: date, last: date, written: "pa.Table") -> tuple[AuditResult, ...]:
        """Audit the rows that a merge wrote, by those audits that judge each row, or each key, by itself; else days."""
        adapter, snapshot = self._context.engine_adapter, self._snapshots[info.name]
        key = set(snapshot.model.kind.property_names("unique_key"))
        relation, span = adapter.stage_rows(WRITTEN, written), self._span(first, last)
        rows = span | {"this_model": relation}
        try:
            return self._audits(info, lambda audit, arguments: rows if _judges_rows(audit, arguments, key) else span)
        finally:
            adapter.unstage(relation)

    def audit(self, info: ModelInfo, first: date, last: date, *, table: str | None = None) -> tuple[AuditResult, ...]:
        """Run a model's audits on the rows of some days.

        Args:
            info: The model.
            first: First day.
            last: Last day, inclusive.
            table: The table to look at, fully qualified; None means the model's own.

        Raises:
            TransformError: an audit cannot be run.
        """
        span = self._span(first, last) | ({"this_model": table} if table else {})
        return self._audits(info, lambda *_: span)

    def _audits(
        self, info: ModelInfo, span: "Callable[[Audit, dict[str, Any]], dict[str, Any]]"
    ) -> tuple[AuditResult, ...]:
        """Count what each of a model's audits finds, as SQLMesh does, which asks for the table's columns each time."""
        from sqlglot import exp
        from sqlmesh.core.macros import RuntimeStage

        model, adapter = self._snapshots[info.name].model, self._context.engine_adapter
        engine = {"engine_adapter": adapter} if model.python_env else {}  # Only macros in Python can ask it.
        with self._explained(info):
            # One query each: of several looks at a table at once, DuckDB adds up the estimates, and fails on a table
            # with more deletes than rows, whose estimate is negative.
            results = []
            for audit, arguments in model.audits_with_args:
                given = arguments.pop("blocking", None)
                asked = span(audit, arguments) | engine | arguments
                rows = model.render_audit_query(audit, **asked, runtime_stage=RuntimeStage.AUDITING).subquery("audit")
                query = exp.select("COUNT(*)").from_(rows)
                count = 0 if audit.skip else adapter.fetchone(query, quote_identifiers=True)[0]
                blocking = audit.blocking if given is None else given == exp.true()
                results.append(AuditResult(audit.name, count, blocking, not count))
        return tuple(results)

    def query(self, info: ModelInfo, first: date, last: date) -> "exp.Query":
        """The rows that a model's table holds of some days, made from its upstream tables.

        Raises:
            TransformError: it cannot be rendered.
        """
        from sqlglot import exp

        from freshdata.transform.exchange import literal

        model = self._snapshots[info.name].model
        columns = model.columns_to_types_or_raise
        if not getattr(model.kind, "moves", False):
            return _stored(model, self._rendered(info, self._span(first, last)))
        # The newest version of a key may lie in another day than an older one: only all of them together tell.
        rows = _stored(model, self._rendered(info, self._ever()))
        day = model.time_column.column
        names = [exp.column(name, quoted=True) for name in columns]
        return exp.select(*names).from_(rows.subquery("r")).where(day.between(literal(first), literal(last)))

    def remember_deletes(self, info: ModelInfo) -> None:
        """Have a model's table of deletes, if it has one, hold what was deleted by now, and nothing else."""
        from freshdata.transform.deletes import remember
        from freshdata.transform.exchange import marked

        model = self._snapshots[info.name].model
        if (removes := getattr(model.kind, "removes", None)) is None:
            return
        columns = model.columns_to_types_or_raise
        rows = marked(self._rendered(info, self._ever()), tuple(columns), removes)
        table = model.kind.keyed(f"{CATALOG_NAME}.{info.name}", columns)
        with self._explained(info):
            remember(self._context.engine_adapter, table, model.time_column.column, rows, whole=True)

    def _rendered(self, info: ModelInfo, span: dict[str, Any]) -> "exp.Query":
        query: exp.Query = self._snapshots[info.name].model.render_query_or_raise(
            **span, engine_adapter=self._context.engine_adapter
        )
        return query

    def _ever(self) -> dict[str, Any]:
        from freshdata.transform.materializations import EVER

        return self._span(date.min, date.max) | EVER

    def _span(self, first: date, last: date) -> dict[str, Any]:
        from sqlmesh.core.snapshot import DeployabilityIndex

        start, end = _limits(first, last)
        return {
            "start": start,
            "end": end,
            "execution_time": datetime.now(UTC),
            "snapshots": {snapshot.name: snapshot for snapshot in self._snapshots.values()},
            "deployability_index": DeployabilityIndex.all_deployable(),
        }

    @contextmanager
    def _explained(self, info: ModelInfo) -> Iterator[None]:
        from sqlmesh.utils.errors import SQLMeshError

        try:
            yield
        except (SQLMeshError, *self._context.engine_adapter.ERRORS) as error:
            raise TransformError(
                info.name,
                f"failed: {root_cause(error)}.",
                remedy=f"Correct {info.path}, or the data it reads, and run it again.",
            ) from error


def _limits(first: date, last: date) -> tuple[date, date]:
    """Start and end as SQLMesh takes them: a day at the end is inclusive, a moment is not."""
    return first, last + HOUR if isinstance(last, datetime) else last


def _stored(model: "Model", query: "exp.Query") -> "exp.Query":
    stored = getattr(model.kind, "stored", None)
    return stored(query, model.columns_to_types_or_raise) if stored else query


def _judges_rows(audit: Any, arguments: dict[str, Any], key: set[str]) -> bool:
    """Whether an audit finds the same in some rows alone as it finds in them among all others.

    A merge keeps each key once, so rows that differ by a part of the key are compared with those of the batch only.
    """
    from sqlglot import exp

    if audit.name == "unique_combination_of_columns":
        return key <= {column.name for column in arguments["columns"].find_all(exp.Column)}
    seen = audit.query.find(exp.AggFunc, exp.Window, exp.Group, exp.Join, exp.Limit)
    return seen is None and sum(1 for _ in audit.query.find_all(exp.From)) == 1


def root_cause(error: BaseException) -> str:
    """What went wrong at the bottom, in one line: SQLMesh wraps an engine's message, and hides it as mere context."""
    from sqlmesh.utils.errors import SQLMeshError

    while isinstance(error, SQLMeshError) and (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return " ".join(str(error).split()).rstrip(".")
