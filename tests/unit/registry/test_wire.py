"""Messages that name their schema, and Avro payloads as their schema wrote them."""

import io
import json
import uuid

import fastavro
import pytest

from freshdata.errors import SchemaError
from freshdata.registry import Schema, framed, unframed
from freshdata.registry.schemas import avro_reader

FIELDS = [
    {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
    {"name": "note", "type": ["null", "string"], "default": None},
    {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": [
        {"name": "sku", "type": "string"}, {"name": "count", "type": "int"}]}}},
]  # fmt: skip
ORDER = {"type": "record", "name": "Order", "fields": FIELDS}
ROW = {"id": str(uuid.UUID(int=7)), "note": None, "lines": [{"sku": "a", "count": 2}]}


def payload(record):
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(ORDER), record)
    return stream.getvalue()


@pytest.mark.parametrize(
    "message", [None, b"", b"\x00", b"\x00\x00\x00\x01", b'{"a": 1}', b" {}", b"\x01\x00\x00\x00\x01x"]
)
def test_other_messages_are_not_in_the_wire_format(message):
    assert unframed(message) is None


@pytest.mark.parametrize("schema", [0, 1, 2**31, 2**32 - 1])
def test_what_is_framed_is_unframed(schema):
    assert unframed(framed(schema, b"{}")) == (schema, b"{}")
    assert unframed(framed(schema, b"")) == (schema, b"")


def test_a_payload_is_read_as_it_was_written():
    assert avro_reader(Schema(1, "AVRO", json.dumps(ORDER)))(payload(ROW)) == ROW


def test_a_schema_may_refer_to_others():
    line = FIELDS[2]["type"]["items"]
    split = ORDER | {"fields": [*FIELDS[:2], {"name": "lines", "type": {"type": "array", "items": "Line"}}]}
    assert avro_reader(Schema(1, "AVRO", json.dumps(split), (json.dumps(line),)))(payload(ROW)) == ROW


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        payload(ROW)[:-1],
        payload(ROW) + b"\x00",
        b"\xff" * 12,
        b"\x02\xff",
        payload(ROW)[3:],
        b"\x01" + payload(ROW),
    ],
)
def test_bytes_that_the_schema_did_not_write_are_refused(broken):
    with pytest.raises(ValueError, match="schema 1 did not write this"):
        avro_reader(Schema(1, "AVRO", json.dumps(ORDER)))(broken)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"type": "record"}',
        '"nonsense"',
        '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "Other"}]}',
    ],
)
def test_what_is_no_schema_is_said_to_be_none(text):
    with pytest.raises(SchemaError, match="Schema 7 is no Avro schema"):
        avro_reader(Schema(7, "AVRO", text))


@pytest.mark.parametrize("within", ["Node", ["null", "Node"], {"type": "array", "items": "Node"}])
def test_records_within_themselves_are_refused(within):
    """A deep one would not fail: it would end the process that reads it."""
    node = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": within}]}
    named = json.dumps({"type": "record", "name": "R", "fields": [{"name": "node", "type": "Node"}]})
    for schema in (Schema(7, "AVRO", json.dumps(node)), Schema(7, "AVRO", named, (json.dumps(node),))):
        with pytest.raises(SchemaError, match="has a record within itself"):
            avro_reader(schema)


def test_a_record_may_be_named_twice():
    twice = ORDER | {"fields": [*FIELDS, {"name": "free", "type": ["null", "Line"]}]}
    assert avro_reader(Schema(1, "AVRO", json.dumps(twice)))(payload(ROW) + b"\x00") == ROW | {"free": None}
