# ruff: noqa: E501 (tables of texts)
"""The JSON Schema of a contract against what the worker takes of the same messages."""

import json

import jsonschema
import numpy as np
import pytest

from freshdata.contracts import load_contract
from freshdata.contracts.decode import Decoder
from freshdata.contracts.json_schema import json_schema
from tests.unit.contracts.test_columnar import PLACES, SENT_AT, TYPES, written

PRICE = '      - {name: price, logicalType: number, physicalType: "decimal(5,2)", logicalTypeOptions: {minimum: 0}}\n'
COUNT = '      - {name: count, logicalType: number, physicalType: "decimal(3,0)"}\n'
DECIMALS = [
    "1",
    '"1"',
    "1.25",
    '"1.25"',
    '"999.99"',
    "1000",
    '"1000"',
    "-1",
    '"1.255"',
    "null",
    "true",
    '"x"',
    '""',
    '"1e2"',
    "1.5",
    '"1.50"',
]
# Where the two differ, and must: a validator sees 1.0 as an integer, and knows no calendar and no clock.
ONLY_SCHEMA = {
    *[(name, text) for name in ("small", "large", "level") for text in ("1.0", "1e2", "1E2", "1e-400")],
    *[(name, text) for name in ("word", "id", "tenant_id") for text in ('"\\ud800"',)],  # Half a character.
    ("code", '"A\\n"'),  # Python's `$`, which is not that of JSON Schema.
    *[("event_time", json.dumps(text)) for text in (
        "2013-01-05T12:00:60Z", "2013-01-05T24:00:00Z", "2013-01-05T12:60:00Z", "2013-02-30T12:00:00Z",
        "0000-01-01T00:00:00Z", "9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00", "2013-01-05T12:00:00+24:00",
        "2013-01-05T12:00:00+99:99",
    )],
    ("day", '"2013-02-29"'), ("day", '"0000-01-01"'),
    ("price", "1.255"),
}  # fmt: skip


@pytest.fixture(scope="module", params=["quarantine", "ignore"])
def sides(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("contract") / "things.odcs.yaml"
    text = TYPES.replace("UNKNOWN", request.param).replace("slaProperties", f"{PRICE}{COUNT}slaProperties")
    path.write_text(text)
    contract = load_contract(path)
    return jsonschema.Draft202012Validator(json_schema(contract)), Decoder(contract)


def judged(sides, value):
    """Whether the schema and the worker take a message."""
    validator, decoder = sides
    decoded = decoder([value], None, np.full(1, SENT_AT))
    return validator.is_valid(json.loads(value)), len(decoded.positions) == 1


def is_json(text):
    """NaN and its like are none, whatever Python says."""
    try:
        json.loads(text, parse_constant=int)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (n, text)
        for n, texts in (PLACES | {"price": DECIMALS, "count": DECIMALS}).items()
        for text in texts
        if is_json(text)
    ],
)
def test_what_the_schema_allows_the_worker_takes(sides, name, text):
    by_schema, by_worker = judged(sides, written(**{name: text}))
    assert not by_schema or by_worker or (name, text) in ONLY_SCHEMA


@pytest.mark.parametrize("name", ["small", "large", "real", "flag", "word", "code", "kind", "level", "id", "tenant_id"])
def test_what_the_worker_takes_of_plain_types_the_schema_allows(sides, name):
    for text in filter(is_json, PLACES[name]):
        by_schema, by_worker = judged(sides, written(**{name: text}))
        assert by_schema or not by_worker, text


@pytest.mark.parametrize("missing", ["id", "tenant_id", "event_time", "small"])
def test_required_fields_and_unknown_ones(sides, missing):
    event = json.loads(written())
    without = {name: value for name, value in event.items() if name != missing}
    assert judged(sides, json.dumps(without).encode()) == ((missing == "small",) * 2)
    strict = not sides[0].schema["additionalProperties"]
    assert judged(sides, json.dumps(event | {"surprise": 1}).encode()) == ((not strict,) * 2)


def test_the_project_s_schemas_are_valid_in_both_drafts(contracts):
    for contract in contracts.values():
        schema = json_schema(contract)
        jsonschema.Draft7Validator.check_schema(schema)
        jsonschema.Draft202012Validator.check_schema(schema)
    flight = json_schema(contracts["flight_events"])["properties"]
    assert flight["tenant_id"]["pattern"] == "^[A-Z0-9]{2}$"
    assert flight["event_type"]["enum"] == ["departed", "arrived", "cancelled"]


def test_a_renamed_field_may_have_any_of_its_names(tmp_path):
    path = tmp_path / "things.odcs.yaml"
    older = "customProperties: [{property: aliases, value: [%s]}]"
    text = TYPES.replace("UNKNOWN", "quarantine")
    text = text.replace("{name: tenant_id,", f"{{name: tenant_id, {older % 'tenant'},")
    path.write_text(text.replace("{name: word,", f"{{name: word, deprecated: true, {older % 'term, text'},"))
    contract = load_contract(path)
    sides = jsonschema.Draft202012Validator(json_schema(contract)), Decoder(contract)
    event = {name: value for name, value in json.loads(written()).items() if name not in ("tenant_id", "word")}
    for changes, right in (
        ({"tenant_id": "t"}, True), ({"tenant": "t", "term": "abc"}, True), ({"tenant": "t", "text": None}, True),
        ({}, False), ({"tenant": None}, False), ({"tenant": "t", "term": "abcd"}, False), ({"tenant": "t", "other": 1}, False),
    ):  # fmt: skip
        assert judged(sides, json.dumps(event | changes).encode()) == (right, right), changes
    assert sides[0].schema["properties"]["word"]["deprecated"]
