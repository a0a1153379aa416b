"""A schema as the registry holds it, and how Avro payloads are read by it."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from freshdata.errors import SchemaError


@dataclass(frozen=True)
class Schema:
    """A registered schema. What an id means never changes.

    Attributes:
        id: Its id in the registry.
        type: ``AVRO``, ``JSON`` or ``PROTOBUF``.
        text: The document.
        references: The documents that it refers to, each before those that refer to it.
    """

    id: int
    type: str
    text: str
    references: tuple[str, ...] = ()


def avro_reader(schema: Schema, *, logical: bool = True) -> Callable[[bytes], Any]:
    """What reads payloads that were written by an Avro schema; records become dictionaries.

    Args:
        schema: The schema.
        logical: Whether dates, times and decimals become Python's, or stay as they are written.

    The reader raises a ``ValueError`` for a payload that the schema did not write, or that goes on after its end.

    Raises:
        SchemaError: the document is no Avro schema, or a record of it is within itself.
    """
    import fastavro
    from fastavro.read import LOGICAL_READERS

    # Its own rounds what has more digits than it should, and takes minutes for a megabyte of them.
    LOGICAL_READERS["bytes-decimal"] = LOGICAL_READERS["fixed-decimal"] = _decimal
    named: dict[str, Any] = {}
    try:
        documents = [
            fastavro.parse_schema(_as_written(json.loads(text), logical=logical), named_schemas=named)
            for text in (*schema.references, schema.text)
        ]
    except (
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
        fastavro.schema.SchemaParseException,
        fastavro.schema.UnknownType,
    ) as error:
        raise SchemaError(schema.id, f"is no Avro schema: {error}.", remedy="Register a valid one.") from error
    # fastavro counts nothing: a message of a few bytes would become more than there is memory for, or end the process.
    levels: dict[str, int] = {}
    try:
        for document in documents[:-1]:
            _levels(document, levels)
        _levels(documents[-1], levels, outermost=True)
    except ValueError as error:
        raise SchemaError(schema.id, f"{error}, which is not read.", remedy="Send flat events.") from error
    read = fastavro.schemaless_reader

    def reader(payload: bytes) -> Any:
        stream = io.BytesIO(payload)
        try:
            record = read(stream, documents[-1])
        except UNREADABLE as error:
            raise ValueError(f"schema {schema.id} did not write this: {str(error) or type(error).__name__}") from error
        if stream.tell() != len(payload):
            raise ValueError(f"schema {schema.id} did not write this: {len(payload) - stream.tell()} bytes are left")
        return record

    return reader


def unscaled(data: bytes, scale: int) -> Decimal:
    """The decimal that an integer in big-endian bytes is, with a scale.

    Raises:
        ValueError: it has thousands of digits.
    """
    number = int.from_bytes(data, "big", signed=True)
    # Not by an operation: those round to the context's digits.
    return Decimal((int(number < 0), tuple(map(int, str(abs(number)))), -scale))


def _decimal(data: bytes, schema: Any, _reader_schema: Any = None) -> Decimal:
    return unscaled(data, schema.get("scale", 0))


MOST_LEVELS = 32  # A byte may become a value at each.
LEAVES = ("boolean", "int", "long", "float", "double", "bytes", "string", "fixed", "enum")
# What fastavro raises for bytes that its schema did not write.
UNREADABLE = (ValueError, EOFError, IndexError, KeyError, OverflowError, ArithmeticError, TypeError, MemoryError)


def _as_written(schema: Any, *, logical: bool) -> Any:
    """A schema whose UUIDs are read as the text that they are written as, or all values as they are written."""
    if isinstance(schema, list):
        return [_as_written(part, logical=logical) for part in schema]
    if isinstance(schema, dict):
        text = schema.get("logicalType") == "uuid" and schema.get("type") == "string"
        return {
            key: _as_written(value, logical=logical)
            for key, value in schema.items()
            if key != "logicalType" or (logical and not text)
        }
    return schema


def _levels(schema: Any, known: dict[str, int], *, outermost: bool = False) -> int:
    """How deep a parsed schema's values are.

    Args:
        schema: The schema.
        known: The levels of named types that are complete; gets those of this schema.
        outermost: Whether it is an event's: of its own fields, which come once, some may always be null.

    Raises:
        ValueError: they may be of any depth, or of any number in no bytes at all.
    """
    kind = _kind(schema)
    if kind in known:
        return known[kind]
    parts: list[Any] = []
    if isinstance(schema, list):
        parts = [part for part in schema if _kind(part) != "null"]  # There it has a byte: its place in the union.
    elif kind in ("record", "error"):
        parts = [field["type"] for field in schema["fields"]]
    elif kind in ("array", "map"):
        parts = [schema["items" if kind == "array" else "values"]]
    elif kind != "null" and kind not in LEAVES:
        raise ValueError("has a record within itself")
    if outermost:
        parts = [part for part in parts if _kind(part) != "null"]
    elif kind == "null" or (kind == "fixed" and not schema["size"]) or (kind in ("record", "error") and not parts):
        raise ValueError("has values of no bytes within others")
    found = 1 + max((_levels(part, known) for part in parts), default=0)
    if found > MOST_LEVELS:
        raise ValueError(f"has more than {MOST_LEVELS} levels")
    if isinstance(schema, dict) and "name" in schema:
        known[schema["name"]] = found
    return found


def _kind(schema: Any) -> str:
    return "union" if isinstance(schema, list) else str(schema["type"] if isinstance(schema, dict) else schema)
