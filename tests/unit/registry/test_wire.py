"""Messages that name their schema, and Avro payloads as their schema wrote them."""

import io
import json
import uuid
from decimal import Decimal

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


def record(name, *types):
    return {"type": "record", "name": name, "fields": [{"name": f"f{n}", "type": kind} for n, kind in enumerate(types)]}


@pytest.mark.parametrize(
    "kind",
    [
        "null",
        {"type": "null"},
        {"type": "fixed", "name": "F", "size": 0},
        record("Empty"),
        record("Nulls", "boolean", "null"),
        record("Inner", record("Empty")),
        ["null", record("Nulls", "boolean", "null")],
    ],
)
def test_what_becomes_any_number_of_values_in_no_bytes_is_refused(kind):
    """An array's length is a number: of nothings, 2**60 are ten bytes, and keep who reads them busy for ever."""
    for around in (record("R", {"type": "array", "items": kind}), record("R", {"type": "map", "values": kind})):
        with pytest.raises(SchemaError, match="has values of no bytes within others"):
            avro_reader(Schema(7, "AVRO", json.dumps(around)))


def test_records_that_double_in_each_other_are_refused():
    doubling = [record("R0", "boolean"), *(record(f"R{n}", f"R{n - 1}", f"R{n - 1}") for n in range(1, 40))]
    for schema in (
        Schema(7, "AVRO", json.dumps(record("R", *doubling))),
        Schema(7, "AVRO", json.dumps(record("R", "R39")), tuple(map(json.dumps, doubling))),
    ):
        with pytest.raises(SchemaError, match="has more than 32 levels"):
            avro_reader(schema)
    with pytest.raises(SchemaError, match="has values of no bytes within others"):
        avro_reader(Schema(7, "AVRO", json.dumps(record("R", record("R0", "null"), record("R1", "R0", "R0")))))


def test_no_digit_of_a_decimal_is_lost_and_one_of_a_megabyte_is_refused_at_once():
    price = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
    read = avro_reader(Schema(1, "AVRO", json.dumps(record("R", price))))

    def written(number, length):
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, record("R", "bytes"), {"f0": number.to_bytes(length, "big", signed=True)})
        return stream.getvalue()

    assert read(written(-123456789012, 6)) == {"f0": Decimal("-1234567890.12")}
    with pytest.raises(ValueError, match="schema 1 did not write this: Exceeds the limit"):
        read(written(2**8_000_000, 1_000_001))


def test_a_field_may_always_be_null():
    always = record("R", "string", "null", {"type": "array", "items": ["null", "string"]})
    assert avro_reader(Schema(1, "AVRO", json.dumps(always)))(b"\x02a\x02\x00\x00") == {
        "f0": "a",
        "f1": None,
        "f2": [None],
    }


def test_a_record_may_be_named_twice():
    twice = ORDER | {"fields": [*FIELDS, {"name": "free", "type": ["null", "Line"]}]}
    assert avro_reader(Schema(1, "AVRO", json.dumps(twice)))(payload(ROW) + b"\x00") == ROW | {"free": None}
