"""PostgreSQL's types as a contract's: exact, or refused."""

from dataclasses import dataclass
from typing import Any

from freshdata.cdc.inspection import SourceColumn

LONGEST_DECIMAL = 38
MODIFIER_HEADER = 4  # bytes that the modifiers of numeric and varchar count themselves
SIMPLE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bool": ("boolean", "boolean", {}),
    "int2": ("integer", "int", {}),
    "int4": ("integer", "int", {}),
    "int8": ("integer", "bigint", {}),
    "oid": ("integer", "bigint", {}),
    "float4": ("number", "double", {}),
    "float8": ("number", "double", {}),
    "money": ("number", "decimal(19,2)", {}),
    "date": ("date", "date", {}),
    "time": ("time", "time", {}),
    "timestamp": ("timestamp", "timestamp_ntz", {"timezone": False}),
    "timestamptz": ("timestamp", "timestamptz", {"timezone": True}),
    "bytea": ("string", "binary", {"format": "binary"}),
    "uuid": ("string", "string", {"format": "uuid"}),
    "json": ("string", "string", {"format": "json"}),
    "jsonb": ("string", "string", {"format": "json"}),
    **{
        name: ("string", "string", {})
        for name in (
            *("text", "varchar", "bpchar", "citext", "xml", "interval", "inet", "cidr", "macaddr", "macaddr8"),
            *("ltree", "tsvector", "int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange"),
        )
    },
}
# A value of these that a change does not touch arrives as a marker that can be told from every value. One of another
# type may arrive as null, which cannot: Debezium 3.7 does so with arrays of numerics, floats and timestamps.
MARKED = {"text", "varchar", "bpchar", "json", "jsonb", "bytea"}


@dataclass(frozen=True)
class FieldType:
    """A contract's form of a column's type.

    Attributes:
        logical: ODCS logical type.
        physical: The contract's physical type.
        options: ODCS ``logicalTypeOptions``.
        enum: The only values, or an empty tuple.
    """

    logical: str
    physical: str
    options: dict[str, Any]
    enum: tuple[str, ...] = ()


class UnmappedTypeError(Exception):
    """A column's type has no exact counterpart; the text says why."""


def field_type(column: SourceColumn) -> FieldType:
    """The contract's form of a column's type.

    Raises:
        UnmappedTypeError: it has none that would keep every value as it is.
    """
    if column.generated:
        raise UnmappedTypeError("PostgreSQL computes it, and does not replicate what it computes")
    element = _element(column)
    if not column.array:
        return element
    if column.dimensions > 1:
        raise UnmappedTypeError("Debezium loses the values of arrays of more than one dimension")
    return FieldType("array", f"array<{element.physical}>", {})


def needs_full_identity(column: SourceColumn) -> bool:
    """Whether an untouched value of this column is only told when the table's REPLICA IDENTITY is FULL."""
    if not column.toastable or (column.type in MARKED and not column.array):
        return False
    # A number of a limited precision is never so long that it is stored apart.
    return column.array or column.type != "numeric" or column.modifier == -1


def _element(column: SourceColumn) -> FieldType:
    if column.kind == "e":
        return FieldType("string", "string", {}, tuple(column.labels))
    if column.type == "numeric":
        return _numeric(column.modifier)
    if column.type == "bit" and column.modifier == 1 and not column.array:
        return FieldType("boolean", "boolean", {})
    if column.type == "timetz":
        raise UnmappedTypeError("Debezium moves its values to UTC")
    if column.type not in SIMPLE or column.kind not in "br":
        raise UnmappedTypeError("the type has no counterpart")
    logical, physical, options = SIMPLE[column.type]
    if column.type in ("varchar", "bpchar") and column.modifier != -1:
        options = {"maxLength": column.modifier - MODIFIER_HEADER}
    return FieldType(logical, physical, dict(options))


def _numeric(modifier: int) -> FieldType:
    if modifier == -1:
        # Up to 131,072 digits: only their text keeps them all.
        return FieldType("string", "string", {})
    precision, scale = (modifier - MODIFIER_HEADER) >> 16, (modifier - MODIFIER_HEADER) & 0x7FF
    scale = (scale ^ 0x400) - 0x400  # Eleven bits with a sign.
    if scale < 0:
        raise UnmappedTypeError("its scale is below zero")
    if max(precision, scale) > LONGEST_DECIMAL:
        return FieldType("string", "string", {})
    return FieldType("number", f"decimal({max(precision, scale)},{scale})", {})
