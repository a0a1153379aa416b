"""Read a PostgreSQL table's rows, in one consistent state of the database, in the types of its contract."""

import datetime as dt
import decimal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from freshdata.contracts.capture import LSN, TRANSACTION
from freshdata.contracts.decode import UNFIT
from freshdata.contracts.model import Column

if TYPE_CHECKING:
    import psycopg2.extensions

ROWS_AT_ONCE = 20_000
MOST_DIGITS = 38
TRANSACTIONS = 2**32  # A change says the lower half of its transaction's number.
PLAIN_TEXT = frozenset(("text", "varchar", "bpchar", "name", "citext"))
EPOCH_MICROSECONDS = "(extract(epoch FROM {}) * 1000000)::bigint"
# A value in SQL, by its type in Arrow, as Arrow takes it. What no column can hold (infinity, no number, more digits) is
# read as null: its row is in quarantine anyway.
EXPRESSIONS: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pa.types.is_date, "CASE WHEN isfinite({0}) THEN {0} - date '1970-01-01' END"),
    (pa.types.is_timestamp, f"CASE WHEN isfinite({{0}}) THEN {EPOCH_MICROSECONDS.format('{0}')} END"),
    (pa.types.is_time, EPOCH_MICROSECONDS),
    (pa.types.is_decimal, "CASE WHEN {0}::text NOT IN ('NaN', 'Infinity', '-Infinity') THEN {0}::numeric END"),
    (pa.types.is_list, "{0}::text[]"),
    (pa.types.is_string, "{0}::text"),
)
# In ISO 8601 as Debezium writes it, with all of its parts.
INTERVAL = (
    "CASE WHEN {0} IS NOT NULL THEN format('P%sY%sM%sDT%sH%sM%sS', extract(year FROM {0}), extract(month FROM {0}), "
    "extract(day FROM {0}), extract(hour FROM {0}), extract(minute FROM {0}), trim_scale(extract(second FROM {0}))) END"
)
COLUMNS = (
    "SELECT a.attname, t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
    "WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
)


@dataclass(frozen=True)
class Moment:
    """A state of a database.

    Attributes:
        lsn: Where its log ended then: all that was committed stands before.
        at: When it was, by the database's clock.
        ended: The first number of a transaction that had not begun.
        running: The transactions that had begun and not ended.
    """

    lsn: int
    at: dt.datetime
    ended: int
    running: frozenset[int]

    @classmethod
    def of(cls, connection: "psycopg2.extensions.connection") -> "Moment":
        """Begin a transaction that sees one state of the database, and say which."""
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True, autocommit=False)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT (pg_current_wal_lsn() - '0/0')::bigint, clock_timestamp(), pg_current_snapshot()::text"
            )
            lsn, at, seen = cursor.fetchone() or (0, dt.datetime.now(dt.UTC), "1:1:")
            cursor.execute("SET LOCAL TimeZone = 'UTC'")
        _, ended, running = seen.split(":")
        return cls(int(lsn), at, int(ended), frozenset(map(int, filter(None, running.split(",")))))

    def saw(self, changes: pa.Table | pa.RecordBatch) -> pa.Array:
        """Which changes were committed by then; of what a snapshot has read, whether it was read by then."""
        told = pc.is_valid(changes[TRANSACTION]).to_numpy(zero_copy_only=False)
        numbers = pc.fill_null(changes[TRANSACTION], 0).to_numpy()
        # The distance on the circle of numbers, of which only the lower half is known.
        distance = (numbers - self.ended + TRANSACTIONS // 2) % TRANSACTIONS - TRANSACTIONS // 2
        running = np.isin(numbers % TRANSACTIONS, [number % TRANSACTIONS for number in self.running])
        return pa.array(np.where(told, (distance < 0) & ~running, changes[LSN].to_numpy() <= self.lsn))


def column_types(connection: "psycopg2.extensions.connection", table: str) -> dict[str, str]:
    """A table's columns and their types; none when there is no such table."""
    with connection.cursor() as cursor:
        cursor.execute(COLUMNS, (".".join(f'"{part}"' for part in table.split(".")),))
        return dict(cursor.fetchall())


def read_rows(
    connection: "psycopg2.extensions.connection", table: str, columns: Sequence[Column], types: dict[str, str]
) -> Iterator[pa.Table]:
    """A table's rows, some at a time.

    Args:
        connection: A connection within a transaction; its time zone is UTC.
        table: The table, with its schema.
        columns: The columns to read.
        types: The type of each in the database.
    """
    from psycopg2 import sql

    chosen = [
        sql.SQL(_expression(column.type, types[column.source_name])).format(sql.Identifier(column.source_name))
        for column in columns
    ]
    query = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(chosen), sql.Identifier(*table.split(".")))
    schema = pa.schema([pa.field(column.name, read_type(column.type)) for column in columns])
    with connection.cursor("freshdata_verify") as cursor:
        cursor.itersize = ROWS_AT_ONCE
        cursor.execute(query)
        while found := cursor.fetchmany(ROWS_AT_ONCE):
            values = zip(*found, strict=True)
            arrays = [_array(items, field.type) for items, field in zip(values, schema, strict=True)]
            yield pa.table(arrays, schema=schema)


def _expression(kind: pa.DataType, type_name: str) -> str:
    if pa.types.is_string(kind) and type_name == "interval":
        return INTERVAL
    if pa.types.is_string(kind) and type_name in PLAIN_TEXT:
        return "{0}"  # A cast would cut a char(n)'s blanks.
    if pa.types.is_boolean(kind) and type_name == "bit":
        return "{0}::int::boolean"
    return next((text for holds, text in EXPRESSIONS if holds(kind)), "{0}")


def read_type(kind: pa.DataType) -> pa.DataType:
    """The type that a column's values are read as: one that also holds those of a column that was widened since."""
    if pa.types.is_decimal(kind):
        return pa.decimal128(MOST_DIGITS, kind.scale)
    return pa.int64() if kind == pa.int32() else kind


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_binary(kind):
        values = [None if value is None else bytes(value) for value in values]
    elif pa.types.is_list(kind):
        one = _parser(kind.value_type)
        values = [
            None if value is None else [None if item is None else one(item) for item in value] for value in values
        ]
    try:
        return pa.array(values, kind)
    except UNFIT:
        return pa.array([value if _fits(value, kind) else None for value in values], kind)


def _fits(value: Any, kind: pa.DataType) -> bool:
    try:
        pa.array((value,), kind)
    except UNFIT:
        return False
    return True


def _parser(kind: pa.DataType) -> Callable[[str], Any]:
    """What reads an element of an array from its text."""
    parsers: tuple[tuple[Callable[[pa.DataType], bool], Callable[[str], Any]], ...] = (
        (pa.types.is_integer, int),
        (pa.types.is_floating, float),
        (pa.types.is_decimal, decimal.Decimal),
        (pa.types.is_boolean, lambda text: text in ("t", "true")),
        (pa.types.is_date, dt.date.fromisoformat),
        (pa.types.is_timestamp, dt.datetime.fromisoformat),
        (pa.types.is_time, dt.time.fromisoformat),
        (pa.types.is_binary, lambda text: bytes.fromhex(text.removeprefix("\\x"))),
    )
    return next((parse for holds, parse in parsers if holds(kind)), str)
