# ruff: noqa: E501 (tables of texts)
"""The columnar reader of Avro never takes what the row decoder refuses, and reads the same values."""

import io
import json
from datetime import UTC, date, datetime

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshdata.contracts import decode, load_contract
from freshdata.contracts.decode import Decoder
from freshdata.registry import Schema, framed
from tests.unit.contracts.test_columnar import SENT_AT, TYPES

MOMENT = {"type": "long", "logicalType": "timestamp-micros"}
FIELDS = {
    "id": "string", "tenant_id": ["null", "string"], "event_time": MOMENT,
    "local": ["null", {"type": "long", "logicalType": "local-timestamp-millis"}],
    "day": ["null", {"type": "int", "logicalType": "date"}], "small": ["null", "int"], "large": ["null", "long"],
    "real": ["null", "double"], "flag": ["null", "boolean"], "word": ["null", "string"], "code": ["null", "string"],
    "kind": ["null", {"type": "enum", "name": "Kind", "symbols": ["a", "b", "c"]}], "level": ["null", "int"],
}  # fmt: skip
# As they are written, so that values which no date has are among them.
WRITTEN = st.fixed_dictionaries(
    {
        "id": st.text(max_size=3), "tenant_id": st.sampled_from([None, "t", ""]),
        "event_time": st.sampled_from([1357387200000000, 0, -(10**17), 10**18, 253402300799999999, 4 * 10**15, 2**62]),
    },
    optional={
        "local": st.sampled_from([None, 0, -1, 10**14, 10**18, -62135596800000, 253402300799999]),
        "day": st.sampled_from([None, 0, -719162, 2932896, 2932897, -719163, 2**31 - 1, -(2**31)]),
        "small": st.none() | st.integers(-(2**31), 2**31 - 1), "large": st.none() | st.integers(-10, 10) | st.just(2**63 - 1),
        "real": st.sampled_from([None, 0.0, -0.0, 1.5, float("nan"), float("inf"), -float("inf"), 1e300, 2e300]),
        "flag": st.sampled_from([None, True, False]), "word": st.sampled_from([None, "", "abc", "abcd", "\u00e9\u00e9\u00e9", "\x00"]),
        "code": st.sampled_from([None, "A", "a", "A\n", ""]), "kind": st.sampled_from([None, "a", "b", "c"]),
        "level": st.sampled_from([None, 0, 1, 2]),
    },
)  # fmt: skip


def schema_of(fields, *, plain=False):
    text = {
        "type": "record",
        "name": "Thing",
        "fields": [
            {"name": n, "type": t, **({"default": None} if isinstance(t, list) else {})} for n, t in fields.items()
        ],
    }
    document = json.dumps(text)
    return json.loads(document.replace('"logicalType"', '"doc"')) if plain else document


@pytest.fixture(scope="module", params=["quarantine", "ignore", "keep"])
def contract(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("contract") / "things.odcs.yaml"
    path.write_text(TYPES.replace("UNKNOWN", request.param))
    return load_contract(path)


def decided(contract, fields, messages, fewest):
    """What becomes of messages when batches of so many are read column by column."""
    text, before = schema_of(fields), decode.FEWEST
    decode.FEWEST = fewest
    try:
        decoder = Decoder(contract, lambda number: Schema(number, "AVRO", text))
        decoded = decoder(messages, None, np.full(len(messages), SENT_AT))
    finally:
        decode.FEWEST = before
    return decoded.positions.tolist(), [str(row) for row in decoded.rows.to_pylist()], decoded.rejected


def payload(fields, record):
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema_of(fields, plain=True)), record)
    return framed(1, stream.getvalue())


@settings(max_examples=150)
@given(
    records=st.lists(WRITTEN, min_size=1, max_size=8), broken=st.sampled_from([None, None, b"", b"\x02", b"\xff" * 9])
)
def test_both_ways_decide_alike(contract, records, broken):
    messages = [payload(FIELDS, record) for record in records]
    messages += [] if broken is None else [framed(1, broken)]
    assert decided(contract, FIELDS, messages, 1) == decided(contract, FIELDS, messages, 10**9)


OTHER = [
    {"small": "long"}, {"real": "float"}, {"real": "long"}, {"event_time": {"type": "long", "logicalType": "timestamp-millis"}},
    {"event_time": "string"}, {"surprise": ["null", "int"]}, {"day": ["null", "int"]}, {"word": ["null", "string", "int"]},
    {"word": ["string", "null"]}, {"id": {"type": "string", "logicalType": "uuid"}}, {"large": "int"},
]  # fmt: skip


@pytest.mark.parametrize("types", OTHER, ids=str)
def test_schemas_that_are_written_otherwise_are_decided_alike(contract, types):
    record = {
        "id": "k",
        "tenant_id": "t",
        "event_time": 1357387200000000,
        "small": 1,
        "large": 1,
        "real": 1,
        "surprise": 3,
    }
    record |= {"event_time": "2013-01-05T12:00:00Z"} if types.get("event_time") == "string" else {}
    fields = FIELDS | types
    messages = [payload(fields, {name: record.get(name) for name in fields})] * 3
    assert decided(contract, fields, messages, 1) == decided(contract, fields, messages, 10**9)


def test_clean_messages_are_not_decoded_one_by_one(contract):
    text = schema_of(FIELDS)
    decoder = Decoder(contract, lambda number: Schema(number, "AVRO", text))
    decoder._judge.record = lambda _: pytest.fail("the row decoder was asked")
    record = {
        "id": "k",
        "tenant_id": "t",
        "event_time": 1357387200123456,
        "day": 15710,
        "local": 1357387200123,
        "small": 5,
    }
    decoded = decoder([payload(FIELDS, record)] * 3000, None, np.full(3000, SENT_AT))
    assert decoded.positions.tolist() == list(range(3000))
    [row] = decoded.rows.slice(2999).to_pylist()
    assert row["event_time"] == datetime(2013, 1, 5, 12, 0, 0, 123456, tzinfo=UTC)
    assert (row["day"], row["small"], row["word"]) == (date(2013, 1, 5), 5, None)
    assert row["local"] == datetime(2013, 1, 5, 12, 0, 0, 123000)  # noqa: DTZ001
