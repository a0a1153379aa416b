"""A person is erased from captured tables, from streams in hours and from dimensions, and from nothing else."""

import io
import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fastavro
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

from freshdata.cdc.models import write_models
from freshdata.contracts import load_contracts
from freshdata.errors import ConfigError
from freshdata.forget import Forget
from freshdata.forgotten import Person
from freshdata.intervals import HOUR
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.lake.progress import read_progress
from freshdata.lake.tags import create_tag
from freshdata.privacy import Secret
from freshdata.registry import Schema, framed, open_registry, schema_source
from freshdata.services.processes import write_json
from freshdata.settings import Settings
from freshdata.transform.manifest import load_manifest
from freshdata.transform.runner import open_runner
from stream_workers.batch import BEGINNING_OF_TIME, Batch, PartitionState
from stream_workers.bronze import BronzeWriter
from tests.bronze import rows
from tests.captures import captured_contract
from tests.hourly import CONTRACT as CLICKS
from tests.hourly import START, clicks, project_with_models
from tests.people import SECRET
from tests.runs import follow

pytestmark = pytest.mark.integration

SOURCE, GONE, LIVE, OTHER = "shop", 4711, 4712, 4713
COLUMNS = """
      - {name: customer_id, physicalName: customerId, logicalType: integer, physicalType: bigint}
      - {name: address, logicalType: string, physicalType: string}
      - {name: shop, logicalType: string, physicalType: string}
"""
TABLES = {"customers": ("hard", "id"), "orders": ("soft", "customer_id"), "products": ("hard", None)}
DIMENSION = """
MODEL (
  name gold.dim_NAME,
  kind CUSTOM (
    materialization 'scd2',
    materialization_properties (
      unique_key = id, valid_from = valid_from, version = _offset, deleted = (_op IN ('d', 't')), changes = true
    )
  ),
  grain (id, valid_from),
  audits (unique_combination_of_columns(columns := (id, valid_from)))
);
SELECT id, customer_id, address, _op, _offset, _changed_at AS valid_from
FROM bronze.NAME
"""
TEST = """
test_dim_NAME:
  model: gold.dim_NAME
  inputs:
    bronze.NAME:
      rows:
        - {id: 1, _op: c, _offset: 0}
  outputs:
    query:
      partial: true
      rows:
        - {id: 1}
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = project_with_models(tmp_path_factory.mktemp("project"))
    settings = settings.model_copy(update={"privacy_secret": SecretStr(SECRET)})
    visitor = "properties:\n      - {name: visitor, logicalType: integer, physicalType: bigint}"
    named = CLICKS.replace(
        "    customProperties:", "    customProperties:\n      - {property: subjectField, value: visitor}"
    )
    (settings.contracts_dir / "clicks.odcs.yaml").write_text(
        named.replace("properties:\n      - {name: click_id", f"{visitor}\n      - {{name: click_id")
    )
    models = settings.working_models_dir
    silver = models / "models" / "silver" / "clicks.sql"
    silver.write_text(silver.read_text().replace("shop, -- The shop.", "shop, -- The shop.\n  visitor, -- Who."))
    for name, (mode, subject) in TABLES.items():
        about = f"    customProperties:\n      - {{property: subjectField, value: {subject}}}"
        text = captured_contract(name, COLUMNS, deletes=mode)
        text = text.replace("    customProperties:", about) if subject else text
        (settings.contracts_dir / f"{name}.odcs.yaml").write_text(text)
        write_models(settings, load_contracts(settings.contracts_dir)[name])
        (models / "models" / "gold" / f"dim_{name}.sql").write_text(DIMENSION.replace("NAME", name))
        (models / "tests" / f"test_dim_{name}.yaml").write_text(TEST.replace("NAME", name))
    return settings


class Record:
    """A record of partition 0."""

    def __init__(self, offset: int, value: bytes, key: bytes) -> None:
        self._offset, self._value, self._key = offset, value, key

    def key(self) -> bytes:
        return self._key

    def value(self) -> bytes:
        return self._value

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, int((START + timedelta(days=9)).timestamp() * 1000)


def consume(settings: Settings, stream: str, told: list[tuple[Any, bytes]]) -> None:
    """Take in messages as a worker does that starts anew."""
    contracts = load_contracts(settings.contracts_dir)
    secret = Secret(SECRET.encode())
    schemas = schema_source(settings)
    writer = BronzeWriter(open_catalog(settings), contracts[stream], contracts, "cluster", schemas, secret=secret)
    state, batch = writer.restore(0) or PartitionState(0, BEGINNING_OF_TIME, writer.empty_index()), Batch()
    records = [
        Record(state.offset + n, event if isinstance(event, bytes) else json.dumps(event, default=str).encode(), key)
        for n, (event, key) in enumerate(told)
    ]
    writer.processor(records, {0: state}, batch)
    writer.commit(batch)


LSN = iter(range(1, 1_000_000))


def change(operation: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> tuple[dict[str, Any], bytes]:
    """A change of a table with REPLICA IDENTITY FULL, and its message's key."""
    lsn = next(LSN)
    at = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(minutes=lsn)
    source = {"ts_us": int(at.timestamp() * 1_000_000), "lsn": lsn, "txId": lsn, "snapshot": "false"}
    key = json.dumps({"id": (after or before or {})["id"]}).encode()
    return {"before": before, "after": after, "source": source, "op": operation}, key


def row(key: int, customer: int | None, **values: Any) -> dict[str, Any]:
    """A row whose address tells whose it is."""
    return {"id": key, "customerId": customer, "address": f"street of {customer or key}", "shop": "north"} | values


def histories(moved: str = "") -> dict[str, list[tuple[dict[str, Any], bytes]]]:
    """What has happened to the rows of each table."""
    customers = [change("r", None, row(who, None)) for who in (GONE, LIVE, OTHER)]
    customers += [change("u", row(who, None), row(who, None, shop=f"south{moved}")) for who in (GONE, LIVE, OTHER)]
    customers += [
        change("d", row(GONE, None, shop="south"), None),
        change("u", row(LIVE, None), row(LIVE, None, customerId="?")),
    ]
    orders = [change("c", None, row(key, who)) for key, who in ((1, GONE), (2, LIVE), (3, GONE), (4, GONE), (5, OTHER))]
    # Another's order has the number of the person; and one becomes another's.
    orders += [change("c", None, row(GONE, OTHER)), change("u", row(3, GONE), row(3, OTHER))]
    orders += [change("d", row(4, GONE), None), change("u", row(GONE, OTHER), row(GONE, OTHER, customerId="?"))]
    orders += [change("u", row(1, GONE), row(1, GONE, customerId="?")), change("d", row(5, OTHER), None)]
    products = [change("c", None, row(GONE, None, address="shelf")), change("c", None, row(7, None, address=f"{GONE}"))]
    products += [change("u", None, row(GONE, None, address="shelf", customerId="?"))]
    return {"customers": customers, "orders": orders, "products": products}


def visits(prefix: str = "") -> list[tuple[dict[str, Any], bytes]]:
    """Clicks of three persons in each of five hours, in two shops, over midnight."""
    found = []
    for number in range(5):
        for at, click in enumerate(clicks(START + number * HOUR, 6)):
            own = {"visitor": (GONE, LIVE, OTHER)[at % 3], "shop": (SOURCE, "other")[at // 3]}
            own |= {"click_id": prefix + click["click_id"], "clicked_at": click["clicked_at"].isoformat()}
            found.append((click | own, own["click_id"].encode()))
    return found


def take_in(settings: Settings, prefix: str = "") -> None:
    told = {**histories(prefix), "clicks": visits(prefix)}
    with open_runner(settings) as runner:
        # In two steps: Silver has rows to change, and remembers deletes.
        for half in range(2):
            for stream, messages in told.items():
                consume(settings, stream, messages[half * len(messages) // 2 : (half + 1) * len(messages) // 2])
            follow(runner)


def contents(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    catalog = open_catalog(settings)
    return {
        name: rows(catalog, name)
        for name in [*(f"bronze.{name}" for name in (*TABLES, "clicks")), *load_manifest(settings)]
    }


def less(who: int, table: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without those of a person; told by what a row says of itself, and not by any contract."""
    if table.endswith("clicks"):
        return [each for each in found if (each["visitor"], each["shop"]) != (who, SOURCE)]
    mine = f"street of {who}"
    kept = [each for each in found if each.get("address") != mine]
    return [each | {"_before": None} if mine in (each.get("_before") or "") else each for each in kept]


def traces(settings: Settings, who: int) -> list[str]:
    """The files of the lake that have a row of the person."""
    found = []
    for path in (settings.home / "warehouse").rglob("*.parquet"):
        of_clicks = "/clicks/" in str(path)
        for each in pq.read_table(path).to_pylist():
            mine = (
                (each.get("visitor"), each.get("shop")) == (who, SOURCE)
                if of_clicks
                else f"street of {who}" in str(each)
            )
            deleted = "customers__deletes" in str(path) and each.get("id") == who
            if mine or deleted:
                found.append(str(path))
    return found


def test_a_person_is_erased_from_tables_of_every_kind(settings: Settings) -> None:
    take_in(settings)
    catalog = open_catalog(settings)
    for name in ("bronze.orders", "silver.customers", "gold.dim_orders"):
        create_tag(load_table(catalog, name), "REPORTED")
    for number, who in enumerate((GONE, LIVE)):
        before, refused = contents(settings), rows(catalog, "quarantine.orders")
        assert traces(settings, who)
        outcome = Forget(settings, Person(SOURCE, str(who))).run()
        assert traces(settings, who) == outcome.found == []
        after = contents(settings)
        for table, kept in before.items():
            if not table.startswith("gold.clicks"):
                assert after[table] == less(who, table, kept), table
        clicked = less(who, "silver.clicks", before["silver.clicks"])
        assert sum(each["clicks"] for each in after["gold.clicks_hour"]) == len(clicked)
        assert sum(each["clicks"] for each in after["gold.clicks_day"]) == len(clicked)
        assert after["gold.clicks_hour"] != before["gold.clicks_hour"]
        # What was refused of another's order that has the person's number is there still.
        left = [each["payload"] is None for each in rows(catalog, "quarantine.orders")]
        assert left == ([False, True] if number == 0 else left)
        assert [each["payload"] is None for each in rows(catalog, "quarantine.products")] == [False]
        assert len(refused) == 2
    # The database tells everything again, and more of it; each model is made anew.
    events = len(rows(catalog, "bronze.clicks"))
    take_in(settings, "again")
    assert len(rows(catalog, "bronze.clicks")) > events
    whole = contents(settings)
    with open_runner(settings) as runner:
        for model in runner.manifest:
            runner.rebuild(model)
    assert contents(settings) == whole
    for who in (GONE, LIVE):
        assert traces(settings, who) == []
    done = read_progress(load_table(catalog, "bronze.orders"))
    assert done is not None
    total = done.total()
    assert total.consumed == total.accepted + total.duplicates + total.rejected
    assert total.accepted == len(whole["bronze.orders"])


AVRO = {
    "type": "record",
    "name": "Envelope",
    "fields": [
        {"name": "op", "type": "string"},
        {"name": "before", "type": ["null", "string"]},
        {
            "name": "after",
            "type": {
                "type": "record",
                "name": "Row",
                "fields": [{"name": "id", "type": "long"}, {"name": "customerId", "type": "string"}],
            },
        },
        {
            "name": "source",
            "type": {
                "type": "record",
                "name": "Source",
                "fields": [{"name": "ts_us", "type": "long"}, {"name": "lsn", "type": "long"}],
            },
        },
    ],
}


def refused_in_avro(who: int) -> tuple[bytes, bytes]:
    """A change that does not fit, in Confluent's wire format: the number stands in it as Avro writes it."""
    said, _ = change("c", None, {"id": who, "customerId": "?"})
    payload = io.BytesIO()
    fastavro.schemaless_writer(payload, AVRO, said)
    return framed(7, payload.getvalue()), b""


def test_a_number_is_known_in_rejected_changes_in_avro(settings: Settings) -> None:
    # A registry that is down, and has been asked before.
    settings = settings.model_copy(update={"schema_registry_url": "http://127.0.0.1:1"})
    registry = open_registry(settings)
    assert registry is not None
    write_json(registry._cache / "7.json", asdict(Schema(7, "AVRO", json.dumps(AVRO))))
    catalog, told = open_catalog(settings), [refused_in_avro(who) for who in (5001, 5002)]

    def kept() -> list[bool]:
        found = sorted(rows(catalog, "quarantine.customers"), key=lambda each: each["offset"])
        return [each["payload"] is not None for each in found]

    consume(settings, "customers", told)
    assert kept()[-2:] == [True, True]
    Forget(settings, Person(SOURCE, "5001")).run()
    assert kept()[-2:] == [False, True]
    # What comes later is not taken in.
    consume(settings, "customers", told)
    assert kept()[-4:] == [False, True, False, True]


def test_the_tenant_of_a_captured_table_is_its_source(settings: Settings, tmp_path: Path) -> None:
    (settings.contracts_dir / "clicks.odcs.yaml").rename(tmp_path / "clicks")
    with pytest.raises(ConfigError, match="There is no source lyon") as raised:
        Forget(settings, Person("lyon", str(GONE)))
    assert "name: shop" in str(raised.value)
