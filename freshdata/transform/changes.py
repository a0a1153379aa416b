"""Tables that hold what another database's table holds now, made from its changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pyiceberg.catalog import Catalog
from sqlglot import exp
from sqlmesh import CustomMaterialization  # noqa: TID253 - imported lazily itself, by the project.
from sqlmesh.utils.errors import ConfigError  # noqa: TID253 - as above.

from freshdata.contracts.capture import DELETE, OPERATION, TRUNCATE, UNAVAILABLE
from freshdata.lake.catalog import load_table
from freshdata.transform.change_versions import VERSION, gone, left_out, newest, unknown, with_left_out
from freshdata.transform.deletes import deletes_table, remember, remembered
from freshdata.transform.exchange import (
    DELETED,
    ROWS,
    STORED,
    Columns,
    KeyedTable,
    column,
    overwrite,
    same,
    take_newer,
)
from freshdata.transform.materializations import KeyedKind, OverwriteChangedPartitions, redirected
from freshdata.transform.retry import retry
from freshdata.transform.slices import Slice

if TYPE_CHECKING:
    from sqlmesh.core.model import Model

# Not `_deleted`: that is a column of Iceberg's own, and Spark merges into no table that has another of this name.
FLAG = "_is_deleted"
FORMER_FLAG = "_deleted"


class CurrentRowsKind(KeyedKind):
    """A model that is described by ``materialization_properties``; see :class:`CurrentRows`."""

    @property
    def soft(self) -> bool:
        """Whether deleted rows are kept and flagged.

        Raises:
            ConfigError: ``delete_mode`` is neither hard nor soft.
        """
        return self.delete_mode == "soft"

    @property
    def managed_columns(self) -> dict[str, exp.DataType]:
        """The column that the table has beside the query's when it keeps deleted rows."""
        return {FLAG: exp.DataType.build("BOOLEAN")} if self.soft else {}

    def keyed(self, table: str, columns: Columns) -> KeyedTable:
        """A table of the model's rows.

        Raises:
            ConfigError: the query lacks a column that a change is told by.
        """
        if lacking := [name for name in (OPERATION, VERSION) if name not in columns]:
            raise ConfigError(f"The query must select {', '.join(lacking)}.")
        return KeyedTable(table, columns, self.property_names("unique_key"), (VERSION,))

    def told(self, columns: Columns) -> tuple[str, ...]:
        """The columns of the query."""
        return tuple(name for name in columns if name not in self.managed_columns)

    def own(self, columns: Columns) -> tuple[str, ...]:
        """The columns whose values a change may leave out."""
        key = self.property_names("unique_key")
        return tuple(name for name in self.told(columns) if name not in key and not name.startswith("_"))

    def newest(self, query: exp.Query, columns: Columns, untold: Sequence[str]) -> exp.Select:
        """The last version of each key, whether it is to be removed, and which of its values no change tells."""
        rows = newest(query, self.property_names("unique_key"), self.told(columns), untold)
        found = {FLAG: gone()}
        removed = exp.false() if self.soft else gone()
        chosen = [exp.alias_(found.get(name, column(name)), name, quoted=True) for name in columns]
        beside = [exp.alias_(removed, DELETED, quoted=True), *(column(unknown(name)) for name in untold)]
        return exp.select(*chosen, *beside).from_(rows.subquery("r"))

    def stored(self, query: exp.Query, columns: Columns) -> exp.Query:
        """The rows that the table holds when it is made from the rows of a query."""
        return kept(self.newest(query, columns, self.own(columns)), columns)


def rename_flag(catalog: Catalog, name: str) -> None:
    """Give the flag of a table that an earlier release made the name that it has now; its files stay."""

    def commit() -> None:
        table = load_table(catalog, name)
        names = table.schema().column_names
        if FORMER_FLAG in names and FLAG not in names:
            with table.update_schema() as change:
                change.rename_column(FORMER_FLAG, FLAG)

    retry(commit, name)


class CurrentRows(OverwriteChangedPartitions, CustomMaterialization[CurrentRowsKind]):  # type: ignore[misc]
    """Holds the rows that a database's table has now, from a query over the changes of the table.

    Properties: ``unique_key``, the primary key; ``delete_mode``: ``hard``, the default, removes deleted rows, ``soft``
    keeps them with the values that they had, and flags them in another column, ``_is_deleted``. The query selects from
    one change stream without leaving out changes, names the table's columns as the contract does, and has ``_op`` and
    ``_offset`` among its columns.
    """

    NAME = "current_rows"

    def plain_slice(self, model: Model, start: Any, end: Any) -> Slice:  # noqa: ARG002 - the table has no days.
        """What a run by the plain ``sqlmesh`` command recomputes: everything."""
        return Slice()

    def take(self, table: str, query: exp.Query, model: Model, render_kwargs: dict[str, Any], part: Slice) -> None:
        """Take up the new changes, or make the table anew from all."""
        kind = model.kind
        columns, _ = self._get_target_and_source_columns(model, table, render_kwargs=render_kwargs)
        stored = kind.keyed(table, columns)
        changes = redirected(query, part.reads)
        truncated, untold = self._survey(kind, changes, columns)
        if part.merge and truncated is not None:
            changes = _beside_stored(changes, kind.told(columns), table, truncated)
        rows: exp.Query = kind.newest(changes, columns, untold)
        if part.merge:
            rows = _filled(rows, stored, untold)
        if not kind.soft:
            deletes = remember(self.adapter, stored, None, rows, whole=not part.merge)
            rows = remembered(rows, deletes, None)
        if part.merge:
            take_newer(self.adapter, stored, rows)
        else:
            overwrite(self.adapter, table, kept(rows, columns), columns, where=exp.true())

    def _survey(self, kind: CurrentRowsKind, changes: exp.Query, columns: Columns) -> tuple[int | None, list[str]]:
        """Where in the topic the last truncation stands, and the columns that some of the changes leave out."""
        own = kind.own(columns)
        is_truncation = column(OPERATION).eq(exp.Literal.string(TRUNCATE))
        last = exp.Max(this=exp.Case().when(is_truncation, column(VERSION)))
        # A row that is going to be removed needs no values.
        counts = exp.true() if kind.soft else column(OPERATION).neq(exp.Literal.string(DELETE))
        flags = [
            exp.Max(this=exp.Case().when(exp.and_(counts.copy(), left_out(name)), exp.Literal.number(1)))
            for name in own
        ]
        told = with_left_out(changes, kind.told(columns))
        found = self.adapter.fetchone(exp.select(last, *flags).from_(told.subquery("q")))
        truncated, *found_flags = found or (None,)
        untold = [name for name, flag in zip(own, found_flags, strict=False) if flag is not None]
        return truncated, list(own) if kind.soft and truncated is not None else untold

    def delete(self, name: str, **kwargs: Any) -> None:
        """Drop a table that SQLMesh needs no more, and the deletes beside it."""
        super().delete(name, **kwargs)
        self.adapter.drop_table(deletes_table(name))


def kept(rows: exp.Query, columns: Columns) -> exp.Select:
    """The rows (see :meth:`CurrentRowsKind.newest`) that are not to be removed."""
    return exp.select(*map(column, columns)).from_(rows.subquery(ROWS)).where(exp.not_(column(DELETED)))


def _filled(rows: exp.Query, stored: KeyedTable, untold: Iterable[str]) -> exp.Query:
    """Rows with the values that are still unknown taken from the stored rows of their keys."""
    names = list(untold)
    if not names:
        return rows
    found = {
        name: exp.Case()
        .when(
            exp.and_(column(unknown(name), ROWS), exp.not_(column(VERSION, STORED).is_(exp.null()))),
            column(name, STORED),
        )
        .else_(column(name, ROWS))
        for name in names
    }
    chosen = [exp.alias_(found.get(name, column(name, ROWS)), name, quoted=True) for name in stored.columns]
    return (
        exp.select(*chosen, column(DELETED, ROWS))
        .from_(rows.subquery(ROWS))
        .join(exp.to_table(stored.name).as_(STORED), on=same(stored.key, ROWS, STORED), join_type="left")
    )


def _beside_stored(changes: exp.Query, names: Sequence[str], table: str, truncated: int) -> exp.Query:
    """Changes, and the stored rows that a truncation among them concerns as if they were changes too."""
    rows = (
        exp.select(*map(column, names), exp.alias_(exp.null(), UNAVAILABLE, quoted=True))
        .from_(exp.to_table(table))
        .where(exp.LT(this=column(VERSION), expression=exp.Literal.number(truncated)))
    )
    return exp.union(with_left_out(changes, names), rows, distinct=False)
