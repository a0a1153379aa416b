"""What was deleted, kept in a small table beside the one it was deleted from.

A table whose deleted rows are removed does not know their versions any more: an older version that shows up after the
delete would bring the row back. The table of deletes tells. It is written before its table, and all that it says stays
true, so a crash between the two commits is repaired by the next run; and it has the days of the deletes as partitions,
so that what a merge reads of it grows with the days of the news where the day is part of the key.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlglot import exp

from freshdata.transform.exchange import (
    DELETED,
    ROWS,
    KeyedTable,
    column,
    marked,
    newer,
    overwrite,
    same,
    take_newer,
)


def deletes_table(table: str) -> str:
    """The name of the table beside another that remembers its deleted keys."""
    beside = exp.to_table(table)
    beside.this.set("this", f"{beside.name}__deletes")
    return str(beside.sql())


def remember(
    adapter: Any,
    table: KeyedTable,
    day: exp.Column | None,
    rows: exp.Query,
    *,
    within: exp.Condition | None = None,
    whole: bool = False,
) -> KeyedTable:
    """Take up the deletes among some rows.

    Args:
        adapter: SQLMesh's engine adapter.
        table: The table that the rows are for.
        day: Its date column, or None.
        rows: At most one row for each key, and whether it is a deleted one.
        within: A condition on the deletes known outside of which none has one of the keys; None when there is no such.
        whole: Whether these are all rows there are: then what was known before is forgotten.

    Returns:
        The table of deletes.
    """
    dated = [day] if day else []
    names = dict.fromkeys([*table.key, *table.version, *(one.name for one in dated)])
    columns = {name: table.columns[name] for name in names}
    deletes = replace(table, name=deletes_table(table.name), columns=columns)
    if not adapter.table_exists(deletes.name):
        adapter.create_table(deletes.name, columns, partitioned_by=dated)
    gone = exp.select(*map(column, columns)).from_(rows.subquery(ROWS)).where(column(DELETED))
    if whole:
        overwrite(adapter, deletes.name, gone, columns, where=exp.true())
    else:
        take_newer(adapter, deletes, marked(gone, tuple(columns), None), within=within)
    return deletes


def remembered(rows: exp.Query, deletes: KeyedTable, within: exp.Condition | None) -> exp.Query:
    """Rows (see :func:`marked`) less those of which a table of deletes knows a later delete.

    Args:
        rows: The rows.
        deletes: The table of deletes.
        within: A condition on its rows outside of which none has one of the keys; None when there is no such.
    """
    known = deletes.select(within=within).subquery("d")
    later = exp.and_(same(deletes.key, "d", ROWS), newer(deletes.version, "d", ROWS))
    found = exp.Exists(this=exp.select("1").from_(known).where(later))
    return exp.select("*").from_(rows.subquery(ROWS)).where(exp.not_(found))
