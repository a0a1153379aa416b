"""Changes as Debezium 3.7 writes them, captured from a PostgreSQL, and what becomes of their values."""

import base64
import io
import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest

from freshdata.contracts import Contract, load_contract
from freshdata.contracts.changes import ChangeDecoder
from freshdata.contracts.decode import Decoded
from freshdata.contracts.evolution import compare
from freshdata.errors import ContractError
from freshdata.registry import Schema, framed
from tests.captures import UNTOLD, captured_contract

SOURCE: dict[str, Any] = {
    "version": "3.7.0.Final", "connector": "postgresql", "name": "shop", "ts_ms": 1795664317073, "snapshot": "false",
    "db": "shop", "sequence": '[null,"27320232"]', "ts_us": 1795664317073279, "ts_ns": 1795664317073279000,
    "schema": "public", "table": "customers", "txId": 742, "lsn": 27320232, "xmin": None,
}  # fmt: skip
ROW: dict[str, Any] = {
    "id": 9007199254740993, "City": "Köln", "note": None, "credit": "12.30", "born": 19782, "opens": 45296789012,
    "seen": 1709210096789012, "joined": "2024-02-29T10:34:56.789012Z", "tags": ["a", None, "c d"], "picture": "AP8Q",
    "visits": 3,
}  # fmt: skip


def contract(folder: Path, **replaced: str) -> Contract:
    text = captured_contract()
    for old, new in replaced.items():
        text = text.replace(old, new)
    path = folder / "customers.odcs.yaml"
    path.write_text(text)
    return load_contract(path)


def message(operation: str, before: Any, after: Any, **source: Any) -> bytes:
    change = {"before": before, "after": after, "source": SOURCE | source, "op": operation, "ts_ms": 1795664317092}
    return json.dumps(change | {"transaction": None}).encode()


@pytest.fixture
def decoder(tmp_path: Path) -> ChangeDecoder:
    return ChangeDecoder(contract(tmp_path))


def decode(decoder: ChangeDecoder, *values: bytes | None) -> Decoded:
    return decoder(list(values), None, np.zeros(len(values), np.int64))


def one(decoder: ChangeDecoder, value: bytes) -> dict[str, Any]:
    decoded = decode(decoder, value)
    assert decoded.rejected == []
    row: dict[str, Any] = decoded.rows.to_pylist()[0]
    return row


def test_every_type_keeps_its_value(decoder: ChangeDecoder) -> None:
    row = one(decoder, message("c", None, ROW))
    assert {name: row[name] for name in decoder.schema.names[:11]} == {
        "id": 9007199254740993,
        "city": "Köln",
        "note": None,
        "credit": Decimal("12.30"),
        "born": date(2024, 2, 29),
        "opens": time(12, 34, 56, 789012),
        "seen": datetime(2024, 2, 29, 12, 34, 56, 789012),  # noqa: DTZ001 - a timestamp without a zone.
        "joined": datetime(2024, 2, 29, 10, 34, 56, 789012, UTC),
        "tags": ["a", None, "c d"],
        "picture": b"\x00\xff\x10",
        "visits": 3,
    }
    assert {name: row[name] for name in ("_op", "_lsn", "_transaction", "_source", "_snapshot", "_before")} == {
        "_op": "c", "_lsn": 27320232, "_transaction": 742, "_source": "shop", "_snapshot": False, "_before": None,
    }  # fmt: skip
    assert row["_changed_at"] == datetime.fromtimestamp(1795664317.073279, UTC)


def test_a_schema_beside_the_change_says_what_its_numbers_mean(decoder: ChangeDecoder) -> None:
    fields = [
        {"field": "credit", "type": "bytes", "name": "org.apache.kafka.connect.data.Decimal",
         "parameters": {"scale": "2", "connect.decimal.precision": "10"}},
        {"field": "seen", "type": "int64", "name": "io.debezium.time.Timestamp"},
        {"field": "opens", "type": "int64", "name": "io.debezium.time.NanoTime"},
        {"field": "joined", "type": "string", "name": "io.debezium.time.ZonedTimestamp"},
    ]  # fmt: skip
    schema = {"type": "struct", "fields": [{"field": "after", "type": "struct", "fields": fields}]}
    unscaled = base64.b64encode((-1230).to_bytes(2, "big", signed=True)).decode()
    row = ROW | {"credit": unscaled, "seen": 1709210096789, "opens": 45296789012000}
    payload = json.loads(message("u", None, row))
    found = one(decoder, json.dumps({"schema": schema, "payload": payload}).encode())
    assert (found["credit"], found["opens"]) == (Decimal("-12.30"), time(12, 34, 56, 789012))
    assert found["seen"] == datetime(2024, 2, 29, 12, 34, 56, 789000)  # noqa: DTZ001 - as above.


AVRO = {
    "type": "record", "name": "Envelope", "namespace": "shop.public.customers", "fields": [
        {"name": "before", "type": ["null", {"type": "record", "name": "Value", "fields": [
            {"name": "id", "type": "long"}, {"name": "City", "type": ["null", "string"]},
            {"name": "credit", "type": ["null", "string"]},
            {"name": "born", "type": ["null", {"type": "int", "connect.name": "io.debezium.time.Date"}]},
            {"name": "seen", "type": ["null", {"type": "long", "connect.name": "io.debezium.time.MicroTimestamp"}]},
            {"name": "picture", "type": ["null", "bytes"]}, {"name": "price", "type": ["null", "double"]}]}]},
        {"name": "after", "type": ["null", "Value"]},
        {"name": "source", "type": {"type": "record", "name": "Source", "fields": [
            {"name": "lsn", "type": ["null", "long"]}, {"name": "txId", "type": ["null", "long"]},
            {"name": "ts_us", "type": ["null", "long"]}, {"name": "snapshot", "type": ["null", "string"]},
            {"name": "db", "type": "string"}]}},
        {"name": "op", "type": "string"},
    ],
}  # fmt: skip


def test_avro_says_the_same(tmp_path: Path) -> None:
    row = {key: ROW[key] for key in ("id", "City", "credit", "born", "seen")} | {"picture": b"\x00\xff\x10"}
    changes = [("c", None, row | {"price": 1.5}), ("u", row, row | {"picture": UNTOLD.encode()}), ("d", row, None)]

    def written(operation: str, before: Any, after: Any) -> bytes:
        change = {"before": before, "after": after, "source": SOURCE, "op": operation}
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, fastavro.parse_schema(AVRO), change)
        return framed(7, stream.getvalue())

    described = Schema(7, "AVRO", json.dumps(AVRO))
    avro = ChangeDecoder(contract(tmp_path), lambda schema_id: {7: described}[schema_id])
    decoded = decode(
        avro, *(written(*change) for change in changes), None, message("t", None, None), framed(7, b"\x02")
    )
    assert (decoded.positions.tolist(), [position for position, _ in decoded.rejected]) == ([0, 1, 2, 4], [5])
    created, updated, deleted, _ = decoded.rows.to_pylist()
    assert (created["credit"], created["born"]) == (Decimal("12.30"), date(2024, 2, 29))
    assert (created["picture"], created["_extra"], created["_lsn"]) == (b"\x00\xff\x10", '{"price":1.5}', 27320232)
    assert (updated["picture"], updated["_unavailable"]) == (None, ["picture"])
    assert (deleted["city"], json.loads(deleted["_before"])["picture"]) == ("Köln", "AP8Q")


def test_the_last_day_of_the_calendar_is_kept(decoder: ChangeDecoder) -> None:
    """It stands for no end in many a table."""
    last = {"born": 2932896, "seen": 253_402_300_799_999_999, "joined": "9999-12-31T23:59:59.999999Z"}
    row = one(decoder, message("c", None, ROW | last))
    assert (row["born"], row["seen"]) == (date.max, datetime.max)  # noqa: DTZ901 - as above.
    assert row["joined"] == datetime.max.replace(tzinfo=UTC)
    row = one(decoder, message("c", None, ROW | {"joined": "0001-01-01T00:00:00Z"}))
    assert row["joined"] == datetime.min.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [("double", 10**400, "too large to convert to float"), ("double", "x", "could not convert string to float")],
)
def test_a_number_beyond_its_type_is_refused(tmp_path: Path, kind: str, value: Any, reason: str) -> None:
    of_kind = ChangeDecoder(contract(tmp_path, **{"decimal(10,2)": kind}))
    [(_, found)] = decode(of_kind, message("c", None, ROW | {"credit": value})).rejected
    assert reason in found
    assert "$.credit" in found


def test_avro_that_is_no_change_of_a_row_is_refused(tmp_path: Path) -> None:
    _, after, source, operation = AVRO["fields"]
    schema = AVRO | {"fields": [after | {"type": "string"}, source, operation]}
    stream = io.BytesIO()
    change = {"after": "a row", "source": SOURCE, "op": "c"}
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), change)
    avro = ChangeDecoder(contract(tmp_path), lambda _: Schema(7, "AVRO", json.dumps(schema)))
    [(_, reason)] = decode(avro, framed(7, stream.getvalue())).rejected
    assert "its row is no record" in reason


def test_what_an_update_left_as_it_was_is_named_not_made_up(decoder: ChangeDecoder) -> None:
    untold = base64.b64encode(UNTOLD.encode()).decode()
    row = one(decoder, message("u", None, ROW | {"note": UNTOLD, "picture": untold, "tags": [UNTOLD]}))
    assert (row["note"], row["picture"], row["tags"]) == (None, None, None)
    assert row["_unavailable"] == ["note", "tags", "picture"]
    assert one(decoder, message("u", None, ROW))["_unavailable"] is None


def test_a_delete_has_its_key_and_the_values_it_tells(decoder: ChangeDecoder) -> None:
    nothing = dict.fromkeys(ROW)
    row = one(decoder, message("d", nothing | {"id": 7, "City": "Köln"}, None))
    assert (row["id"], row["city"], row["visits"]) == (7, "Köln", None)
    assert "visits" in row["_unavailable"]
    assert not {"id", "city"} & set(row["_unavailable"])
    assert json.loads(row["_before"])["City"] == "Köln"


def test_truncations_and_tombstones(decoder: ChangeDecoder) -> None:
    decoded = decode(decoder, message("t", None, None), None, message("c", None, ROW))
    assert (decoded.positions.tolist(), decoded.rejected) == ([0, 2], [])
    assert [(row["_op"], row["id"]) for row in decoded.rows.to_pylist()] == [("t", None), ("c", ROW["id"])]


def test_a_row_of_an_incremental_snapshot_stands_where_the_log_was_read(decoder: ChangeDecoder) -> None:
    row = one(
        decoder,
        message("r", None, ROW, lsn=None, txId=None, snapshot="incremental", sequence='["34774624","34774630"]'),
    )
    assert (row["_lsn"], row["_transaction"], row["_snapshot"]) == (34774630, None, True)


def test_unknown_fields_are_kept_as_they_were_written(decoder: ChangeDecoder) -> None:
    value = message("c", None, ROW | {"price": 1}).replace(b'"price": 1', b'"price": 1.10')
    assert one(decoder, value)["_extra"] == '{"price":1.10}'


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (message("c", None, ROW | {"credit": "NAN"}), "NaN is no number - at `$.credit`"),
        (
            message("c", None, ROW | {"credit": "1.234"}),
            "Rescaling Decimal value would cause data loss - at `$.credit`",
        ),
        (message("c", None, ROW | {"credit": "0E-999999999"}), "it has more than 38 decimals - at `$.credit`"),
        (message("c", None, ROW | {"visits": 2**31}), "Value 2147483648 too large to fit in C integer type"),
        (message("c", None, ROW | {"visits": 1.5}), "Expected integer, got float - at `$.visits`"),
        (message("c", None, ROW | {"tags": "abc"}), "Expected array, got str - at `$.tags`"),
        (message("c", None, ROW | {"opens": 86_400_000_000}), "86400000000 is no time of a day - at `$.opens`"),
        (message("c", None, ROW, ts_us=10**18), "lies outside the years 1 to 9999 - at `$._changed_at`"),
        (message("c", None, ROW | {"born": -1703383}), "lies outside the years 1 to 9999 - at `$.born`"),
        (message("c", None, ROW | {"seen": 2**63 - 1}), "lies outside the years 1 to 9999 - at `$.seen`"),
        (
            message("c", None, ROW | {"joined": "9999-12-31T23:00:00-02:00"}),
            "outside the years 1 to 9999 - at `$.joined`",
        ),
        (message("c", None, ROW | {"joined": "-infinity"}), "Invalid isoformat string: '-infinity' - at `$.joined`"),
        (message("c", None, ROW | {"id": None}), "it lacks its key - at `$.id`"),
        (message("c", None, ROW, lsn=None, sequence=None), "it does not say where in the database's log it stands"),
        (message("m", None, None), "it is no change of a row: its operation is 'm'"),
        (b'{"id": 1}', "it is no change of a row: its operation is ''"),
        (b"{", "Input data was truncated"),
    ],
)
def test_what_cannot_be_told_or_does_not_fit_is_refused(decoder: ChangeDecoder, value: bytes, reason: str) -> None:
    decoded = decode(decoder, message("c", None, ROW), value, message("c", None, ROW))
    assert decoded.positions.tolist() == [0, 2]
    [(position, found)] = decoded.rejected
    assert position == 1
    assert reason in found


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("table: public.customers", "table: customers", "changeCapture is"),
        ("deletes: hard", "deletes: never", "changeCapture is"),
        ("    properties:", "      - {property: dedupeKey, value: [id]}\n    properties:", "has dedupeKey beside"),
    ],
)
def test_a_contract_says_nothing_that_follows(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    path = tmp_path / "customers.odcs.yaml"
    path.write_text(captured_contract().replace(old, new, 1))
    with pytest.raises(ContractError, match=complaint):
        load_contract(path)


def test_the_types_of_changes_are_not_those_of_events(tmp_path: Path) -> None:
    path = tmp_path / "events.odcs.yaml"
    path.write_text(captured_contract().replace("property: changeCapture", "property: anything"))
    with pytest.raises(ContractError, match="physicalType 'time' is not supported"):
        load_contract(path)


def test_the_stored_changes_stay_those_of_one_table(tmp_path: Path) -> None:
    before = contract(tmp_path)
    after = contract(tmp_path, **{"public.customers, deletes": "public.clients, deletes", "1.0.0": "1.1.0"})
    assert "changeCapture" in {change.field for change in compare(before, after) if not change.compatible}
    kept = contract(tmp_path, **{"deletes: hard": "deletes: soft", "1.0.0": "1.1.0"})
    assert all(change.compatible for change in compare(before, kept))
