"""Judge one event at a time, in full: the judge whom the faster parsers must agree with."""

import datetime as dt
import decimal
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec
import pyarrow as pa
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import astuple

from freshdata.contracts.model import Column, Contract

INTEGER_BOUNDS = {pa.int32(): (-(2**31), 2**31 - 1), pa.int64(): (-(2**63), 2**63 - 1)}
MOST_DECIMALS = 38  # Of any column. Arrow looks beyond its own memory for more.
Row = tuple[Any, ...]


class RowJudge:
    """Turns events into tuples of the contract's columns, and raises for those that break the contract.

    Raised are ``msgspec.MsgspecError`` and ``ValueError``, which say what is wrong and where, and what Python itself
    raises for text or nesting that is none.
    """

    def __init__(self, contract: Contract) -> None:
        policy = contract.rules.unknown_fields
        # A renamed field may come under an older name.
        names = [(column, column.source_name) for column in contract.columns]
        names += [(column, alias) for column in contract.columns for alias in column.aliases]
        fields = [_field(column, f"field_{place}") for place, (column, _) in enumerate(names)]
        written = {field[0]: name for field, (_, name) in zip(fields, names, strict=True)}
        row = msgspec.defstruct(
            "Row", fields, kw_only=True, gc=False, forbid_unknown_fields=policy == "quarantine", rename=written
        )
        self._row = row
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(row).decode
        self._fields: Callable[[bytes], dict[str, Any]] | None = None
        if policy == "keep":
            self._fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
        self._known = set(written.values())
        self._settle = _settler(contract.columns)
        self._numbers = [place for place, column in enumerate(contract.columns) if pa.types.is_floating(column.type)]
        self._decimals = [place for place, column in enumerate(contract.columns) if pa.types.is_decimal(column.type)]
        self._columns = contract.columns

    def message(self, value: bytes) -> Row:
        """The columns of a JSON message.

        Unknown fields that are kept come last, as a JSON object in the message's order, or None without any. Values
        stay as they are written, so that no digit of a number is lost; of a field that comes twice the last one counts,
        as it does for known ones.
        """
        row = self._exact(self._settle(astuple(self._decode(value))))
        return row if self._fields is None else (*row, self._kept(self._fields(value)))

    def record(self, record: Any) -> Row:
        """The columns of a record that was decoded already."""
        row = self._exact(self._settle(astuple(msgspec.convert(record, self._row))))
        for place in self._numbers:  # JSON has no others.
            if row[place] is not None and not math.isfinite(row[place]):
                raise ValueError(f"{row[place]} is no number - at `$.{self._columns[place].source_name}`")
        return row if self._fields is None else (*row, self._kept(record))

    def _exact(self, row: Row) -> Row:
        for place in self._decimals:
            if row[place] is not None:
                try:
                    exact(row[place])
                except ValueError as error:
                    raise ValueError(f"{error} - at `$.{self._columns[place].source_name}`") from error
        return row

    def _kept(self, fields: dict[str, Any]) -> str | None:
        unknown = {name: value for name, value in fields.items() if name not in self._known}
        return msgspec.json.encode(unknown).decode() if unknown else None


def exact(number: decimal.Decimal) -> decimal.Decimal:
    """A decimal that Arrow can be given, be it too large for its column.

    Raises:
        ValueError: it is no number, or has more decimals than any column.
    """
    if not number.is_finite():
        raise ValueError(f"{number} is no number")
    if -int(number.as_tuple().exponent) > MOST_DECIMALS:
        raise ValueError(f"it has more than {MOST_DECIMALS} decimals")
    return number


def _field(column: Column, name: str) -> tuple[str, Any] | tuple[str, Any, Any]:
    python = _python_type(column)
    if column.aliases:
        return name, (python if column.required else python | None) | UnsetType, UNSET
    return (name, python) if column.required else (name, python | None, None)


def _settler(columns: Sequence[Column]) -> Callable[[Row], Row]:
    """What takes a renamed field from the name that it came under."""
    places: dict[int, list[int]] = {}
    end = len(columns)
    for place, column in enumerate(columns):
        if column.aliases:
            places[place] = [place, *range(end, end + len(column.aliases))]
            end += len(column.aliases)
    if not places:
        return lambda row: row

    def settle(row: Row) -> Row:
        values = list(row[: len(columns)])
        for place, candidates in places.items():
            value = next((row[candidate] for candidate in candidates if row[candidate] is not UNSET), UNSET)
            if value is UNSET and columns[place].required:
                raise ValueError(f"Object missing required field `{columns[place].source_name}`")
            values[place] = None if value is UNSET else value
        return tuple(values)

    return settle


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
