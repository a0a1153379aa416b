"""Rows as JSON: what a reader gets back is what the row held."""

import datetime as dt
import decimal
import json

import msgspec
import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from freshdata.contracts.decode import Decoder
from stream_workers.clean_json import encode_json

UTC = dt.UTC


def read(table):
    return [json.loads(value) for value in encode_json(table)]


def test_every_contract_type_is_written_without_loss():
    when = dt.datetime(2013, 1, 5, 12, 0, 30, 123456)  # noqa: DTZ001 - a local time
    row = {
        "text": 'a "quoted" \\ line\n\x01 ü',
        "small": -(2**31),
        "big": 2**63 - 1,
        "ratio": 0.1,
        "yes": True,
        "day": dt.date(2013, 1, 5),
        "at": when.replace(tzinfo=UTC),
        "local": when,
        "money": decimal.Decimal("12345678901234567890.10"),
    }
    kinds = [pa.string(), pa.int32(), pa.int64(), pa.float64(), pa.bool_(), pa.date32()]
    kinds += [pa.timestamp("us", "UTC"), pa.timestamp("us"), pa.decimal128(22, 2)]
    schema = pa.schema(list(zip(row, kinds, strict=True)))
    empty = dict.fromkeys(row)
    full, missing = read(pa.Table.from_pylist([row, empty], schema=schema))
    assert missing == empty
    assert list(full) == list(row)
    assert {name: full[name] for name in ("text", "small", "big", "ratio", "yes")} == {
        name: row[name] for name in ("text", "small", "big", "ratio", "yes")
    }
    assert full["day"] == "2013-01-05"
    assert dt.datetime.fromisoformat(full["at"]) == row["at"]
    assert dt.datetime.fromisoformat(full["local"]) == row["local"]
    assert decimal.Decimal(full["money"]) == row["money"]


def test_what_json_cannot_say_becomes_null():
    assert read(pa.table({"x": [1.5, float("nan"), float("inf"), -float("inf"), 1e300]})) == [
        {"x": 1.5}, {"x": None}, {"x": None}, {"x": None}, {"x": 1e300},
    ]  # fmt: skip


def test_however_arrow_holds_a_text_it_is_written_the_same():
    texts = pa.array(["x", None, "y", "x"])
    table = pa.table({"a": texts, "b": texts.dictionary_encode(), "c": texts.cast(pa.large_string())})
    assert read(table) == [{"a": text, "b": text, "c": text} for text in ("x", None, "y", "x")]


@given(st.lists(st.one_of(st.none(), st.text())))
def test_any_text_survives(texts):
    table = pa.table({"a": pa.array(texts, pa.string()), "b": pa.array(["x"] * len(texts), pa.string())})
    assert [msgspec.json.decode(value) for value in encode_json(table)] == [{"a": text, "b": "x"} for text in texts]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_any_finite_number_survives(numbers):
    assert [row["x"] for row in read(pa.table({"x": pa.array(numbers, pa.float64())}))] == numbers


def test_the_contract_accepts_its_own_published_fields(contracts):
    contract = contracts["weather"]
    values = {column.name: _valid(column) for column in contract.columns}
    rows = pa.Table.from_pylist([values], schema=contract.arrow_schema)
    [encoded] = encode_json(rows)
    key = str(values[contract.rules.dedupe_key[0]]).encode()
    decoded = Decoder(contract)([encoded], [key], np.array([1_600_000_000_000]))
    assert decoded.rejected == []
    assert decoded.rows.to_pylist() == rows.to_pylist()


def _valid(column):
    if column.enum:
        return column.enum[0]
    if not column.required:
        return None
    if pa.types.is_timestamp(column.type):
        return dt.datetime(2013, 1, 5, 12, tzinfo=UTC if column.type.tz else None)
    if pa.types.is_date(column.type):
        return dt.date(2013, 1, 5)
    return "EWR-2013010512" if column.type == pa.string() and "pattern" not in column.limits else "EWR"
