"""How Silver and Gold tables take up a model's rows: the same on every engine, for they only call adapter methods.

Why not SQLMesh's INCREMENTAL_BY_UNIQUE_KEY and INCREMENTAL_BY_PARTITION: one day of those cannot be restated alone,
and neither can follow snapshots instead of time intervals. A run by the runner says which slice to recompute; a run
by the plain ``sqlmesh`` command says nothing and replaces the days of its interval.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from sqlglot import exp
from sqlmesh import CustomMaterialization  # noqa: TID253 - imported lazily itself, by the engine.
from sqlmesh.core.model import CustomKind, TimeColumn  # noqa: TID253 - as above.
from sqlmesh.utils.date import make_inclusive, to_date  # noqa: TID253 - as above.
from sqlmesh.utils.errors import ConfigError  # noqa: TID253 - as above.

from freshdata.transform.slices import SLICE, Slice

if TYPE_CHECKING:
    from sqlmesh.core.model import Model

TARGET, SOURCE = "__MERGE_TARGET__", "__MERGE_SOURCE__"


class DailyKind(CustomKind):  # type: ignore[misc]
    """A model in daily partitions, named by ``materialization_properties (date_column = ...)``.

    The time column makes SQLMesh's audits look only at the days of the run, not at the whole table.
    """

    @property
    def time_column(self) -> TimeColumn:
        """The date column that the table is partitioned by."""
        return TimeColumn(column=exp.column(self.property_names("date_column")[0], quoted=True), format="%Y-%m-%d")

    def property_names(self, name: str) -> tuple[str, ...]:
        """The column names in a materialization property.

        Raises:
            ConfigError: the model lacks the property.
        """
        value = self.materialization_properties.get(name)
        if value is None:
            raise ConfigError(f"materialization_properties lack {name}.")
        columns = value.expressions if isinstance(value, exp.Tuple) else [value]
        return tuple(column.name if isinstance(column, exp.Expression) else str(column) for column in columns)


class OverwriteChangedPartitions(CustomMaterialization[DailyKind]):  # type: ignore[misc]
    """Replaces exactly the days of the slice; a day the query has no rows for is emptied."""

    NAME = "overwrite_changed_partitions"

    def insert(
        self,
        table_name: str,
        query_or_df: exp.Query,
        model: Model,
        is_first_insert: bool,  # noqa: ARG002, FBT001 - SQLMesh's signature.
        render_kwargs: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        """Carry out the slice that SQLMesh hands through ``render_kwargs``; see the base class."""
        part = render_kwargs.get(SLICE) or Slice(ranges=(_interval(kwargs["start"], kwargs["end"]),))
        self.take(table_name, _redirected(query_or_df, part.reads), model, render_kwargs, part)

    def append(
        self, table_name: str, query_or_df: exp.Query, model: Model, render_kwargs: dict[str, Any], **kwargs: Any
    ) -> None:
        """Refuse: only data frames come in several parts."""
        raise NotImplementedError("Models of this kind are SQL.")

    def take(self, table: str, query: exp.Query, model: Model, render_kwargs: dict[str, Any], part: Slice) -> None:
        """Replace the slice's days by the query's rows."""
        columns, source_columns = self._get_target_and_source_columns(model, table, render_kwargs=render_kwargs)
        queries, columns = self.adapter._get_source_queries_and_columns_to_types(  # noqa: SLF001 - no public way.
            query, columns, target_table=table, source_columns=source_columns
        )
        self.adapter._insert_overwrite_by_condition(  # noqa: SLF001 - the public methods take only one range.
            table, queries, columns, _within(model.kind.time_column.column, part)
        )


class MergeByKey(OverwriteChangedPartitions, CustomMaterialization[DailyKind]):  # type: ignore[misc]
    """Merges new rows by key, the newest version of a row winning; or replaces days, as the slice says.

    Properties: ``unique_key``, and ``version``: columns that order the versions of a row. A row that is there already
    in that version is left alone, so merging the same rows again changes nothing.
    """

    NAME = "merge_by_key"

    def take(self, table: str, query: exp.Query, model: Model, render_kwargs: dict[str, Any], part: Slice) -> None:
        """Merge the query's rows, or replace the slice's days by them."""
        if not part.merge:
            super().take(table, query, model, render_kwargs, part)
            return
        columns, source_columns = self._get_target_and_source_columns(model, table, render_kwargs=render_kwargs)
        update = exp.Update(expressions=[_column(name, TARGET).eq(_column(name, SOURCE)) for name in columns])
        newer = _newer(model.kind.property_names("version"))
        self.adapter.merge(
            table,
            query,
            target_columns_to_types=columns,
            unique_key=[exp.column(name, quoted=True) for name in model.kind.property_names("unique_key")],
            when_matched=exp.Whens(
                expressions=[exp.When(matched=True, source=False, condition=newer, then=update)],
            ),
            source_columns=source_columns,
        )


def _column(name: str, table: str) -> exp.Column:
    # The alias stays unquoted: sqlglot strips it from SET only if it is spelled like the MERGE's own.
    return exp.column(exp.to_identifier(name, quoted=True), table=table)


def _newer(version: tuple[str, ...]) -> exp.Condition:
    first, *rest = version
    newer: exp.Condition = exp.GT(this=_column(first, SOURCE), expression=_column(first, TARGET))
    if rest:
        newer = exp.or_(newer, exp.and_(_column(first, SOURCE).eq(_column(first, TARGET)), _newer(tuple(rest))))
    return newer


def _within(column: exp.Column, part: Slice) -> exp.Condition:
    """What a slice replaces, as a condition on the table's rows."""
    if part.ranges is None:
        return exp.true()
    days = exp.or_(
        *(
            column.between(*(exp.cast(exp.Literal.string(day.isoformat()), "date") for day in pair))
            for pair in part.ranges
        )
    )
    if part.tenant is None:
        return days
    name, tenant = part.tenant
    return exp.and_(days, exp.column(name, quoted=True).eq(exp.Literal.string(tenant)))


def _redirected(query: exp.Query, reads: dict[str, str]) -> exp.Query:
    def redirect(node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.Table) and (instead := reads.get(".".join(part.name for part in node.parts))):
            return exp.to_table(instead).as_(node.alias_or_name, quoted=True)
        return node

    return query.transform(redirect) if reads else query


def _interval(start: Any, end: Any) -> tuple[date, date]:
    first, last = make_inclusive(start, end)
    return to_date(first), to_date(last)
