"""Parse clean JSON messages into columns at once with Arrow's reader, several times faster than message by message.

The row decoder (msgspec) stays the judge. This parser is sound, not complete: the rows that it takes the row decoder
takes too, with equal values; whatever it is not sure of it leaves to the row decoder. Which of the two decoded a row
can therefore never be seen in the data, nor can where a batch began.

Arrow's reader knows no messages, only a sequence of objects: an empty message vanishes in it, a truncated one swallows
its successor. Hence only messages that begin with ``{`` and end with ``}`` are given to it, joined by newlines. Where
one of them ends, the reader is at top level: inside a string it would refuse the newline, inside an object or an array
it would need a comma before the next ``{``. So every message makes at least one row, and as many rows as messages means
exactly one each.
"""

import datetime as dt
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from freshdata.contracts.model import EXTRA, Column, Contract

Mask = npt.NDArray[np.bool_]

# Where Python's dates end. Arrow's go on, and fail whatever meets one in Python.
FIRST, LAST = dt.datetime.min, dt.datetime.max  # noqa: DTZ901 - cast to the column's own zone
# The row decoder gives up on deeper nesting, where Arrow's does not. The contract's own fields are flat.
DEEPEST = 100
PATTERN_MEMORY = 65_536  # values
COMPARISONS = {"ge": pc.less, "gt": pc.less_equal, "le": pc.greater, "lt": pc.greater_equal}
SIZES = {"min_length": pc.less, "max_length": pc.greater}


class ColumnarParser:
    """Parses messages of one contract."""

    def __init__(self, contract: Contract) -> None:
        self.columns = contract.columns
        self.schema = contract.arrow_schema
        self.ignores_unknown = contract.rules.unknown_fields == "ignore"
        # Which they are, and how they are written, only the row decoder says.
        self.keeps_unknown = contract.rules.unknown_fields == "keep"
        # Of an event with a field under an older name only the row decoder says what it means.
        self._aliases = [alias for column in contract.columns for alias in column.aliases]
        names = {column.source_name: column for column in contract.columns}
        names |= {alias: column for column in contract.columns for alias in column.aliases}
        self._options = pyarrow.json.ParseOptions(
            explicit_schema=pa.schema([(name, _read_type(column.type)) for name, column in names.items()]),
            unexpected_field_behavior="ignore" if self.ignores_unknown else "error",
        )
        self._allowed = {column.name: _value_test(column) for column in contract.columns}

    @staticmethod
    def supports(contract: Contract) -> bool:
        """Whether all types of a contract are parsed here; a decimal may be written in ways that only one knows."""
        return not any(pa.types.is_decimal(column.type) for column in contract.columns)

    def __call__(self, values: Sequence[bytes | None]) -> tuple[pa.Table, Mask] | None:
        """Parse messages.

        Args:
            values: Message values, at least one.

        Returns:
            The contract's columns for the messages that certainly fulfil it, and which of the messages those are; None
            when the messages cannot be parsed as a whole.
        """
        try:
            if not self._are_objects(pa.array(values, pa.binary()).cast(pa.string())):
                return None
            joined = b"\n".join(values)  # type: ignore[arg-type]  # There is no null: it would not begin with a brace.
            rows = pyarrow.json.read_json(
                pa.BufferReader(joined),
                # In one block: the reader would cut a larger input at newlines, which may lie inside a message.
                read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(joined) + 1),
                parse_options=self._options,
            )
            if rows.num_rows != len(values):
                return None
            good = np.ones(rows.num_rows, dtype=np.bool_)
            for alias in self._aliases:
                _exclude(good, pc.is_valid(rows[alias]))
            names = [column.name for column in self.columns]
            rows = pa.table([self.checked(rows[c.source_name], c, good) for c in self.columns], names)
            if self.keeps_unknown:
                rows = rows.append_column(EXTRA, pa.nulls(len(rows), pa.string()))
            return (rows if good.all() else rows.filter(pa.array(good))).cast(self.schema), good
        except pa.ArrowException:
            return None

    def _are_objects(self, text: pa.Array) -> bool:
        if not _braced(text):
            text = pc.ascii_trim_whitespace(text)
            if not _braced(text):
                return False
        if not self.ignores_unknown:
            return True
        depth = pc.add(pc.count_substring(text, "{"), pc.count_substring(text, "["))
        return bool(pc.max(depth).as_py() <= DEEPEST)

    def checked(self, values: pa.ChunkedArray, column: Column, good: Mask) -> pa.ChunkedArray:
        """A column in its own type as far as it holds; takes the rows that are in doubt out of ``good``."""
        if column.required and values.null_count:
            _exclude(good, pc.is_null(values))
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            return _moments(values, column.type, good)
        if pa.types.is_floating(column.type):
            _exclude(good, pc.invert(pc.is_finite(values)))
            # `-0` is the integer 0 to one decoder, and minus zero to the other.
            numbers = values.to_numpy()
            good &= ~((numbers == 0) & np.signbit(numbers))
        limits = dict(column.limits)
        if column.type == pa.int32():
            limits = {"ge": -(2**31), "le": 2**31 - 1} | limits
        for name, limit in limits.items():
            if name in COMPARISONS:
                _exclude(good, COMPARISONS[name](values, limit))
            elif name in SIZES:
                _exclude(good, SIZES[name](pc.utf8_length(values), limit))
        allowed = self._allowed[column.name]
        # Few values are distinct, mostly; each is tried once.
        distinct = pc.unique(values).to_pylist() if allowed else []
        if bad := [value for value in distinct if value is not None and allowed and not allowed(value)]:
            _exclude(good, pc.is_in(values, pa.array(bad, values.type)))
        # What is out of the type's range is out of `good` already; its row will be left out.
        return values if column.type != pa.int32() else values.cast(pa.int32(), safe=False)


def _read_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return pa.string()
    return pa.int64() if pa.types.is_integer(kind) else kind


def _value_test(column: Column) -> Callable[[Any], bool] | None:
    """What a value must fulfil beyond its type and limits, or None."""
    if column.enum:
        # By type too: to Python, but not to JSON, `true` equals 1.
        members = {(type(member), member) for member in column.enum}
        return lambda value: (type(value), value) in members
    if "pattern" in column.limits:
        search = re.compile(column.limits["pattern"]).search
        return lru_cache(PATTERN_MEMORY)(lambda value: search(value) is not None)
    return None


def _braced(text: pa.Array) -> bool:
    return bool(pc.all(pc.and_(pc.starts_with(text, "{"), pc.ends_with(text, "}")), skip_nulls=False).as_py())


def _moments(values: pa.ChunkedArray, kind: pa.DataType, good: Mask) -> pa.ChunkedArray:
    """Text as dates or timestamps; where it is not in the one form that both decoders read alike, it is in doubt.

    Raises:
        pa.ArrowInvalid: a text is no date or timestamp at all.
    """
    # Arrow takes times without seconds, and offsets without a colon.
    if pa.types.is_timestamp(kind) and not _all_in_utc_with_seconds(values, kind):
        plain = pc.equal(pc.utf8_slice_codeunits(values, 16, 17), ":")
        if kind.tz is not None:
            colon = pc.equal(pc.utf8_slice_codeunits(values, -3, -2), ":")
            plain = pc.and_(plain, pc.or_(pc.ends_with(values, "Z"), colon))
        _exclude(good, pc.invert(plain))
    moments = values.cast(kind)
    good &= ~outside_calendar(moments)
    return moments


def _all_in_utc_with_seconds(values: pa.ChunkedArray, kind: pa.DataType) -> bool:
    """Whether all texts have the most frequent form, told by its length: without seconds, a time in UTC is shorter."""
    shortest = len("2013-01-05T12:00:00Z")
    if kind.tz is None or (pc.min(pc.binary_length(values)).as_py() or 0) < shortest:
        return False
    return bool(pc.all(pc.ends_with(values, "Z")).as_py())


def outside_calendar(moments: pa.ChunkedArray) -> Mask:
    """Which dates or timestamps have no place in Python's calendar, the years 1 to 9999; False for nulls.

    Nothing shows a moment in another zone than UTC, where its day could be another.
    """
    first, last = (pa.scalar(moment, pa.timestamp("us")).cast(moments.type) for moment in (FIRST, LAST))
    span = pc.min_max(moments)
    if not span["min"].is_valid or (first.value <= span["min"].value and span["max"].value <= last.value):
        return np.zeros(len(moments), dtype=np.bool_)
    return _mask(pc.or_(pc.less(moments, first), pc.greater(moments, last)))


def _exclude(good: Mask, doubtful: pa.ChunkedArray) -> None:
    if pc.any(doubtful).as_py():
        good &= ~_mask(doubtful)


def _mask(values: pa.ChunkedArray) -> Mask:
    mask: Mask = pc.fill_null(values, fill_value=False).to_numpy(zero_copy_only=False)
    return mask
