"""Take up versions of rows by key: in one commit, older rows go and newer ones come, whichever day they lie in.

One MERGE does both, whose source holds the keys to remove, which match, and the rows to insert, which never do. So it
needs no more than a matched DELETE and an unconditional INSERT: DuckDB's extension allows a single matched action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlglot import exp

TARGET, SOURCE = "__MERGE_TARGET__", "__MERGE_SOURCE__"
ROWS, NEWER, STORED = "__rows", "__newer", "__stored"
# Whether a row is a deleted one; whether its key is stored; whether it goes, or in a MERGE's source the key that goes.
DELETED, FOUND, GONE = "__deleted", "__found", "__gone"

Columns = dict[str, exp.DataType]


@dataclass(frozen=True)
class KeyedTable:
    """A table whose rows are versions of keys.

    Attributes:
        name: Its fully qualified name.
        columns: Column to type.
        key: Columns that identify what a row is about.
        version: Columns that order the versions of a key.
    """

    name: str
    columns: Columns
    key: tuple[str, ...]
    version: tuple[str, ...]

    def select(self, *more: exp.Expression, within: exp.Condition | None = None) -> exp.Select:
        """The keys and versions of its rows, of those that a condition names if there is one."""
        query = exp.select(*map(column, dict.fromkeys([*self.key, *self.version])), *more).from_(
            exp.to_table(self.name)
        )
        return query if within is None else query.where(within.copy())


def column(name: str, table: str | None = None) -> exp.Column:
    """A quoted column of an unquoted alias: sqlglot strips a MERGE's own aliases only if they are spelled like it."""
    return exp.column(exp.to_identifier(name, quoted=True), table=table)


def literal(interval: date) -> exp.Cast:
    """A day or an hour in SQL, in a form that every engine reads."""
    kind = "timestamptz" if isinstance(interval, datetime) else "date"
    text = interval.isoformat(" ") if isinstance(interval, datetime) else interval.isoformat()
    return exp.cast(exp.Literal.string(text), kind)


def same(names: Sequence[str], left: str, right: str) -> exp.Condition:
    """Whether two rows agree in some columns."""
    return exp.and_(*(column(name, left).eq(column(name, right)) for name in names))


def newer(version: Sequence[str], left: str, right: str) -> exp.Condition:
    """Whether a row is of a later version than another, by the version's columns in order."""
    first, *rest = version
    later: exp.Condition = exp.GT(this=column(first, left), expression=column(first, right))
    if rest:
        equal = column(first, left).eq(column(first, right))
        later = exp.or_(later, exp.and_(equal, newer(rest, left, right)))
    return later


def marked(query: exp.Query, names: Sequence[str], deleted: exp.Expression | None) -> exp.Select:
    """A query's columns, and whether each row is a deleted one."""
    flag = exp.func("COALESCE", deleted.copy(), exp.false()) if deleted else exp.false()
    return exp.select(*map(column, names), exp.alias_(flag, DELETED, quoted=True)).from_(query.subquery("q"))


def without(query: exp.Query, names: Sequence[str], deleted: exp.Expression | None) -> exp.Query:
    """A query's rows that are not deleted ones."""
    if deleted is None:
        return query
    rows = marked(query, names, deleted).subquery(ROWS)
    return exp.select(*map(column, names)).from_(rows).where(exp.not_(column(DELETED)))


def overwrite(
    adapter: Any,
    table: str,
    query: exp.Query,
    columns: Columns,
    *,
    where: exp.Condition,
    source_columns: list[str] | None = None,
) -> None:
    """Replace the rows that a condition names by a query's, in one commit."""
    queries, columns = adapter._get_source_queries_and_columns_to_types(  # noqa: SLF001 - no public way.
        query, columns, target_table=table, source_columns=source_columns
    )
    # The public methods take only one range of days.
    adapter._insert_overwrite_by_condition(table, queries, columns, where)  # noqa: SLF001 - as above.


def take_newer(
    adapter: Any,
    table: KeyedTable,
    rows: exp.Query,
    *,
    within: exp.Condition | None = None,
    replaced: exp.Condition | None = None,
) -> None:
    """Put rows in the place of older ones of their keys; where the table knows a newer version, they are left out.

    Args:
        adapter: SQLMesh's engine adapter.
        table: The table; it has each key once at most.
        rows: At most one row for each key, and whether it is a deleted one (see :func:`marked`): such a row removes
            the older one and is not stored.
        within: A condition on the table's rows outside of which none has one of the keys; None when there is no such.
        replaced: A condition on the table's rows that go, whatever comes; None when none do but for the others' sake.
    """
    goes = replaced.copy() if replaced is not None else exp.false()
    stored = table.select(
        exp.alias_(exp.true(), FOUND, quoted=True), exp.alias_(goes, GONE, quoted=True), within=within
    )
    comes = exp.or_(column(FOUND, STORED).is_(exp.null()), column(GONE, STORED), newer(table.version, ROWS, STORED))
    winners = (
        exp.select(*(column(name, ROWS) for name in (*table.columns, DELETED)), column(FOUND, STORED))
        .from_(rows.subquery(ROWS))
        .join(stored.subquery(STORED), on=same(table.key, ROWS, STORED), join_type="left")
        .where(comes)
    )
    keys = exp.select(*map(column, table.key))
    old: exp.Query = keys.from_(NEWER).where(column(FOUND))
    if replaced is not None:
        old = exp.union(keys.from_(exp.to_table(table.name)).where(replaced.copy()), old, distinct=True)
    new = exp.select(*map(column, table.columns)).from_(NEWER).where(exp.not_(column(DELETED)))
    exchange(adapter, table, old, new, ctes={NEWER: winners}, within=within)


def exchange(
    adapter: Any,
    table: KeyedTable,
    old: exp.Query,
    new: exp.Query,
    *,
    ctes: dict[str, exp.Query] | None = None,
    within: exp.Condition | None = None,
) -> None:
    """Remove all rows of some keys and insert others, in one commit; in none when there is nothing to do.

    Args:
        adapter: SQLMesh's engine adapter.
        table: The table.
        old: The keys to remove, each once; all of them are in the table.
        new: The rows to insert.
        ctes: What the two queries share.
        within: A condition on the table's rows outside of which none has one of the keys; None when there is no such.
    """
    keys = {name: column(name) for name in table.key}
    first, kind = table.key[0], table.columns[table.key[0]]
    gone = [keys.get(name, exp.cast(exp.null(), kind)).as_(name, quoted=True) for name, kind in table.columns.items()]
    source = exp.union(
        exp.select(*gone, keys[first].as_(GONE, quoted=True)).from_(old.subquery("o")),
        exp.select(*map(column, table.columns), exp.cast(exp.null(), kind).as_(GONE, quoted=True)).from_(
            new.subquery("n")
        ),
        distinct=False,
    )
    for name, query in (ctes or {}).items():
        source = source.with_(name, as_=query)
    # Null in rows to insert. An equality, for DuckDB joins by anything else row by row.
    matching: exp.Condition = column(first, TARGET).eq(column(GONE, SOURCE))
    if within is not None:
        matching = exp.and_(matching, of_target(within))
    adapter.merge(
        table.name,
        source,
        target_columns_to_types=table.columns,
        unique_key=list(keys.values()),
        when_matched=exp.Whens(expressions=[exp.When(matched=True, source=False, then=exp.var("DELETE"))]),
        merge_filter=matching,
    )


def of_target(condition: exp.Condition) -> exp.Condition:
    """A condition on a table's columns as one on a MERGE's target."""
    found = condition.copy()
    for mentioned in found.find_all(exp.Column):
        mentioned.set("table", exp.to_identifier(TARGET))
    return found
