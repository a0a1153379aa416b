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

from freshdata.intervals import each, first_hour, length
from freshdata.transform.deletes import deletes_table, remember, remembered
from freshdata.transform.exchange import (
    SOURCE,
    TARGET,
    Columns,
    KeyedTable,
    column,
    literal,
    marked,
    newer,
    of_target,
    overwrite,
    take_newer,
    without,
)
from freshdata.transform.keyed import Merging
from freshdata.transform.slices import SLICE, Slice

if TYPE_CHECKING:
    from sqlmesh.core.model import Model

MOST_LISTED = 1000  # Days or hours in a query.
# What a query's days or hours are rendered as when it must see all rows of a key, wherever they lie.
EVER = {"start": "1900-01-01", "end": "2200-12-31"}


class KeyedKind(CustomKind):  # type: ignore[misc]
    """A model that is described by ``materialization_properties``."""

    def property_names(self, name: str) -> tuple[str, ...]:
        """The column names in a materialization property.

        Raises:
            ConfigError: the model lacks the property.
        """
        value = self.materialization_properties.get(name)
        if value is None:
            raise ConfigError(f"materialization_properties lack {name}.")
        value = value.unnest() if isinstance(value, exp.Paren) else value  # One column in parentheses is no tuple.
        columns = value.expressions if isinstance(value, exp.Tuple) else [value]
        return tuple(column.name if isinstance(column, exp.Expression) else str(column) for column in columns)

    @property
    def deleted(self) -> exp.Expression | None:
        """The condition that marks a row as deleted; None when there is none.

        Raises:
            ConfigError: it is no column or expression.
        """
        value = self.materialization_properties.get("deleted")
        if value is None:
            return None
        if not isinstance(value, exp.Expression):
            raise ConfigError("deleted must be a boolean column or an expression in parentheses.")
        marker: exp.Expression = value.copy()
        for mentioned in marker.find_all(exp.Column):
            mentioned.set("this", exp.to_identifier(mentioned.name, quoted=True))
        return marker

    @property
    def delete_mode(self) -> str:
        """Whether deleted rows are removed (``hard``) or kept (``soft``).

        Raises:
            ConfigError: it is neither.
        """
        value = self.materialization_properties.get("delete_mode", "hard")
        mode = str(value.name if isinstance(value, exp.Expression) else value)
        if mode not in ("hard", "soft"):
            raise ConfigError(f"delete_mode is {mode!r}. Use hard or soft.")
        return mode

    def keyed(self, table: str, columns: Columns) -> KeyedTable:
        """A table of the model's rows.

        Raises:
            ConfigError: the model lacks a property.
        """
        return KeyedTable(table, columns, self.property_names("unique_key"), self.property_names("version"))

    def stored(self, query: exp.Query, columns: Columns) -> exp.Query:  # noqa: ARG002 - others need them.
        """The rows that the table holds when it is made from the rows of a query."""
        return query


class PartitionedKind(KeyedKind):
    """A model in partitions by a date column, named by ``materialization_properties (date_column = ...)``.

    They are days; with ``cron '@monthly'`` or ``'@yearly'`` whole months or years, dated by their first day. With an
    ``hour_column`` instead, a TIMESTAMPTZ, and ``cron '@hourly'`` they are hours. Rows that look back over several days
    or hours say so by ``window_days`` or ``window_hours``. The time column makes SQLMesh's audits look only at the days
    or hours of the run, not at the whole table.
    """

    @property
    def hourly(self) -> bool:
        """Whether the partitions are hours."""
        return "hour_column" in self.materialization_properties

    @property
    def time_column(self) -> TimeColumn:
        """The column that the table is partitioned by."""
        (name,) = self.property_names("hour_column" if self.hourly else "date_column")
        return TimeColumn(column=exp.column(name, quoted=True), format="%Y-%m-%d")

    @property
    def window(self) -> int:
        """Days or hours of the upstream tables that a row looks back on, its own included.

        Raises:
            ConfigError: it is no positive number.
        """
        name = "window_hours" if self.hourly else "window_days"
        value = self.materialization_properties.get(name, 1)
        text = value.name if isinstance(value, exp.Expression) else str(value)
        if not text.isdigit() or not int(text):
            raise ConfigError(f"{name} is {text!r}. Use a whole number, 1 or more.")
        return int(text)

    @property
    def removes(self) -> exp.Expression | None:
        """The condition that marks the rows to remove; None when deleted ones are kept, or there are none.

        Raises:
            ConfigError: ``delete_mode`` is neither hard nor soft.
        """
        return self.deleted if self.delete_mode == "hard" else None

    @property
    def moves(self) -> bool:
        """Whether the row of a key may move from one day to another: the day is no part of the key."""
        keyed = "unique_key" in self.materialization_properties
        return keyed and self.time_column.column.name not in self.property_names("unique_key")

    def stored(self, query: exp.Query, columns: Columns) -> exp.Query:
        """The rows that the table holds when it is made from the rows of a query."""
        return without(query, tuple(columns), self.removes)


class OverwriteChangedPartitions(CustomMaterialization[PartitionedKind]):  # type: ignore[misc]
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
        part = render_kwargs.get(SLICE) or self.plain_slice(model, kwargs["start"], kwargs["end"])
        self.take(table_name, query_or_df, model, render_kwargs, part)

    def plain_slice(self, model: Model, start: Any, end: Any) -> Slice:
        """What a run by the plain ``sqlmesh`` command recomputes, which says nothing but its interval."""
        first, last = map(first_hour if model.kind.hourly else to_date, make_inclusive(start, end))
        return Slice(ranges=((first, last),))

    def append(
        self, table_name: str, query_or_df: exp.Query, model: Model, render_kwargs: dict[str, Any], **kwargs: Any
    ) -> None:
        """Refuse: only data frames come in several parts."""
        raise NotImplementedError("Models of this kind are SQL.")

    def take(self, table: str, query: exp.Query, model: Model, render_kwargs: dict[str, Any], part: Slice) -> None:
        """Replace the slice's days by the query's rows."""
        columns, source_columns = self._get_target_and_source_columns(model, table, render_kwargs=render_kwargs)
        where = _within(model.kind.time_column.column, part)
        overwrite(self.adapter, table, query, columns, where=where, source_columns=source_columns)


class MergeByKey(OverwriteChangedPartitions, CustomMaterialization[PartitionedKind]):  # type: ignore[misc]
    """Merges new rows by key, the newest version of a row winning; or replaces days, as the slice says.

    Properties: ``unique_key``, and ``version``: columns that order the versions of a row. A row that is there already
    in that version is left alone, so merging the same rows again changes nothing. A key without the day may move to
    another day: its older row goes from wherever it is.

    ``deleted`` is a condition on the model's columns that marks deleted rows. With ``delete_mode`` ``hard``, the
    default, they are removed, and their keys and versions are remembered in a table beside, ``<table>__deletes``: an
    older version that shows up after the delete finds it there. That table is written first, and all that it says stays
    true, so a crash between the two commits is repaired by the next run. With ``soft`` they are rows like others.
    """

    NAME = "merge_by_key"

    def take(self, table: str, query: exp.Query, model: Model, render_kwargs: dict[str, Any], part: Slice) -> None:
        """Merge the query's rows, or replace the slice's days by them."""
        kind, query = model.kind, redirected(query, part.reads)
        whole = part.ranges is None
        if kind.removes is None and (whole or part.merge or not kind.moves):
            if part.merge:
                self._merge(table, query, model, render_kwargs, part)
            else:
                super().take(table, query, model, render_kwargs, part)
            return
        day = kind.time_column.column
        columns, _ = self._get_target_and_source_columns(model, table, render_kwargs=render_kwargs)
        stored = kind.keyed(table, columns)
        replaced = None if whole or part.merge else _within(day, part)
        rows: exp.Query = marked(query, tuple(columns), kind.removes)
        if replaced is not None:
            rows = exp.select("*").from_(rows.subquery("r")).where(replaced.copy())
        # A key with its day in it has no row in another day; of one without, there is no telling.
        within = None if kind.moves or part.ranges is None else _among(day, part.ranges)
        if kind.removes is not None:
            deletes = remember(self.adapter, stored, day, rows, within=within, whole=whole)
            rows = remembered(rows, deletes, within)
        if part.merge or (kind.moves and not whole):
            take_newer(self.adapter, stored, rows, within=within, replaced=replaced)
        else:
            super().take(table, kind.stored(query, columns), model, render_kwargs, part)

    def delete(self, name: str, **kwargs: Any) -> None:
        """Drop a table that SQLMesh needs no more, and the deletes beside it."""
        super().delete(name, **kwargs)
        self.adapter.drop_table(deletes_table(name))

    def _merge(self, table: str, query: exp.Query, model: Model, render_kwargs: dict[str, Any], part: Slice) -> None:
        kind = model.kind
        columns, source_columns = self._get_target_and_source_columns(model, table, render_kwargs=render_kwargs)
        names = kind.property_names
        merging = Merging(kind.time_column.column.name, names("unique_key"), names("version"))
        quick = getattr(self.adapter, "merge_rows", None)  # Engines that read many files at once have no need of it.
        if quick is not None and (written := quick(table, query, merging)) is not None:
            part.written.append(written)
            return
        update = exp.Update(expressions=[column(name, TARGET).eq(column(name, SOURCE)) for name in columns])
        later = newer(kind.property_names("version"), SOURCE, TARGET)
        self.adapter.merge(
            table,
            query,
            target_columns_to_types=columns,
            unique_key=[column(name) for name in kind.property_names("unique_key")],
            when_matched=exp.Whens(expressions=[exp.When(matched=True, source=False, condition=later, then=update)]),
            merge_filter=of_target(_among(kind.time_column.column, part.ranges))
            if part.ranges and not kind.moves
            else None,
            source_columns=source_columns,
        )


def redirected(query: exp.Query, reads: dict[str, str]) -> exp.Query:
    """A query that reads other relations in the place of some tables, by their fully qualified names."""

    def redirect(node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.Table) and (instead := reads.get(".".join(part.name for part in node.parts))):
            return exp.to_table(instead).as_(node.alias_or_name, quoted=True)
        return node

    return query.transform(redirect) if reads else query


def _within(day: exp.Column, part: Slice) -> exp.Condition:
    """What a slice replaces, as a condition on the table's rows."""
    if part.ranges is None:
        return exp.true()
    if part.tenant is None:
        return _days(day, part.ranges)
    name, tenant = part.tenant
    return exp.and_(_days(day, part.ranges), column(name).eq(exp.Literal.string(tenant)))


def _days(day: exp.Column, ranges: tuple[tuple[date, date], ...]) -> exp.Condition:
    return exp.or_(*(day.between(*map(literal, pair)) for pair in ranges))


def _among(day: exp.Column, ranges: tuple[tuple[date, date], ...]) -> exp.Condition:
    """The days or hours of some ranges as a list: DuckDB opens just their files by it, and those of all by ranges."""
    if sum((last - first) // length(first) + 1 for first, last in ranges) > MOST_LISTED:
        return _days(day, ranges)
    return day.isin(*(literal(found) for pair in ranges for found in each(*pair)))
