"""Slowly changing dimensions of type 2: each version of a key as a row, with the time that it was valid.

Made from a table that holds all versions of each key, in whatever order they came. A version's interval ends where the
next one begins, so a version that comes late splits one: no row can be made from new rows alone. Live, the keys that
have new rows are made anew from all of their versions upstream, and theirs are the only rows that change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlglot import exp
from sqlmesh import CustomMaterialization  # noqa: TID253 - imported lazily itself, by the project.
from sqlmesh.utils.errors import ConfigError  # noqa: TID253 - as above.

from freshdata.contracts.capture import UNAVAILABLE
from freshdata.transform.change_versions import VERSION, versions, with_left_out
from freshdata.transform.exchange import DELETED, Columns, column, exchange, marked, overwrite, same
from freshdata.transform.materializations import EVER, KeyedKind, OverwriteChangedPartitions, redirected
from freshdata.transform.slices import Slice

if TYPE_CHECKING:
    from sqlmesh.core.model import Model

VALID_TO, CURRENT = "valid_to", "is_current"
TOUCHED, NTH, CHANGED = "__touched", "__nth", "__changed"
TYPES = ("TIMESTAMPTZ", "TIMESTAMP", "DATE")


class Scd2Kind(KeyedKind):
    """A dimension, described by ``materialization_properties``; see :class:`Scd2`."""

    @property
    def valid_from(self) -> str:
        """The column that says from when on a version is valid."""
        return self.property_names("valid_from")[0]

    @property
    def managed_columns(self) -> dict[str, exp.DataType]:
        """The columns that the table has beside the query's.

        Raises:
            ConfigError: ``time_type`` is no type of a moment.
        """
        value = self.materialization_properties.get("time_type", TYPES[0])
        kind = (value.sql() if isinstance(value, exp.Expression) else str(value)).upper()
        if kind not in TYPES:
            raise ConfigError(f"time_type is {kind}. Use one of {', '.join(TYPES)}.")
        return {VALID_TO: exp.DataType.build(kind, dialect="duckdb"), CURRENT: exp.DataType.build("BOOLEAN")}

    @property
    def changes(self) -> bool:
        """Whether the query's rows are the changes of a database's table."""
        value = self.materialization_properties.get("changes", exp.false())
        return bool(value.this if isinstance(value, exp.Boolean) else value)

    def compared(self, columns: Columns) -> tuple[str, ...]:
        """The columns in which two versions that follow one another must differ to be two."""
        if "compared" in self.materialization_properties:
            return self.property_names("compared")
        marker = self.deleted
        aside = {*self.property_names("unique_key"), *self.property_names("version"), self.valid_from}
        aside |= {mentioned.name for mentioned in marker.find_all(exp.Column)} if marker else set()
        return tuple(name for name in columns if name not in aside | self.managed_columns.keys())

    def stored(self, query: exp.Query, columns: Columns) -> exp.Query:
        """The intervals that the versions of a query make."""
        key, begin, names = self.property_names("unique_key"), self.valid_from, _told(columns)
        if self.changes:
            aside = {*key, VERSION, begin}
            query = versions(query, key, names, [n for n in names if n not in aside and not n.startswith("_")])
            query = _begun_in_order(query, key, names, begin)
        by_key = [column(name) for name in key]
        told = marked(query, names, self.deleted).select(
            _over(exp.RowNumber(), [*by_key, column(begin)], _order(self.property_names("version"), desc=True), NTH)
        )
        # Of the versions that begin at once, the newest is the one that counts.
        counted = exp.select("*").from_(told.subquery("v")).where(column(NTH).eq(exp.Literal.number(1)))
        # A version is no new one if it says what the one before says; two deletes in a row are one.
        says = [_differs(name, by_key, begin) for name in self.compared(columns)]
        says = [exp.and_(exp.not_(column(DELETED)), exp.or_(*says))] if says else []
        first = exp.EQ(this=_window(exp.RowNumber(), by_key, _order((begin,))), expression=exp.Literal.number(1))
        changed = exp.or_(first, _differs(DELETED, by_key, begin), *says)
        numbered = exp.select("*", exp.alias_(changed, CHANGED, quoted=True)).from_(counted.subquery("v"))
        kept = exp.select("*").from_(numbered.subquery("v")).where(column(CHANGED))
        until = _over(exp.Lead(this=column(begin)), by_key, _order((begin,)), VALID_TO)
        closed = exp.select("*", until).from_(kept.subquery("v"))
        until_column = exp.cast(column(VALID_TO), self.managed_columns[VALID_TO])
        found = {VALID_TO: until_column, CURRENT: column(VALID_TO).is_(exp.null())}
        chosen = [exp.alias_(found.get(name, column(name)), name, quoted=True) for name in columns]
        return exp.select(*chosen).from_(closed.subquery("v")).where(exp.not_(column(DELETED)))


class Scd2(OverwriteChangedPartitions, CustomMaterialization[Scd2Kind]):  # type: ignore[misc]
    """Stores each version of a key with the time that it was valid.

    Properties: ``unique_key``; ``valid_from``, the column that says from when on a version is valid; ``version``,
    columns that order the versions that begin at once, of which the last counts; ``deleted``, a condition on the
    model's columns that marks a delete: it ends an interval and begins none; ``compared``, the columns in which two
    versions must differ, by default all but those named so far; ``time_type``, the type of ``valid_from``, by default
    ``TIMESTAMPTZ``. The table has two columns more than the query: ``valid_to``, null for the version that is valid
    still, and ``is_current``. Of equal versions in a row, the first is kept. The query must be one that can be computed
    for each key apart. With ``changes = true`` its rows are a database table's changes, as those of
    :class:`~freshdata.transform.changes.CurrentRows` are, and come in the same order: one whose time is after that of a
    later one begins with the later one, and so does not count.
    """

    NAME = "scd2"

    def plain_slice(self, model: Model, start: Any, end: Any) -> Slice:  # noqa: ARG002 - a dimension has no days.
        """What a run by the plain ``sqlmesh`` command recomputes: everything."""
        return Slice()

    def take(
        self,
        table: str,
        query: exp.Query,  # noqa: ARG002 - it sees the days of the run; all versions of a key count.
        model: Model,
        render_kwargs: dict[str, Any],
        part: Slice,
    ) -> None:
        """Replace the intervals of the keys that have new rows, or all."""
        kind = model.kind
        columns, _ = self._get_target_and_source_columns(model, table, render_kwargs=render_kwargs)
        everything = model.render_query_or_raise(**render_kwargs | EVER)
        if not part.merge:
            overwrite(self.adapter, table, kind.stored(everything, columns), columns, where=exp.true())
            return
        stored = kind.keyed(table, columns)
        keys = [column(name) for name in stored.key]
        touched = exp.select(*keys).distinct().from_(redirected(everything, part.reads).subquery("q"))
        names = (*_told(columns), *([UNAVAILABLE] if kind.changes else []))
        everything = with_left_out(everything, _told(columns)) if kind.changes else everything
        rows = _of_keys(everything.subquery("q"), "q", stored.key, names, nameless=kind.changes)
        old = _of_keys(exp.to_table(table).as_("q"), "q", stored.key, stored.key).distinct()
        exchange(self.adapter, stored, old, kind.stored(rows, columns), ctes={TOUCHED: touched})


def _begun_in_order(query: exp.Query, key: tuple[str, ...], names: Sequence[str], begin: str) -> exp.Select:
    """Versions of which none begins after one that follows it in the topic, whose order Silver goes by, too.

    A snapshot tells when it read a row, which may be after the commit of a change that it does not have.
    """
    order = [exp.Ordered(this=column(VERSION), desc=True, nulls_first=False)]
    earliest = _over(exp.Min(this=column(begin)), [column(name) for name in key], order, begin)
    return exp.select(*(earliest if name == begin else column(name) for name in names)).from_(query.subquery("b"))


def _told(columns: Columns) -> tuple[str, ...]:
    return tuple(name for name in columns if name not in (VALID_TO, CURRENT))


def _of_keys(
    source: exp.Expression, alias: str, key: tuple[str, ...], names: tuple[str, ...], *, nameless: bool = False
) -> exp.Select:
    """The rows of a relation whose keys are touched, and if need be those that have no key."""
    found: exp.Condition = exp.Exists(
        this=exp.select("1").from_(exp.to_table(TOUCHED).as_("t")).where(same(key, "t", alias))
    )
    if nameless:
        found = exp.or_(found, column(key[0], alias).is_(exp.null()))
    return exp.select(*(column(name, alias) for name in names)).from_(source).where(found)


def _order(names: tuple[str, ...], *, desc: bool = False) -> list[exp.Expression]:
    return [exp.Ordered(this=column(name), desc=desc, nulls_first=not desc) for name in names]


def _window(of: exp.Expression, partition: list[exp.Column], order: list[exp.Expression]) -> exp.Window:
    return exp.Window(this=of, partition_by=[part.copy() for part in partition], order=exp.Order(expressions=order))


def _over(of: exp.Expression, partition: list[exp.Column], order: list[exp.Expression], name: str) -> exp.Expression:
    return exp.alias_(_window(of, partition, order), name, quoted=True)


def _differs(name: str, key: list[exp.Column], begin: str) -> exp.Expression:
    before = _window(exp.Lag(this=column(name)), key, _order((begin,)))
    return exp.NullSafeNEQ(this=column(name), expression=before)
