"""A stream's freshness, read from a real lake."""

import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from freshdata.contracts import Contract
from freshdata.errors import LakeError
from freshdata.freshness import DataFiles, Freshness, stream_freshness
from freshdata.lake.catalog import ensure_table, open_catalog
from freshdata.settings import Settings
from tests.lakes import departures, ingest
from tests.silver import take_in

NOW = datetime(2013, 1, 10, tzinfo=UTC)


@pytest.fixture
def flights(contracts: dict[str, Contract]) -> Contract:
    return contracts["flight_events"]


def flow(settings: Settings, rows: list[dict[str, Any]]) -> None:
    ingest(settings, "flight_events", rows)
    take_in(settings, rows)


def look(settings: Settings, contract: Contract, files: DataFiles | None = None) -> Freshness:
    return stream_freshness(settings, open_catalog(settings), contract, NOW, files=files)


def statuses(found: Freshness) -> dict[str, str]:
    return {tenant.tenant: tenant.status for tenant in found.tenants}


def data_files(settings: Settings, table: str) -> list[Path]:
    return list((settings.home / "warehouse").glob(f"{table}/**/*.parquet"))


def test_the_newest_event_of_each_tenant_over_all_files(instance: Settings, flights: Contract) -> None:
    for day in (date(2013, 1, 2), date(2013, 1, 1)):
        flow(instance, departures(day))
    flow(instance, departures(date(2013, 1, 9), 1))
    found = look(instance, flights)
    assert {tenant.tenant: tenant.newest for tenant in found.tenants} == {
        "UA": datetime(2013, 1, 9, 17, tzinfo=UTC),
        "AA": datetime(2013, 1, 2, 17, 3, tzinfo=UTC),
    }
    assert statuses(found) == {"AA": "idle", "UA": "fresh"}


def test_a_tenant_that_went_silent_long_ago_is_not_named_any_more(instance: Settings, flights: Contract) -> None:
    flow(instance, departures(date(2012, 12, 20)))
    flow(instance, departures(date(2013, 1, 9), 1))
    assert statuses(look(instance, flights)) == {"UA": "fresh"}


def test_what_is_known_of_a_file_is_not_read_again(instance: Settings, flights: Contract) -> None:
    flow(instance, departures(date(2013, 1, 8)))
    files = DataFiles()
    first = look(instance, flights, files)
    for path in data_files(instance, "silver"):
        path.unlink()
    assert look(instance, flights, files) == first
    with pytest.raises(FileNotFoundError):
        look(instance, flights)


def test_files_of_one_tenant_and_day_are_not_read_at_all(instance: Settings, flights: Contract) -> None:
    flow(instance, departures(date(2013, 1, 8), tenant_id="UA"))
    for path in data_files(instance, "silver"):
        path.unlink()
    (tenant,) = look(instance, flights).tenants
    assert tenant.newest == datetime(2013, 1, 8, 17, 3, tzinfo=UTC)


def test_long_names_that_begin_alike_are_told_apart(instance: Settings, flights: Contract) -> None:
    names = [f"a-tenant-with-a-long-name-{number}" for number in (1, 2)]
    flow(instance, [departures(date(2013, 1, 8), 1, tenant_id=name, event_id=name)[0] for name in names])
    assert set(statuses(look(instance, flights))) == set(names)


def test_a_silver_that_does_not_follow_is_to_blame(instance: Settings, flights: Contract) -> None:
    flow(instance, departures(date(2013, 1, 6)))
    ingest(instance, "flight_events", departures(date(2013, 1, 7)))
    found = look(instance, flights)
    assert [(tenant.tenant, tenant.cause) for tenant in found.late] == [("UA", "silver"), ("AA", "silver")]
    # 48 hours after the newest event that Silver holds of it.
    assert found.late[0].since == datetime(2013, 1, 8, 17, 2, tzinfo=UTC)


def test_rows_that_silver_leaves_out_on_purpose_are_not_owed(instance: Settings, flights: Contract) -> None:
    rows = departures(date(2013, 1, 7))
    ingest(instance, "flight_events", rows)
    take_in(instance, [row for row in rows if row["tenant_id"] == "UA"])
    found = look(instance, flights)
    assert [(tenant.tenant, tenant.cause) for tenant in found.late] == [("UA", "unknown")]


def test_events_that_wait_for_a_silver_that_does_not_exist_are_late(instance: Settings, flights: Contract) -> None:
    ingest(instance, "flight_events", departures(date(2013, 1, 7), 1))
    (tenant,) = look(instance, flights).late
    assert (tenant.tenant, tenant.newest, tenant.cause) == ("UA", None, "silver")
    assert tenant.lag == timedelta(days=2, hours=7)


def test_a_stream_without_tables_is_told_with_the_remedy(instance: Settings, flights: Contract) -> None:
    with pytest.raises(LakeError, match="Ingest its stream"):
        look(instance, flights)
    ingest(instance, "flight_events", [])
    assert look(instance, flights).tenants == ()


def test_a_silver_without_the_tenant_is_told_with_the_remedy(instance: Settings, flights: Contract) -> None:
    ingest(instance, "flight_events", departures(date(2013, 1, 7)))
    ensure_table(open_catalog(instance), "silver.flight_events", pa.schema([pa.field("event_time", pa.string())]))
    with pytest.raises(LakeError, match=r"lacks the column tenant_id, .* Select it in the model"):
        look(instance, flights)


def test_a_kafka_that_is_down_is_waited_for_but_not_long(instance: Settings, flights: Contract) -> None:
    flow(instance, departures(date(2013, 1, 7)))
    down = instance.model_copy(update={"kafka_bootstrap": "127.0.0.1:9"})
    begun = time.monotonic()
    assert {tenant.cause for tenant in look(down, flights).late} == {"unknown"}
    assert time.monotonic() - begun < 15
