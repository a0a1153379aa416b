"""Decode messages into columns and say, of every message that breaks the contract, where and why.

One decoder judges (msgspec, message by message). Messages that are certainly good are parsed many at once
(:mod:`freshdata.contracts.columnar`); it sees the others only, and says what is wrong with them. Messages that name
their schema may stand beside plain ones: JSON is judged like any other, Avro once its record is read.
"""

import contextlib
import datetime as dt
import decimal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from freshdata.contracts.avro_columns import AvroColumns
from freshdata.contracts.columnar import COMPARISONS, ColumnarParser, outside_calendar
from freshdata.contracts.model import Contract
from freshdata.contracts.named import NamedSchemas, Reader, Schemas
from freshdata.contracts.rows import RowJudge
from freshdata.registry.wire import unframed

Parse = ColumnarParser | AvroColumns
LONGEST_REASON = 500
# What Arrow raises of a value that its column cannot hold.
UNFIT = (pa.ArrowException, OverflowError, UnicodeError, ValueError, TypeError)
UTC_TIMESTAMP = pa.timestamp("us", "UTC")
# Messages parsed at once. One that is no JSON, or has a value of the wrong type, fails all that are parsed with it:
# they are decoded one by one, more slowly. Smaller portions cost more than they save: 1 % of such messages took five
# times as long.
PORTION = 8192
# Fewer are decoded one by one: below it, what Arrow does once a batch costs more (1.0 ms) than it saves.
FEWEST = 700
# Kafka takes any number as a record's timestamp; of one beyond the calendar (microseconds, say) no date can be made.
LATEST_TIMESTAMP = 253_402_128_000_000  # Milliseconds: 9999-12-30.


@dataclass(frozen=True)
class Decoded:
    """A decoded batch.

    Attributes:
        rows: The contract's columns, one row for each good message, in message order.
        positions: Position in the batch of each row.
        rejected: Position and reason of every other message, in message order.
    """

    rows: pa.Table
    positions: npt.NDArray[np.int64]
    rejected: list[tuple[int, str]]


class Decoder:
    """Decodes messages; checks types, required fields, enums, ranges, patterns, unknown fields, key and time.

    Args:
        contract: The contract.
        schemas: Where the schemas are that messages name; None when there is no registry.
    """

    def __init__(self, contract: Contract, schemas: Schemas | None = None) -> None:
        self.contract = contract
        self.schema = contract.arrow_schema
        self._judge = RowJudge(contract)
        self._named = NamedSchemas(schemas)
        self._parse = ColumnarParser(contract) if ColumnarParser.supports(contract) else None
        self._columns: dict[Reader, AvroColumns] = {}
        [self._key] = [column.source_name for column in contract.columns if column.name == contract.rules.dedupe_key[0]]

    def __call__(
        self, values: Sequence[bytes | None], keys: Sequence[bytes | None] | None, timestamps: npt.NDArray[np.int64]
    ) -> Decoded:
        """Decode a batch.

        Args:
            values: Message values.
            keys: Message keys; None when the rows are to tell what they must be.
            timestamps: Record timestamps, in milliseconds since the epoch.

        Raises:
            SchemasUnknownError: some messages name schemas that are not known while the registry does not answer.
        """
        rejected: list[tuple[int, str]] = []
        values, records = self._named.resolve(values, rejected)
        plain = np.arange(len(values))
        if records or rejected:
            plain = np.setdiff1d(plain, [*records, *(position for position, _ in rejected)])
        doubtful: list[int] = []
        groups = [(self._parse, plain), *self._by_schema(records)]
        parts = [part for parse, places in groups for part in self._parsed(values, places, parse, doubtful)]
        parts.append(self._decoded(values, sorted(doubtful), records, rejected))
        rows = pa.concat_tables(table for table, _ in parts)
        positions = np.concatenate([kept for _, kept in parts])
        if records or len(parts[-1][1]):
            order = np.argsort(positions)
            rows, positions = rows.take(order), positions[order]
        return self._checked(rows, positions, keys, timestamps, rejected)

    def _by_schema(self, records: dict[int, Reader]) -> Iterator[tuple[Parse, npt.NDArray[np.int64]]]:
        """What reads the Avro messages of each schema, and their positions."""
        places: dict[Reader, list[int]] = {}
        for position, reader in records.items():
            places.setdefault(reader, []).append(position)
        for reader, positions in places.items():
            if reader not in self._columns:
                self._columns[reader] = AvroColumns(self.contract, self._parse, self._named.schema_of(reader))
            yield self._columns[reader], np.sort(np.array(positions, dtype=np.int64))

    def _parsed(
        self,
        values: Sequence[bytes | None],
        places: npt.NDArray[np.int64],
        parse: Parse | None,
        doubtful: list[int],
    ) -> Iterator[tuple[pa.Table, npt.NDArray[np.int64]]]:
        """Tables of the messages at some places that are certainly good, their positions, and the others' positions."""
        for start in range(0, len(places), PORTION):
            positions = places[start : start + PORTION]
            portion = [values[position] for position in positions.tolist()]
            parsed = parse(portion) if parse and len(portion) >= FEWEST else None
            if parsed is None:
                doubtful.extend(positions.tolist())
                continue
            rows, good = parsed
            doubtful.extend(positions[~good].tolist())
            yield rows, positions[good]

    def _decoded(
        self,
        values: Sequence[bytes | None],
        positions: list[int],
        records: dict[int, Reader],
        rejected: list[tuple[int, str]],
    ) -> tuple[pa.Table, npt.NDArray[np.int64]]:
        """A table of some messages, one by one, with their positions; says of the refused ones why."""
        rows: list[tuple[Any, ...]] = []
        accepted: list[int] = []
        for position in positions:
            value = values[position]
            try:
                rows.append(self._row(value, records.get(position)))  # type: ignore[arg-type]  # None is refused, too.
                accepted.append(position)
            except (msgspec.MsgspecError, UnicodeError, TypeError, ValueError, RecursionError) as error:
                rejected.append((position, _reason(value, error)))
        return columns_of(rows, accepted, self.schema, rejected)

    def _row(self, value: bytes, read: Reader | None) -> tuple[Any, ...]:
        return self._judge.record(read(value)) if read else self._judge.message(value)

    def _decimals_beyond_limits(self, rows: pa.Table) -> dict[str, npt.NDArray[np.bool_]]:
        """Reasons and the rows they hold for; the row decoder has no limits for decimals."""
        return {
            f"{column.name} breaks its limit {name} {limit} - at `$.{column.name}`": pc.fill_null(
                COMPARISONS[name](rows[column.name], pa.scalar(decimal.Decimal(str(limit)))), fill_value=False
            ).to_numpy(zero_copy_only=False)
            for column in self.contract.columns
            if pa.types.is_decimal(column.type)
            for name, limit in column.limits.items()
        }

    def _checked(
        self,
        rows: pa.Table,
        positions: npt.NDArray[np.int64],
        keys: Sequence[bytes | None] | None,
        timestamps: npt.NDArray[np.int64],
        rejected: list[tuple[int, str]],
    ) -> Decoded:
        """Leave out rows whose message key is not their dedupe key, or whose times cannot be true."""
        rules = self.contract.rules
        field = rules.dedupe_key[0]
        wanted = key_bytes(rows[field])
        wrong_key = _differ(keys, positions, wanted)
        if keys is not None and wrong_key.any():
            wrong_key = _differ(self._told_by(keys, positions[wrong_key]), positions, wanted)
        bound = timestamps[positions] * 1000 + rules.max_future // dt.timedelta(microseconds=1)
        future = rows[rules.event_time_field].cast(pa.int64()).to_numpy() > bound
        reasons = {
            f"the message key is not the event's {field}": wrong_key,
            f"{rules.event_time_field} lies more than {rules.max_future} after the record's timestamp": future,
        } | {
            f"lies outside the years 1 to 9999 - at `$.{column.name}`": outside_calendar(rows[column.name])
            for column in self.contract.columns
            if column.type == UTC_TIMESTAMP
        }
        reasons |= self._decimals_beyond_limits(rows)
        bad = np.logical_or.reduce(list(reasons.values()))
        if bad.any():
            for row in np.flatnonzero(bad):
                reason = next(reason for reason, rows_of_it in reasons.items() if rows_of_it[row])
                rejected.append((int(positions[row]), reason))
            rows, positions = rows.filter(pa.array(~bad)), positions[~bad]
        return Decoded(rows, positions, sorted(rejected))

    def _told_by(self, keys: Sequence[bytes | None], positions: npt.NDArray[np.int64]) -> Sequence[bytes | None]:
        """The message keys, of those at some positions that name their schema what they say."""
        named = {int(position) for position in positions if unframed(keys[position])}
        if not named:
            return keys
        refused: list[tuple[int, str]] = []
        payloads, readers = self._named.resolve([k if p in named else None for p, k in enumerate(keys)], refused)
        told = list(keys)
        for position in named - {position for position, _ in refused}:
            with contextlib.suppress(msgspec.MsgspecError, UnicodeError, ValueError, RecursionError):
                found = readers.get(position, msgspec.json.decode)(payloads[position] or b"")
                if isinstance(found, dict):
                    found = found.get(self._key)
                told[position] = found if isinstance(found, bytes) else str(found).encode()
        return told


def columns_of(
    rows: list[tuple[Any, ...]], positions: list[int], schema: pa.Schema, rejected: list[tuple[int, str]]
) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """Rows as a table, with their positions; those with a value that Arrow refuses (too many digits) are rejected."""
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    try:
        table = pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema)
    except UNFIT:
        reasons = [_unfit(row, schema) for row in rows]
        rejected += [(position, reason) for position, reason in zip(positions, reasons, strict=True) if reason]
        good = [number for number, reason in enumerate(reasons) if not reason]
        return columns_of([rows[number] for number in good], [positions[number] for number in good], schema, rejected)
    return table, np.asarray(positions, dtype=np.int64)


def _unfit(row: tuple[Any, ...], schema: pa.Schema) -> str | None:
    for value, field in zip(row, schema, strict=True):
        try:
            pa.array((value,), field.type)
        except UNFIT as error:
            return f"{error} - at `$.{field.name}`"[:LONGEST_REASON]
    return None


def record_timestamps(milliseconds: Iterable[int], count: int) -> npt.NDArray[np.int64]:
    """Timestamps of Kafka records, in milliseconds since the epoch, none of them beyond the calendar."""
    return np.minimum(np.fromiter(milliseconds, np.int64, count), LATEST_TIMESTAMP)


def _differ(
    keys: Sequence[bytes | None] | None, positions: npt.NDArray[np.int64], wanted: pa.ChunkedArray
) -> npt.NDArray[np.bool_]:
    """Whether the keys at some positions are others than they must be."""
    if keys is None:
        return np.zeros(len(positions), dtype=np.bool_)
    key = pa.array(keys, pa.binary())
    if len(positions) < len(keys):
        key = key.take(pa.array(positions))
    differ: npt.NDArray[np.bool_] = pc.fill_null(pc.not_equal(key, wanted), fill_value=True).to_numpy(
        zero_copy_only=False
    )
    return differ


def key_bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A key column as the bytes that stand in the message key: text as UTF-8, other types as they are written."""
    return column if pa.types.is_binary(column.type) else column.cast(pa.string()).cast(pa.binary())


def _reason(value: bytes | None, error: Exception) -> str:
    if value is None:
        return "tombstone: the message has no value"
    if not value.strip():
        return "the message is empty"
    return str(error)[:LONGEST_REASON]
