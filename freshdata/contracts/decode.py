"""Decode messages into columns and say, of every message that breaks the contract, where and why.

One parser decides (msgspec), so rows stay aligned with messages: Arrow's own JSON reader is faster on clean batches,
but an empty message vanishes there and a truncated one swallows its successor.
"""

import datetime as dt
import decimal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Meta
from msgspec.structs import astuple

from freshdata.contracts.model import Column, Contract

INTEGER_BOUNDS = {pa.int32(): (-(2**31), 2**31 - 1), pa.int64(): (-(2**63), 2**63 - 1)}
LONGEST_REASON = 500


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
    """Decodes JSON messages; checks types, required fields, enums, ranges, patterns, unknown fields, key and time."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.schema = contract.arrow_schema
        forbid = contract.rules.unknown_fields == "quarantine"
        fields = [_field(column) for column in contract.columns]
        row = msgspec.defstruct("Row", fields, kw_only=True, gc=False, forbid_unknown_fields=forbid)
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(row).decode

    def __call__(
        self, values: Sequence[bytes | None], keys: Sequence[bytes | None], timestamps: npt.NDArray[np.int64]
    ) -> Decoded:
        """Decode a batch.

        Args:
            values: Message values.
            keys: Message keys.
            timestamps: Record timestamps, in milliseconds since the epoch.
        """
        rows: list[tuple[Any, ...]] = []
        positions: list[int] = []
        rejected: list[tuple[int, str]] = []
        decode, add, keep = self._decode, rows.append, positions.append
        for position, value in enumerate(values):
            try:
                add(astuple(decode(value)))  # type: ignore[arg-type]
                keep(position)
            except (msgspec.MsgspecError, UnicodeError, TypeError, ValueError, RecursionError) as error:
                rejected.append((position, _reason(value, error)))
        kept = np.asarray(positions, dtype=np.int64)
        table, good = self._columns(rows)
        if good is not None:
            rejected += [(int(kept[row]), reason) for row, reason in good[1]]
            kept = kept[good[0]]
        return self._checked(table, kept, keys, timestamps, rejected)

    def _columns(self, rows: list[tuple[Any, ...]]) -> tuple[pa.Table, tuple[list[int], list[tuple[int, str]]] | None]:
        """Rows as a table; where Arrow refuses a value (too many digits), the rows it takes and the rest."""
        columns = list(zip(*rows, strict=True)) or [()] * len(self.schema)
        try:
            return pa.table([pa.array(c, f.type) for c, f in zip(columns, self.schema, strict=True)], self.schema), None
        except (pa.ArrowException, OverflowError, UnicodeError, ValueError):
            good: list[int] = []
            bad: list[tuple[int, str]] = []
            for number, row in enumerate(rows):
                if reason := self._refused(row):
                    bad.append((number, reason))
                else:
                    good.append(number)
            return self._columns([rows[number] for number in good])[0], (good, bad)

    def _refused(self, row: tuple[Any, ...]) -> str | None:
        for value, field in zip(row, self.schema, strict=True):
            try:
                pa.array((value,), field.type)
            except (pa.ArrowException, OverflowError, UnicodeError, ValueError) as error:
                return f"{error} - at `$.{field.name}`"[:LONGEST_REASON]
        return None

    def _checked(
        self,
        rows: pa.Table,
        positions: npt.NDArray[np.int64],
        keys: Sequence[bytes | None],
        timestamps: npt.NDArray[np.int64],
        rejected: list[tuple[int, str]],
    ) -> Decoded:
        """Leave out rows whose message key is not their dedupe key, or whose event time lies in the future."""
        rules = self.contract.rules
        field = rules.dedupe_key[0]
        key = pa.array([keys[position] for position in positions], pa.binary())
        wrong_key = pc.fill_null(pc.not_equal(key, _as_bytes(rows[field])), fill_value=True).to_numpy(
            zero_copy_only=False
        )
        bound = timestamps[positions] * 1000 + rules.max_future // dt.timedelta(microseconds=1)
        future = rows[rules.event_time_field].cast(pa.int64()).to_numpy() > bound
        bad = wrong_key | future
        if bad.any():
            for row in np.flatnonzero(bad):
                reason = (
                    f"the message key is not the event's {field}"
                    if wrong_key[row]
                    else f"{rules.event_time_field} lies more than {rules.max_future} after the record's timestamp"
                )
                rejected.append((int(positions[row]), reason))
            rows, positions = rows.filter(pa.array(~bad)), positions[~bad]
        return Decoded(rows, positions, sorted(rejected))


def _field(column: Column) -> tuple[str, Any] | tuple[str, Any, None]:
    python = _python_type(column)
    return (column.name, python) if column.required else (column.name, python | None, None)


def _python_type(column: Column) -> Any:
    kind, limits = column.type, dict(column.limits)
    if column.enum:
        return Literal[tuple(column.enum)]
    if kind in INTEGER_BOUNDS:
        low, high = INTEGER_BOUNDS[kind]
        lower = {} if "gt" in limits else {"ge": low}
        upper = {} if "lt" in limits else {"le": high}
        return Annotated[int, Meta(**(lower | upper | limits))]
    if pa.types.is_timestamp(kind):
        return Annotated[dt.datetime, Meta(tz=kind.tz is not None)]
    plain: dict[Any, Any] = {pa.string(): str, pa.float64(): float, pa.bool_(): bool, pa.date32(): dt.date}
    python = plain.get(kind, decimal.Decimal)
    return Annotated[python, Meta(**limits)] if limits and python in (str, float) else python


def _as_bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string()).cast(pa.binary())


def _reason(value: bytes | None, error: Exception) -> str:
    if value is None:
        return "tombstone: the message has no value"
    if not value.strip():
        return "the message is empty"
    return str(error)[:LONGEST_REASON]
