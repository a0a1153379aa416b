"""A schema as the registry holds it, and how Avro payloads are read by it."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
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
    if any(_recursive(document, frozenset()) for document in documents):
        # fastavro counts no levels: a few kilobytes of them would end the process.
        raise SchemaError(schema.id, "has a record within itself, which is not read.", remedy="Send flat events.")
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


def _recursive(schema: Any, within: frozenset[str]) -> bool:
    """Whether a parsed schema refers to a record from inside of it."""
    if isinstance(schema, str):
        return schema in within
    if isinstance(schema, list):
        return any(_recursive(part, within) for part in schema)
    if "fields" in schema:
        inner = within | {schema["name"]}
        return any(_recursive(field["type"], inner) for field in schema["fields"])
    return any(_recursive(schema[part], within) for part in ("items", "values") if part in schema)
