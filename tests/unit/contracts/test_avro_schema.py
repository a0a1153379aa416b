# ruff: noqa: E501 (tables of texts)
"""What is written by a contract's Avro schema comes out of the decoder as it went in."""

import io
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshdata.contracts import load_contract
from freshdata.contracts.avro_schema import avro_schema
from freshdata.contracts.decode import Decoder
from freshdata.registry import Schema, framed
from tests.unit.contracts.test_columnar import SENT_AT, TYPES

PRICE = '      - {name: price, logicalType: number, physicalType: "decimal(20,4)"}\n'
MIXED = "      - {name: size, logicalType: string, physicalType: string, enum: [{value: s}, {value: x-large}]}\n"
TEXT = st.text(st.characters(codec="utf-8"))
MOMENTS = st.datetimes(datetime(1, 1, 3), datetime(2013, 1, 5))  # noqa: DTZ001
OPTIONAL = {
    "local": st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29)), "day": st.dates(date(1, 1, 3), date(9999, 12, 29)),  # noqa: DTZ001
    "small": st.integers(-(2**31), 2**31 - 1), "large": st.integers(-4, 2**63 - 1), "real": st.floats(-1e300, 1e300),
    "flag": st.booleans(), "word": st.text(st.characters(codec="utf-8"), min_size=1, max_size=3),
    "code": st.text("ABC", min_size=1), "kind": st.sampled_from("ab"), "level": st.sampled_from([0, 1]),
    "price": st.decimals("-9999999999999999.9999", "9999999999999999.9999", places=4), "size": st.sampled_from(["s", "x-large"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    path = tmp_path_factory.mktemp("contract") / "things.odcs.yaml"
    path.write_text(TYPES.replace("UNKNOWN", "quarantine").replace("slaProperties", f"{PRICE}{MIXED}slaProperties"))
    contract = load_contract(path)
    schema = fastavro.parse_schema(avro_schema(contract))
    text = json.dumps(avro_schema(contract))
    return schema, Decoder(contract, lambda number: Schema(number, "AVRO", text))


@given(
    key=TEXT,
    tenant=TEXT,
    at=MOMENTS,
    rest=st.fixed_dictionaries({}, optional={name: st.none() | value for name, value in OPTIONAL.items()}),
)
def test_every_event_of_the_contract_comes_through(sides, key, tenant, at, rest):
    schema, decoder = sides
    event = {"id": key, "tenant_id": tenant, "event_time": at.replace(tzinfo=UTC), **rest}
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, schema, event)
    decoded = decoder([framed(1, stream.getvalue())], None, np.full(1, SENT_AT))
    assert decoded.rejected == []
    assert decoded.rows.to_pylist() == [dict.fromkeys(OPTIONAL) | event]


def test_what_the_schema_says_of_each_type(sides):
    fields = {field["name"]: field for field in sides[0]["fields"]}
    assert fields["id"]["type"] == "string"
    assert "default" not in fields["id"]
    assert fields["small"]["type"] == ["null", "int"]
    assert fields["small"]["default"] is None
    assert fields["kind"]["type"][1]["symbols"] == ["a", "b"]
    # No name in Avro; a number; the worker checks them.
    assert fields["size"]["type"] == ["null", "string"]
    assert fields["level"]["type"] == ["null", "int"]
    assert fields["price"]["type"][1] == {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 4}


def test_the_sample_s_contracts_have_schemas_that_avro_takes(contracts):
    for contract in contracts.values():
        fastavro.parse_schema(avro_schema(contract))


def test_microseconds_and_the_last_digits_survive(sides):
    schema, decoder = sides
    event = {
        "id": "k", "tenant_id": "t", "event_time": datetime(2013, 1, 5, tzinfo=UTC) + timedelta(microseconds=1),
        "price": Decimal("1234567890123456.7891"),
    }  # fmt: skip
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, schema, event)
    [row] = decoder([framed(1, stream.getvalue())], None, np.full(1, SENT_AT)).rows.to_pylist()
    assert (row["event_time"], row["price"]) == (event["event_time"], event["price"])
