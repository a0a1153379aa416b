"""Decode the changes of a database's table, as Debezium writes them, into columns.

The database has taken every row already, so none is refused for its values: a contract's enums and limits are for the
checks of what is stored. Refused is what cannot be told, or does not fit its column's type.
"""

import base64
import datetime as dt
import decimal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from freshdata.contracts.capture import CHANGED_AT, CREATE, DELETE, READ, TRUNCATE, UPDATE
from freshdata.contracts.columnar import outside_calendar
from freshdata.contracts.decode import LONGEST_REASON, Decoded, Decoder, columns_of
from freshdata.contracts.model import Column, Contract
from freshdata.contracts.named import NamedSchemas, Schemas
from freshdata.contracts.rows import exact
from freshdata.registry.schemas import unscaled

OPERATIONS = frozenset((READ, CREATE, UPDATE, DELETE, TRUNCATE))
# What Debezium writes in the place of a large value that an update left as it was: PostgreSQL does not log it.
PLACEHOLDER = "__debezium_unavailable_value"
NULL = msgspec.Raw(b"null")
# The meaning that a schema gives a number: how many of its units make a microsecond, or are one.
UNITS = {
    "io.debezium.time.Time": 1000,
    "io.debezium.time.Timestamp": 1000,
    "org.apache.kafka.connect.data.Time": 1000,
    "org.apache.kafka.connect.data.Timestamp": 1000,
}
NANOSECONDS = frozenset(("io.debezium.time.NanoTime", "io.debezium.time.NanoTimestamp"))
A_DAY = 86_400_000_000  # microseconds
DECIMAL = "org.apache.kafka.connect.data.Decimal"
UNDECODABLE = (
    *(msgspec.MsgspecError, decimal.InvalidOperation, OverflowError, ValueError, TypeError, KeyError, RecursionError),
)


class _Source(msgspec.Struct):
    lsn: int | None = None
    txId: int | None = None  # noqa: N815 - Debezium's name.
    ts_us: int | None = None
    ts_ms: int | None = None
    snapshot: str | bool | None = None
    sequence: str | None = None

    @property
    def position(self) -> int | None:
        """Where in the database's log the change stands: for rows read by an incremental snapshot, when they were."""
        if self.lsn is not None or self.sequence is None:
            return self.lsn
        return int(_sequence(self.sequence)[1])


class _Change(msgspec.Struct):
    op: str
    source: _Source
    before: msgspec.Raw = NULL
    after: msgspec.Raw = NULL


class _Message(msgspec.Struct):
    """A message with its schema beside it, or without."""

    op: str = ""
    source: _Source | None = None
    before: msgspec.Raw = NULL
    after: msgspec.Raw = NULL
    schema: msgspec.Raw = NULL
    payload: _Change | None = None


class _FieldSchema(msgspec.Struct):
    field: str = ""
    name: str | None = None
    parameters: dict[str, str] | None = None
    fields: list["_FieldSchema"] = []
    items: "_FieldSchema | None" = None


class _Told(NamedTuple):
    """What a message says of a row; the schema's meanings and the unknown fields by the row's field."""

    operation: str
    source: _Source | None
    row: dict[str, Any] | None
    before: str | None
    meanings: Mapping[str, _FieldSchema]
    extra: dict[str, Any] | None


_message = msgspec.json.Decoder(_Message).decode
_image = msgspec.json.Decoder(dict[str, Any]).decode
_raw_image = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_sequence = msgspec.json.Decoder(tuple[str | None, str]).decode
_schema = msgspec.json.Decoder(_FieldSchema).decode


class ChangeDecoder:
    """Decodes the messages of a change stream; tombstones, which say nothing, are neither decoded nor refused.

    Args:
        contract: The contract.
        schemas: Where the schemas are that messages name; None when there is no registry.
    """

    def __init__(self, contract: Contract, schemas: Schemas | None = None) -> None:
        self.contract = contract
        self.schema = contract.arrow_schema
        if contract.rules.capture is None:
            raise TypeError(f"{contract.name} carries events, not changes")
        self._database = contract.rules.capture.source
        self._columns = [(column, _converter(column.type), _placeholders(column.type)) for column in contract.columns]
        self._known = {column.source_name for column in contract.columns}
        self._key = frozenset(contract.primary_key)
        self._named = NamedSchemas(schemas)
        self._schemas: dict[bytes, dict[str, _FieldSchema]] = {}

    def __call__(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None] | None,  # noqa: ARG002 - as the decoder of events; the key stands in the row.
        timestamps: npt.NDArray[np.int64],  # noqa: ARG002 - as above.
    ) -> Decoded:
        """Decode a batch.

        Args:
            values: Message values.
            keys: Not looked at.
            timestamps: Not looked at.

        Raises:
            SchemasUnknownError: some messages name schemas that are not known while the registry does not answer.
        """
        rows: list[tuple[Any, ...]] = []
        positions: list[int] = []
        rejected: list[tuple[int, str]] = []
        payloads, readers = self._named.resolve(values, rejected)
        refused = {position for position, _ in rejected}
        for position, value in enumerate(payloads):
            if value is None or position in refused:
                continue
            try:
                read = readers.get(position)
                rows.append(self._row(self._of_record(read(value)) if read else self._of_json(value)))
                positions.append(position)
            except UNDECODABLE as error:
                rejected.append((position, str(error)[:LONGEST_REASON]))
        table, kept = columns_of(rows, positions, self.schema, rejected)
        types = {column.name: column.type for column in self.contract.columns}
        moments = [name for name, kind in types.items() if pa.types.is_timestamp(kind) or pa.types.is_date(kind)]
        outside = {name: outside_calendar(table[name]) for name in (*moments, CHANGED_AT)}
        wrong = np.logical_or.reduce(list(outside.values()))
        for row in np.flatnonzero(wrong):
            name = next(name for name, mask in outside.items() if mask[row])
            rejected.append((int(kept[row]), f"lies outside the years 1 to 9999 - at `$.{name}`"))
        if wrong.any():
            table, kept = table.filter(pa.array(~wrong)), kept[~wrong]
        return Decoded(table, kept, sorted(rejected))

    def _of_json(self, value: bytes) -> _Told:
        message = _message(value)
        change = message.payload or message
        image = change.before if change.op == DELETE else change.after
        row = None if image == NULL else _image(image)
        extra = None
        if row is not None and not row.keys() <= self._known:
            # With their values as they were written.
            extra = {name: raw for name, raw in _raw_image(image).items() if name not in self._known}
        before = None if change.before == NULL else bytes(change.before).decode()
        return _Told(change.op, change.source, row, before, self._meanings(message.schema), extra)

    def _of_record(self, record: Any) -> _Told:
        """A change that came as Avro."""
        operation, before = record["op"], record.get("before")
        row = before if operation == DELETE else record.get("after")
        if not isinstance(row, dict | None):
            raise TypeError(f"its row is no record: {row!r}")
        extra = {name: value for name, value in (row or {}).items() if name not in self._known}
        text = None if before is None else msgspec.json.encode(before).decode()
        return _Told(operation, msgspec.convert(record["source"], _Source), row, text, {}, extra)

    def _row(self, told: _Told) -> tuple[Any, ...]:
        operation, source = told.operation, told.source
        if operation not in OPERATIONS or source is None:
            raise ValueError(f"it is no change of a row: its operation is {operation!r}")
        if (position := source.position) is None or (source.ts_us is None and source.ts_ms is None):
            raise ValueError("it does not say where in the database's log it stands - at `$.source`")
        image = {} if operation == TRUNCATE else told.row
        if image is None:
            raise ValueError(f"it lacks the row {'before' if operation == DELETE else 'after'} it")
        unavailable: list[str] = []
        row = [self._value(column, image, told.meanings, unavailable) for column in self._columns]
        if operation == DELETE:
            # Without REPLICA IDENTITY FULL all but the key is null: the row's last values are those it had.
            unavailable = [name for name in self._nulls(row) if name not in self._key]
        if operation != TRUNCATE and (missing := [name for name in self._nulls(row) if name in self._key]):
            raise ValueError(f"it lacks its key - at `$.{missing[0]}`")
        at = source.ts_ms * 1000 if source.ts_us is None else source.ts_us  # type: ignore[operator]  # One is there.
        snapshot = str(source.snapshot).lower() not in ("none", "false")
        beside = (operation, position, source.txId, at, self._database, snapshot, told.before, unavailable or None)
        return *row, *beside, msgspec.json.encode(told.extra).decode() if told.extra else None

    def _value(
        self,
        of: tuple[Column, "Converter", Any],
        told: Mapping[str, Any],
        meanings: Mapping[str, _FieldSchema],
        unavailable: list[str],
    ) -> Any:
        column, convert, placeholders = of
        value = told.get(column.source_name)
        if value is None:
            return None
        if value in placeholders:
            unavailable.append(column.name)
            return None
        try:
            return convert(value, meanings.get(column.source_name))
        except UNDECODABLE as error:
            raise ValueError(f"{str(error) or type(error).__name__} - at `$.{column.name}`") from error

    def _nulls(self, row: list[Any]) -> list[str]:
        return [column.name for (column, *_), value in zip(self._columns, row, strict=True) if value is None]

    def _meanings(self, raw: msgspec.Raw) -> dict[str, _FieldSchema]:
        """What a message's schema says of the row's fields; nothing when it has none."""
        if raw == NULL:
            return {}
        text = bytes(raw)
        if text not in self._schemas:
            self._schemas.clear()  # There is another one when the table's columns have changed.
            images = [one for one in _schema(raw).fields if one.field == "after"]
            self._schemas[text] = {one.field: one for image in images for one in image.fields}
        return self._schemas[text]


Converter = Callable[[Any, _FieldSchema | None], Any]


def _placeholders(kind: pa.DataType) -> tuple[Any, ...]:
    """What stands for an untold value of a type, in JSON and in Avro."""
    if pa.types.is_list(kind):
        return ([PLACEHOLDER],)
    if pa.types.is_binary(kind):
        return base64.b64encode(PLACEHOLDER.encode()).decode(), PLACEHOLDER.encode()
    return (PLACEHOLDER,)


def _converter(kind: pa.DataType) -> Converter:
    """What makes a value of JSON one that Arrow takes for a type."""
    if pa.types.is_list(kind):
        one = _converter(kind.value_type)
        return lambda value, meaning: [
            None if item is None else one(item, meaning.items if meaning else None) for item in _list(value)
        ]
    for holds, convert in CONVERTERS:
        if holds(kind):
            return convert
    return lambda value, _: value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"Expected array, got {type(value).__name__}")
    return value


def _integer(value: Any, _: _FieldSchema | None) -> int:
    if type(value) is not int:  # Arrow would cut off a fraction.
        raise TypeError(f"Expected integer, got {type(value).__name__}")
    return value


def _bytes(value: Any, _: _FieldSchema | None) -> bytes:
    return value if isinstance(value, bytes) else base64.b64decode(value, validate=True)


def _text(value: Any, _: _FieldSchema | None) -> str:
    return value if type(value) is str else msgspec.json.encode(value).decode()


def _decimal(value: Any, meaning: _FieldSchema | None) -> decimal.Decimal:
    if meaning is not None and meaning.name == DECIMAL and isinstance(value, str):
        return exact(unscaled(base64.b64decode(value, validate=True), int((meaning.parameters or {})["scale"])))
    return exact(decimal.Decimal(value if isinstance(value, str | decimal.Decimal) else repr(value)))


def _moment(value: Any, meaning: _FieldSchema | None) -> Any:
    """A date's days, or microseconds; or what an ISO 8601 text or a decoded value says."""
    if isinstance(value, dt.date | dt.time):
        return value
    if isinstance(value, str):
        return dt.datetime.fromisoformat(value)
    name = meaning.name if meaning is not None else None
    if name in NANOSECONDS:
        return value // 1000
    return value * UNITS.get(name or "", 1)


def _time(value: Any, meaning: _FieldSchema | None) -> Any:
    found = _moment(value, meaning)
    if isinstance(found, int) and not 0 <= found < A_DAY:  # PostgreSQL has a 24:00, Iceberg has none.
        raise ValueError(f"{value} is no time of a day")
    return found


CONVERTERS: tuple[tuple[Callable[[pa.DataType], bool], Converter], ...] = (
    (pa.types.is_decimal, _decimal),
    (pa.types.is_time, _time),
    (pa.types.is_temporal, _moment),
    (pa.types.is_integer, _integer),
    (pa.types.is_binary, _bytes),
    (pa.types.is_string, _text),
    (pa.types.is_floating, lambda value, _: float(value)),
)


def decoder_of(contract: Contract, schemas: Schemas | None = None) -> Decoder | ChangeDecoder:
    """What decodes a stream's messages; ``schemas`` gives those that messages name."""
    return Decoder(contract, schemas) if contract.rules.capture is None else ChangeDecoder(contract, schemas)
