"""Decoding: rows stay aligned with messages, and every refused message is named with its reason."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from freshdata.contracts import load_contract
from freshdata.contracts.decode import Decoder, key_bytes
from freshdata.settings import PROJECT
from tests.streams import START, flight_event

SENT_AT = int(START.timestamp() * 1000) + 3_600_000


def decode(contract, *events, keys=None, timestamp=SENT_AT):
    values = [event if isinstance(event, bytes | None) else json.dumps(event).encode() for event in events]
    keys = keys or [e["event_id"].encode() if isinstance(e, dict) else b"k" for e in events]
    return Decoder(contract)(values, keys, np.full(len(values), timestamp))


def test_good_messages_keep_their_positions(contracts):
    decoded = decode(contracts["flight_events"], flight_event(1), b"{", flight_event(2), None, flight_event(3))
    assert decoded.positions.tolist() == [0, 2, 4]
    assert decoded.rows["event_id"].to_pylist() == ["UA-000001-dep", "UA-000002-dep", "UA-000003-dep"]
    assert [position for position, _ in decoded.rejected] == [1, 3]
    assert decoded.rows.schema == contracts["flight_events"].arrow_schema


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"flight": "7"}, "$.flight"),
        ({"flight": 0}, "$.flight"),
        ({"flight": 2**70}, "$.flight"),
        ({"flight": 1.5}, "$.flight"),
        ({"event_type": "landed"}, "$.event_type"),
        ({"tenant_id": "UA\n"}, "$.tenant_id"),
        ({"tenant_id": None}, "$.tenant_id"),
        ({"event_time": "2013-01-05T12:00:00"}, "timezone"),
        ({"event_time": 1357387200}, "$.event_time"),
        ({"flight_date": "2013-13-01"}, "$.flight_date"),
        ({"surprise": 1}, "unknown field"),
        ({"event_time": "2013-01-06T14:00:01+00:00"}, "after the record's timestamp"),
    ],
)
def test_an_event_that_breaks_the_contract_is_named_with_its_field(contracts, change, reason):
    decoded = decode(contracts["flight_events"], flight_event(1), flight_event(2, **change))
    assert decoded.positions.tolist() == [0]
    [(position, found)] = decoded.rejected
    assert position == 1
    assert reason in found


@pytest.mark.parametrize(
    "value",
    [None, b"", b"  \n", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 200_000, b'{"event_id": "\\ud800"}', b"\x00"],
)
def test_bytes_that_are_no_event_are_refused(contracts, value):
    decoded = decode(contracts["flight_events"], value, flight_event(1))
    assert decoded.positions.tolist() == [1]
    assert len(decoded.rejected) == 1


def test_a_missing_required_field_is_refused(contracts):
    event = flight_event(1)
    del event["origin"]
    assert "origin" in decode(contracts["flight_events"], event).rejected[0][1]


def test_the_message_key_must_be_the_dedupe_key(contracts):
    decoded = decode(contracts["flight_events"], flight_event(1), flight_event(2), keys=[None, b"other"])
    assert [reason for _, reason in decoded.rejected] == ["the message key is not the event's event_id"] * 2


def test_offsets_become_utc(contracts):
    decoded = decode(contracts["flight_events"], flight_event(1, scheduled_departure="2013-01-05T07:00:00-05:00"))
    assert decoded.rows["scheduled_departure"][0].as_py() == START


def test_unknown_fields_may_be_ignored(contracts):
    observation = {
        "observation_id": "EWR-20130105T1200Z",
        "tenant_id": "EWR",
        "event_time": START.isoformat(),
        "weather_date": "2013-01-05",
        "surprise": 1,
    }
    decoded = decode(contracts["weather"], observation, keys=[b"EWR-20130105T1200Z"])
    assert decoded.rows.num_rows == 1


def keeping(contract):
    """The contract with unknown fields kept."""
    return replace(contract, stream=replace(contract.rules, unknown_fields="keep"))


def test_unknown_fields_may_be_kept_as_they_are_written(contracts):
    contract = keeping(contracts["flight_events"])
    plain = json.dumps(flight_event(1)).encode()
    extra = b', "zeta": 1.10, "alpha": {"b": [1e400, 12345678901234567890.5], "a": null}, "_extra": "x"'
    extra += b', "\\u0062": "\\u00e9"}'
    decoded = decode(
        contract, plain, plain[:-1] + extra, plain[:-1] + b', "twice": 1, "other": 2, "twice": 3}',
        keys=[b"UA-000001-dep"] * 3,
    )  # fmt: skip
    assert decoded.rejected == []
    assert decoded.rows.schema == contract.arrow_schema
    assert decoded.rows.column_names[-1] == "_extra"
    kept = decoded.rows["_extra"].to_pylist()
    assert kept == [
        None,
        '{"zeta":1.10,"alpha":{"b": [1e400, 12345678901234567890.5], "a": null},"_extra":"x","b":"\\u00e9"}',
        '{"twice":3,"other":2}',
    ]
    assert list(json.loads(kept[1])) == ["zeta", "alpha", "_extra", "b"]


@pytest.mark.parametrize("value", [b'"\xff"', b"{", b"01", b"nope", b"[" * 200_000])
def test_an_unknown_field_that_is_no_json_is_refused_where_it_is_kept(contracts, value):
    contract = keeping(contracts["flight_events"])
    broken = json.dumps(flight_event(1)).encode()[:-1] + b', "x": ' + value + b"}"
    decoded = decode(contract, broken, flight_event(2), keys=[b"UA-000001-dep", b"UA-000002-dep"])
    assert decoded.positions.tolist() == [1]
    assert len(decoded.rejected) == 1


def test_a_value_arrow_refuses_costs_its_own_row_only(tmp_path):
    text = (PROJECT / "contracts" / "flight_events.odcs.yaml").read_text()
    path = tmp_path / "c.odcs.yaml"
    path.write_text(
        text.replace(
            "      - name: air_time\n        description: Minutes in the air.\n        logicalType: integer\n"
            "        physicalType: int\n        required: false\n"
            "        logicalTypeOptions: {minimum: 1, maximum: 1500}\n",
            "      - name: air_time\n        logicalType: number\n        physicalType: decimal(4,2)\n"
            "        required: false\n        logicalTypeOptions: {minimum: 1.5}\n",
        )
    )
    contract = load_contract(path)
    assert contract.arrow_schema.field("air_time").type == pa.decimal128(4, 2)
    decoded = decode(
        contract,
        flight_event(1, air_time="12.25"),
        flight_event(2, air_time="1234567.5"),
        flight_event(3),
        flight_event(4, air_time="1.49"),
        # Arrow itself would end the process.
        flight_event(5, air_time="1E-999999999"),
        flight_event(6, air_time="sNaN"),
        flight_event(7, air_time="1E999999999"),
    )
    assert decoded.positions.tolist() == [0, 2]
    reasons = dict(decoded.rejected)
    assert reasons.keys() == {1, 3, 4, 5, 6}
    assert all("$.air_time" in reason for reason in reasons.values())
    assert reasons[3] == "air_time breaks its limit ge 1.5 - at `$.air_time`"
    assert reasons[4] == "it has more than 38 decimals - at `$.air_time`"


def test_an_empty_batch_is_an_empty_table(contracts):
    assert decode(contracts["flight_events"]).rows.num_rows == 0


def test_without_keys_the_rows_tell_what_they_must_be(contracts):
    values = [json.dumps(flight_event(1)).encode(), b"{", json.dumps(flight_event(2, flight="x")).encode()]
    decoded = Decoder(contracts["flight_events"])(values, None, np.full(len(values), SENT_AT))
    assert decoded.positions.tolist() == [0]
    assert key_bytes(decoded.rows["event_id"]).to_pylist() == [b"UA-000001-dep"]
    assert [position for position, _ in decoded.rejected] == [1, 2]
