# ruff: noqa: E501 (tables of texts)
"""Messages that name their schema beside plain ones; renamed fields under their older names."""

import io
import json
import random
from datetime import UTC, date, datetime
from decimal import Decimal

import fastavro
import numpy as np
import pytest

from freshdata.contracts import load_contract
from freshdata.contracts.decode import Decoder
from freshdata.errors import RegistryDownError, SchemaError, SchemasUnknownError
from freshdata.registry import Schema, framed
from tests.unit.contracts.test_columnar import SENT_AT, TYPES, written

NAMED = TYPES.replace(
    "slaProperties", '      - {name: price, logicalType: number, physicalType: "decimal(5,2)"}\nslaProperties'
)
RENAMED = NAMED.replace(
    "name: word, logicalType: string", "name: text, customProperties: [{property: aliases, value: [word, term]}], logicalType: string"
).replace("{name: tenant_id,", "{name: tenant_id, customProperties: [{property: aliases, value: [tenant]}],")  # fmt: skip
MOMENT = {"type": "long", "logicalType": "timestamp-micros"}
FIELDS = {
    "id": "string", "tenant_id": "string", "event_time": MOMENT,
    "local": {"type": "long", "logicalType": "local-timestamp-millis"}, "day": {"type": "int", "logicalType": "date"},
    "small": "int", "large": "long", "real": "double", "flag": "boolean", "word": "string", "code": "string",
    "kind": {"type": "enum", "name": "Kind", "symbols": ["a", "b", "c"]}, "level": "int",
    "price": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
}  # fmt: skip
ROW = {
    "id": "k", "tenant_id": "t", "event_time": datetime(2013, 1, 5, 12, 0, 0, 123456, tzinfo=UTC),
    "local": datetime(2013, 1, 5, 12), "day": date(2013, 1, 5), "small": 1, "large": 2, "real": 1.5, "flag": True,  # noqa: DTZ001
    "word": "abc", "code": "A", "kind": "a", "level": 1, "price": Decimal("1.25"),
}  # fmt: skip


def avro(**types):
    """An Avro schema of the fields, some of them of other types."""
    fields = FIELDS | types
    required = {"id", "tenant_id", "event_time"}
    optional = [
        {"name": name, "type": kind if name in required or isinstance(kind, list) else ["null", kind]}
        for name, kind in fields.items()
        if kind
    ]
    return json.dumps({"type": "record", "name": "Thing", "fields": optional})


def payload(schema, record):
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(json.loads(schema)), record)
    return stream.getvalue()


class Registry:
    """Schemas by id; it can be down."""

    def __init__(self, **schemas):
        self.schemas, self.down, self.asked = {}, False, []
        for name, text in schemas.items():
            self.schemas[int(name[1:])] = text

    def __call__(self, number):
        self.asked.append(number)
        if self.down:
            raise RegistryDownError("http://registry", "refused")
        if number not in self.schemas:
            raise SchemaError(number, "is in no registry", remedy="")
        text = self.schemas[number]
        return Schema(number, "PROTOBUF" if text == "syntax" else "JSON" if text == "{}" else "AVRO", text)


@pytest.fixture
def contract(tmp_path):
    def load(text=NAMED, unknown="quarantine"):
        path = tmp_path / "things.odcs.yaml"
        path.write_text(text.replace("UNKNOWN", unknown))
        return load_contract(path)

    return load


def decode(contract, registry, *values, keys=None):
    decoded = Decoder(contract, registry)(list(values), keys, np.full(len(values), SENT_AT))
    return decoded.positions.tolist(), decoded.rows.to_pylist(), dict(decoded.rejected)


def test_avro_json_schema_and_plain_json_mix_on_one_topic_and_keep_their_order(contract):
    registry = Registry(_1=avro(), _2="{}")
    kinds = {
        "avro": framed(1, payload(avro(), ROW | {"id": "k"})),
        "schema": framed(2, written(price='"1.25"', event_time='"2013-01-05T12:00:00.123456Z"')),
        "plain": written(price='"1.25"', event_time='"2013-01-05T12:00:00.123456Z"'),
        "broken": b"{",
        "unknown": framed(9, b"{}"),
        "wrong": framed(1, b"\x02"),
    }
    chance = random.Random(3)  # noqa: S311 - a seeded test
    names = [chance.choice(list(kinds)) for _ in range(500)]
    positions, rows, rejected = decode(contract(), registry, *(kinds[name] for name in names))
    good = [number for number, name in enumerate(names) if name in ("avro", "schema", "plain")]
    assert positions == good
    assert all(row == ROW for row in rows)
    assert sorted(rejected) == [number for number in range(500) if number not in good]
    reasons = {names[number]: reason for number, reason in rejected.items()}
    assert reasons["unknown"] == "Schema 9 is in no registry"
    assert "schema 1 did not write this" in reasons["wrong"]
    # Each id once a batch, not once a message.
    assert sorted(registry.asked) == [1, 2, 9]


def test_schemas_that_most_messages_name_are_asked_for_before_those_of_junk(contract):
    registry = Registry(_7=avro())
    junk = [framed(number, b"junk") for number in range(100, 200)]
    positions, _, rejected = decode(contract(), registry, *junk, *[framed(7, payload(avro(), ROW))] * 2)
    assert registry.asked[0] == 7
    assert (positions, len(rejected)) == ([100, 101], 100)


def test_keys_may_name_their_schema_too(contract):
    whole = json.dumps({"type": "record", "name": "Key", "fields": [{"name": "id", "type": "string"}]})
    other = json.dumps({"type": "record", "name": "Key", "fields": [{"name": "number", "type": "int"}]})
    registry = Registry(_1='"string"', _2=whole, _3="{}", _4=other)
    keys = [
        b"k", framed(1, b"\x02k"), framed(2, b"\x02k"), framed(3, b'"k"'), framed(3, b'{"id": "k"}'),
        b"x", framed(1, b"\x02x"), framed(1, b"\x04k"), framed(3, b'"x"'), framed(3, b"k"), framed(4, b"\x02"), framed(9, b"k"), b"\0k", None,
    ]  # fmt: skip
    good = contract()
    event = written(price='"1.25"', event_time='"2013-01-05T12:00:00.123456Z"')
    positions, _, rejected = decode(good, registry, *[event] * len(keys), keys=keys)
    assert positions == [0, 1, 2, 3, 4]
    assert set(rejected.values()) == {"the message key is not the event's id"}
    registry.down = True
    with pytest.raises(SchemasUnknownError) as unknown:
        decode(good, registry, *[event] * 3, keys=[b"k", framed(8, b"\x02k"), b"x"])
    assert unknown.value.positions == [1]


@pytest.mark.parametrize(
    ("types", "change", "reason"),
    [
        ({"small": "long"}, {"small": 2**31}, "$.small"),
        ({}, {"large": -5}, "$.large"),
        ({}, {"real": float("nan")}, "$.real"),
        ({}, {"real": float("-inf")}, "-inf is no number - at `$.real`"),
        ({}, {"real": float("inf")}, "$.real"),
        ({}, {"word": "abcd"}, "$.word"),
        ({}, {"code": "a"}, "$.code"),
        ({}, {"kind": "c"}, "$.kind"),
        ({}, {"price": Decimal("1234.50")}, "$.price"),
        ({"word": "int"}, {"word": 5}, "Expected `str | null`, got `int`"),
        ({"event_time": "long"}, {"event_time": 5}, "$.event_time"),
        ({"event_time": {"type": "long", "logicalType": "local-timestamp-micros"}}, {"event_time": datetime(2013, 1, 5)}, "$.event_time"),  # noqa: DTZ001
        ({"event_time": "string"}, {"event_time": "2013-01-05"}, "$.event_time"),
        ({"id": None}, {}, "missing required field `id`"),
        ({"id": ["null", "string"]}, {"id": None}, "$.id"),
        ({"surprise": "int"}, {"surprise": 1}, "unknown field `surprise`"),
    ],
)  # fmt: skip
def test_avro_is_judged_as_json_is(contract, types, change, reason):
    schema = avro(**types)
    record = {name: value for name, value in (ROW | change).items() if (FIELDS | types).get(name)}
    positions, _, rejected = decode(contract(), Registry(_1=schema), framed(1, payload(schema, record)))
    assert positions == []
    assert reason in rejected[0]


@pytest.mark.parametrize(
    ("types", "change"),
    [
        ({"event_time": {"type": "long", "logicalType": "timestamp-millis"}}, {"event_time": datetime(2013, 1, 5, 12, tzinfo=UTC)}),
        ({"event_time": "string"}, {"event_time": "2013-01-05T12:00:00Z"}),
        ({"id": {"type": "string", "logicalType": "uuid"}}, {"id": "00000000-0000-0000-0000-000000000007"}),
        ({"large": "int"}, {"large": 7}),
        ({"real": "float"}, {"real": 0.5}),
        ({"real": "long"}, {"real": 3}),
        ({"price": "string"}, {"price": "1.25"}),
        ({"kind": "string"}, {"kind": "b"}),
        ({"word": None}, {}),
    ],
)  # fmt: skip
def test_writers_may_use_other_types_with_the_same_values(contract, types, change):
    schema = avro(**types)
    record = {name: value for name, value in (ROW | change).items() if (FIELDS | types).get(name)}
    _, [row], rejected = decode(contract(), Registry(_1=schema), framed(1, payload(schema, record)))
    assert not rejected
    expected = ROW | change
    if isinstance(expected["event_time"], str):
        expected["event_time"] = datetime(2013, 1, 5, 12, tzinfo=UTC)
    expected["price"] = Decimal("1.25")
    assert row == expected | ({"word": None} if types.get("word", 1) is None else {})


def test_an_avro_record_s_unknown_fields_are_kept_or_left_out(contract):
    schema = avro(surprise="int")
    message = framed(1, payload(schema, ROW | {"surprise": 4}))
    _, [row], _ = decode(contract(unknown="keep"), Registry(_1=schema), message)
    assert row["_extra"] == '{"surprise":4}'
    _, [row], _ = decode(contract(unknown="ignore"), Registry(_1=schema), message)
    assert row == ROW


def test_what_cannot_be_read_for_want_of_a_registry_is_told_from_what_does_not_exist(contract):
    registry = Registry(_1=avro(), _3="syntax")
    known, new = framed(1, payload(avro(), ROW)), framed(2, b"x")
    decoder = Decoder(contract(), registry)
    decoder([known], None, np.full(1, SENT_AT))
    registry.down = True
    assert decoder([known, written()], None, np.full(2, SENT_AT)).positions.tolist() == [0, 1]
    with pytest.raises(SchemasUnknownError) as waits:
        decoder([known, new, written(), new], None, np.full(4, SENT_AT))
    assert waits.value.positions == [1, 3]
    registry.down = False
    assert decode(contract(), registry, new, framed(3, b"x"))[2] == {
        0: "Schema 2 is in no registry",
        1: "Schema 3 is PROTOBUF, which is not read.",
    }
    assert "no registry is set" in decode(contract(), None, known)[2][0]


@pytest.mark.parametrize("unknown", ["quarantine", "ignore", "keep"])
def test_a_renamed_field_may_come_under_any_of_its_names(contract, unknown):
    renamed = contract(RENAMED, unknown)
    event = json.loads(written())
    del event["word"], event["tenant_id"]
    messages = [
        event | {"tenant_id": "t", "text": "new"}, event | {"tenant": "t", "word": "old"}, event | {"tenant_id": "t", "term": "old"},
        event | {"tenant_id": "t", "text": "new", "word": "old"}, event | {"tenant": "t", "text": None, "word": "old"},
        event | {"tenant_id": "t"}, event, event | {"tenant": None}, event | {"tenant_id": "t", "word": "abcd"},
    ]  # fmt: skip
    positions, rows, rejected = decode(renamed, None, *(json.dumps(message).encode() for message in messages))
    assert [row["text"] for row in rows] == ["new", "old", "old", "new", None, None]
    assert {row["tenant_id"] for row in rows} == {"t"}
    assert positions == [0, 1, 2, 3, 4, 5]
    assert "missing required field `tenant_id`" in rejected[6]
    assert "$.tenant" in rejected[7]
    assert "$.word" in rejected[8]
    schema = avro()
    _, [row], _ = decode(renamed, Registry(_1=schema), framed(1, payload(schema, ROW)))
    assert row["text"] == "abc"
