# ruff: noqa: E501 (tables of texts)
"""The columnar parser never takes what the row decoder refuses, and reads the same values."""

import json
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshdata.contracts import load_contract
from freshdata.contracts.decode import Decoder
from freshdata.contracts.json_schema import json_schema
from tests.streams import START, flight_event

SENT_AT = int(START.timestamp() * 1000) + 3_600_000
TYPES = """\
apiVersion: v3.2.0
kind: DataContract
id: urn:test
version: 1.0.0
status: active
schema:
  - name: things
    customProperties:
      - {property: messageKey, value: id}
      - {property: dedupeKey, value: [id]}
      - {property: maxFuture, value: P40000D}
      - {property: unknownFieldPolicy, value: UNKNOWN}
    properties:
      - {name: id, logicalType: string, physicalType: string, primaryKey: true, required: true}
      - {name: tenant_id, logicalType: string, physicalType: string, required: true}
      - {name: event_time, logicalType: timestamp, physicalType: timestamptz, required: true}
      - {name: local, logicalType: timestamp, physicalType: timestamp_ntz}
      - {name: day, logicalType: date, physicalType: date}
      - {name: small, logicalType: integer, physicalType: int}
      - {name: large, logicalType: integer, physicalType: bigint, logicalTypeOptions: {exclusiveMinimum: -5}}
      - {name: real, logicalType: number, physicalType: double, logicalTypeOptions: {maximum: 1.0e+300}}
      - {name: flag, logicalType: boolean, physicalType: boolean}
      - {name: word, logicalType: string, physicalType: string, logicalTypeOptions: {minLength: 1, maxLength: 3}}
      - {name: code, logicalType: string, physicalType: string, logicalTypeOptions: {pattern: "^[A-Z]+$"}}
      - {name: kind, logicalType: string, physicalType: string, enum: [{value: a}, {value: b}]}
      - {name: level, logicalType: integer, physicalType: int, enum: [{value: 0}, {value: 1}]}
slaProperties:
  - {property: freshness, value: 1, unit: h}
"""
GOOD = {
    "id": "k", "tenant_id": "t", "event_time": "2013-01-05T12:00:00Z", "local": "2013-01-05T12:00:00",
    "day": "2013-01-05", "small": 1, "large": 2, "real": 1.5, "flag": True, "word": "abc", "code": "A", "kind": "a",
    "level": 1,
}  # fmt: skip
TIMES = [
    "2013-01-05T12:00:00Z", "2013-01-05 12:00:00Z", "2013-01-05t12:00:00z", "2013-01-05T12:00Z", "2013-01-05T12Z",
    "2013-01-05T12:00+00:00", "2013-01-05T12:00:00+0000", "2013-01-05T12:00:00+00", "2013-01-05T12:00:00-05:30",
    "2013-01-05T12:00:00+24:00", "2013-01-05T12:00:00+23:59", "2013-01-05T12:00:00+99:99", "2013-01-05T12:00:00",
    "2013-01-05T12:00:00.1Z", "2013-01-05T12:00:00.123456Z", "2013-01-05T12:00:00.1234567Z", "2013-01-05T12:00:00.Z",
    "2013-01-05T12:00:60Z", "2013-01-05T24:00:00Z", "2013-01-05T12:60:00Z", "2013-02-30T12:00:00Z", "2013-01-05",
    "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "10000-01-01T00:00:00Z",
    " 2013-01-05T12:00:00Z", "2013-01-05T12:00:00Z ", "2013-01-05T12:00:00ZZ", "2013-01-05T12:00:00 +00:00", "",
    "2013-01-05T12:00:00.123456", "2013-01-05T12:00:00\u2212:00", "2013-01-05T12:00:0:Z", "-013-01-05T12:00:00Z",
    "2013-1-05T12:00:00Z", "2013-01-05T12:00:00\u00e9:00", "2013-01-05T12:00:00+1:000", "20130105T12:00:00Z",
]  # fmt: skip
DATES = ["2013-01-05", "2013-02-29", "0000-01-01", "0001-01-01", "9999-12-31", "2013-1-5", "20130105", " 2013-01-05",
         "2013-01-05T00:00:00", "2013-01-05Z", ""]  # fmt: skip
# JSON texts, not values: what matters is how they are written.
NUMBERS = ["1", "-1", "0", "-0", "1.0", "1e2", "1E2", "01", "+1", "1.", ".5", "NaN", "Infinity", "-Infinity", "1e400",
           "2147483647", "2147483648", "-2147483649", "9223372036854775807", "9223372036854775808", "-5", "-4",
           "0.1", "1e-400", "123456789.123456789123456789", "1e300", "1.1e300", "1" * 400, '"1"', "true", "0x1", "1_0",
           "null", "[]", "{}", "[1]"]  # fmt: skip
WORDS = ['"a"', '""', '"abcd"', '"\u00e9\u00e9\u00e9"', '"\\u00e9"', '"\\ud83d\\ude00"', '"\\ud800"', '"\\x"', '"a\nb"', '"A\\n"',
         '"\\u0000"', '"A"', "'a'", "a", '"b"', "1", "null", "true", '"a" ', '"a"b', "false", '"\u2028"']  # fmt: skip
PLACES = {
    "event_time": [json.dumps(t) for t in TIMES] + ["1357387200", "null", "1.5"],
    "local": [json.dumps(t) for t in TIMES] + ["1357387200", "null"],
    "day": [json.dumps(t) for t in DATES] + ["15710", "null"],
    "small": NUMBERS, "large": NUMBERS, "real": NUMBERS, "level": NUMBERS, "flag": [*WORDS, "0", "1", '"true"'],
    "word": WORDS, "code": WORDS, "kind": WORDS, "id": WORDS, "tenant_id": WORDS,
}  # fmt: skip


@pytest.fixture(scope="module", params=["quarantine", "ignore", "keep"])
def decoders(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("contract") / "things.odcs.yaml"
    path.write_text(TYPES.replace("UNKNOWN", request.param))
    fast, rows = Decoder(load_contract(path)), Decoder(load_contract(path))
    rows._parse = None
    return fast, rows


def written(**texts):
    pairs = {name: json.dumps(value) for name, value in GOOD.items()} | texts
    return ("{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in pairs.items()) + "}").encode()


def decide(decoder, values):
    keys = [b"k"] * len(values)
    decoded = decoder(values, keys, np.full(len(values), SENT_AT))
    # As text: equality would not tell 1 from 1.0, or -0.0 from 0.
    return decoded.positions.tolist(), [str(row) for row in decoded.rows.to_pylist()], decoded.rejected


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in PLACES.items() for text in texts])
def test_every_way_to_write_a_value_is_decided_alike(decoders, name, text):
    values = [written(), written(**{name: text}), written()]
    assert decide(decoders[0], values) == decide(decoders[1], values)


SHAPES = [
    None, b"", b" ", b"{", b"}", b"{}", b"null", b"[]", written()[:-1], written()[1:], written() + b"\n", b" " + written(),
    written() + written(), written() + b"\n" + written(), written() + b",", written().replace(b",", b",\n", 3),
    written(extra="1"), written(extra="[" * 150 + "]" * 150), written(extra='{"a":' * 90 + "1" + "}" * 90), b"\xff" + written(),
    written(word='"\xff"').replace(b"\xc3\xbf", b"\xff"), written()[:-1] + b', "small": 7}', b"\xef\xbb\xbf" + written(),
    written()[:-1] + b', "real": {}', b', "kind": "a"}', b'{"id": "k"}', written(word='"{"'), written(word='"}'), b'"}',
    written().replace(b'"word"', b'"\\u0077ord"'), written() + b"\x00", b"{" * 200_000, b"// {\n" + written(),
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(picks=st.lists(st.integers(0, len(SHAPES) - 1), min_size=1, max_size=6))
def test_messages_never_run_into_one_another(decoders, picks):
    values = [SHAPES[pick] for pick in picks]
    assert decide(decoders[0], values) == decide(decoders[1], values)


def test_clean_messages_are_not_decoded_one_by_one(contracts):
    """Otherwise it would be right, and several times slower, and no other test would tell."""
    decoder = Decoder(contracts["flight_events"])
    decoder._judge.message = lambda _: pytest.fail("the row decoder was asked")
    values = [json.dumps(flight_event(number)).encode() for number in range(5000)]
    keys = [f"UA-{number:06d}-dep".encode() for number in range(5000)]
    decoded = decoder(values, keys, np.full(5000, SENT_AT + 10**9))
    assert decoded.positions.tolist() == list(range(5000))
    assert decoded.rows["event_id"].cast(pa.binary()).to_pylist() == keys


def test_a_few_bad_messages_leave_the_others_in_order(contracts):
    chance = random.Random(5)  # noqa: S311 - a seeded test
    events = [flight_event(number) for number in range(6000)]
    values = [json.dumps(event).encode() for event in events]
    keys = [event["event_id"].encode() for event in events]
    bad = {
        n: chance.choice([b"{", None, values[n].replace(b"EWR", b"ewr"), values[n] + b"x"]) for n in range(7, 6000, 301)
    }
    decoded = Decoder(contracts["flight_events"])(
        [bad.get(n, value) for n, value in enumerate(values)], keys, np.full(6000, SENT_AT + 10**9)
    )
    assert [position for position, _ in decoded.rejected] == sorted(bad)
    assert decoded.positions.tolist() == [n for n in range(6000) if n not in bad]
    assert decoded.rows["event_id"].to_pylist() == [f"UA-{n:06d}-dep" for n in range(6000) if n not in bad]


NAMED = TYPES.replace("{name: word,", "{name: word, physicalName: theWord,").replace(
    "{name: id, ", '{name: id, physicalName: "event-Id", '
)


@pytest.mark.parametrize("policy", ["quarantine", "ignore", "keep"])
def test_a_field_has_the_name_in_events_that_its_physical_name_says(tmp_path, policy):
    path = tmp_path / "things.odcs.yaml"
    path.write_text(NAMED.replace("UNKNOWN", policy))
    contract = load_contract(path)
    event = {{"id": "event-Id", "word": "theWord"}.get(name, name): value for name, value in GOOD.items()}
    # The second has a zone without a colon, which only the row decoder reads.
    events = [event, event | {"event_time": "2013-01-05T12:00:00+0000"}, GOOD]
    values = [json.dumps(each).encode() for each in events]
    decoded = Decoder(contract)(values, [b"k"] * 3, np.full(3, SENT_AT))
    assert decoded.positions.tolist() == [0, 1]
    assert decoded.rows["id"].to_pylist() == ["k", "k"]
    assert decoded.rows["word"].to_pylist() == ["abc", "abc"]
    if policy == "keep":
        assert decoded.rows["_extra"].to_pylist() == [None, None]
    assert ("unknown field" if policy == "quarantine" else "event-Id") in decoded.rejected[0][1]
    schema = json_schema(contract)
    assert "event-Id" in schema["required"]
    assert "theWord" in schema["properties"]
