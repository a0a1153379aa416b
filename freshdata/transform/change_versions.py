"""The changes of a database's table as versions of its rows, in SQL.

A change may leave out a value that it has left as it was, and a truncation concerns keys that it does not name. So the
changes of a key are first brought into a form in which each tells the whole row: the *versions* of the key.
"""

from collections.abc import Sequence

from sqlglot import exp

from freshdata.contracts.capture import DELETE, OPERATION, TRUNCATE, UNAVAILABLE
from freshdata.transform.exchange import column, same

# By the order in which Debezium wrote them, which is that of the commits; what it writes twice is in Bronze once. Not
# by the place in the log: a transaction that was under way when a snapshot was taken has written its change before the
# place that the snapshot's rows name, and commits after it.
VERSION = "_offset"
CHANGES, ALL, KEYS, TRUNCATIONS, NTH = "__changes", "__versions", "__keys", "__truncations", "__nth"
GONE = (DELETE, TRUNCATE)


def newest(query: exp.Query, key: Sequence[str], names: Sequence[str], untold: Sequence[str]) -> exp.Select:
    """The last version of each key; see :func:`versions`.

    A large value is looked up for it alone: with its value in each of its versions, a key that changes often would not
    fit into memory.
    """
    last = exp.Window(this=exp.RowNumber(), partition_by=list(map(column, key)), order=_by_version(desc=True))
    numbered = exp.select("*", exp.alias_(last, NTH, quoted=True)).from_(
        _counted(query, key, names, untold).subquery("v")
    )
    rows = exp.select("*").from_(ALL).where(column(NTH).eq(_number(1)))
    chosen = [column(name, f"__of_{name}" if name in untold else "n") for name in names]
    found = exp.select(*chosen, *_unknown_flags(untold, "n")).from_(rows.subquery("n"))
    for name in untold:
        telling = exp.select(*map(column, (*key, _told(name), name))).from_(ALL).where(_tells(name))
        matching = same((*key, _told(name)), "n", f"__of_{name}")
        found = found.join(telling.subquery(f"__of_{name}"), on=matching, join_type="left")
    return found.with_(ALL, as_=numbered)


def versions(query: exp.Query, key: Sequence[str], names: Sequence[str], untold: Sequence[str]) -> exp.Select:
    """Changes as versions of keys: with the values that they leave out, and a truncation as a delete of every key.

    Args:
        query: The changes.
        key: The primary key; a truncation has none.
        names: The query's columns.
        untold: Those whose values some changes leave out. A boolean beside each says whether it is still unknown, as
            no change before tells it.
    """
    chosen = [_filled_value(name, key) if name in untold else column(name) for name in names]
    counted = _counted(query, key, names, untold)
    return exp.select(*chosen, *_unknown_flags(untold)).from_(counted.subquery("f"))


def _counted(query: exp.Query, key: Sequence[str], names: Sequence[str], untold: Sequence[str]) -> exp.Select:
    """Changes and deletes of every key, and how many of a key up to each tell the value of a column."""
    first = column(key[0])
    named = [*map(column, names), column(UNAVAILABLE)]
    rows = exp.select(*named).from_(CHANGES).where(exp.not_(first.is_(exp.null())))
    keys = exp.select(*map(column, key)).distinct().from_(CHANGES).where(exp.not_(first.is_(exp.null())))
    truncations = exp.select(*named).from_(CHANGES).where(first.is_(exp.null()))
    of_each = [column(name, KEYS if name in key else TRUNCATIONS) for name in (*names, UNAVAILABLE)]
    deletes = exp.select(*of_each).from_(keys.subquery(KEYS)).join(truncations.subquery(TRUNCATIONS), join_type="cross")
    found = exp.union(rows, deletes, distinct=False)
    # Row by row, so that each count is that of one telling change: one that was read twice has the same version twice.
    rows_so_far = exp.WindowSpec(kind="ROWS", start="UNBOUNDED", start_side="PRECEDING", end="CURRENT ROW")
    counts = [
        exp.alias_(
            exp.Window(
                this=exp.Sum(this=exp.Case().when(_tells(name), _number(1)).else_(_number(0))),
                partition_by=list(map(column, key)),
                order=_by_version(),
                spec=rows_so_far.copy(),
            ),
            _told(name),
            quoted=True,
        )
        for name in untold
    ]
    return exp.select("*", *counts).from_(found.subquery("u")).with_(CHANGES, as_=with_left_out(query, names))


def _tells(name: str) -> exp.Condition:
    truncation = column(OPERATION).eq(exp.Literal.string(TRUNCATE))
    return exp.not_(exp.or_(left_out(name), truncation))


def _unknown_flags(untold: Sequence[str], table: str | None = None) -> list[exp.Expression]:
    return [exp.alias_(column(_told(name), table).eq(_number(0)), unknown(name), quoted=True) for name in untold]


def _filled_value(name: str, key: Sequence[str]) -> exp.Expression:
    """A value, or where a change leaves it out that of the last change before which tells it."""
    by = [*map(column, key), column(_told(name))]
    first = exp.Window(this=exp.FirstValue(this=column(name)), partition_by=by, order=_by_version())
    return exp.alias_(first, name, quoted=True)


def with_left_out(changes: exp.Query, names: Sequence[str]) -> exp.Query:
    """Changes with the names of the columns that each leaves out."""
    if isinstance(changes, exp.Select) and UNAVAILABLE not in changes.named_selects:
        return changes.select(column(UNAVAILABLE))
    return exp.select(*map(column, names), column(UNAVAILABLE)).from_(changes.subquery("q"))


def left_out(name: str) -> exp.Expression:
    """Whether a change leaves out the value of a column."""
    found = exp.ArrayContains(this=column(UNAVAILABLE), expression=exp.Literal.string(name))
    return exp.func("COALESCE", found, exp.false())


def gone() -> exp.Condition:
    """Whether a version says that there is no row any more."""
    return column(OPERATION).isin(*GONE)


def _told(name: str) -> str:
    return f"__told_{name}"


def unknown(name: str) -> str:
    """The column that says whether the value of another is still unknown."""
    return f"__unknown_{name}"


def _number(value: int) -> exp.Literal:
    return exp.Literal.number(value)


def _by_version(*, desc: bool = False) -> exp.Order:
    return exp.Order(expressions=[exp.Ordered(this=column(VERSION), desc=desc, nulls_first=not desc)])
