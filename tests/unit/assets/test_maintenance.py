"""Maintenance as assets: each table has one, and only those that need it are run."""

import json
from datetime import date
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from freshdata.lake.catalog import ensure_table
from freshdata.lake.upkeep import plan_upkeep
from freshdata_assets.automation import live_run_requests
from freshdata_assets.defs.automation.snapshots import snapshot_sensor
from freshdata_assets.defs.maintenance.assets import POOL, THRESHOLDS, maintenance_assets, maintenance_key
from freshdata_assets.defs.maintenance.sensor import maintenance_sensor
from freshdata_assets.platform import Platform
from freshdata_assets.scope import MAINTENANCE, MODE, REASON
from tests.lakes import departures, ingest

FLIGHTS = "bronze.flight_events"
DAY = date(2013, 1, 1)


@pytest.fixture
def dagster() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


def small_files(platform: Platform) -> None:
    for number in range(THRESHOLDS.small_files):
        ingest(platform.settings, "flight_events", departures(DAY, 2, event_id=f"event-{number}"))


def tick(platform: Platform, dagster: dg.DagsterInstance, cursor: str | None = None) -> Any:
    with dg.build_sensor_context(instance=dagster, cursor=cursor) as context:
        return maintenance_sensor(platform)(context)


def run(platform: Platform, dagster: dg.DagsterInstance, *tables: str, **options: Any) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        maintenance_assets(platform),
        instance=dagster,
        selection=[maintenance_key(table) for table in tables],
        raise_on_error=False,
        **options,
    )


def test_every_table_has_its_asset_and_they_take_turns(platform: Platform) -> None:
    found = maintenance_assets(platform)
    tables = {".".join(key.path[1:]) for asset in found for key in asset.keys}
    assert {FLIGHTS, "quarantine.weather", "lookup.planes", "silver.weather", "gold.dim_plane"} <= tables
    assert len(found) == len(tables)
    assert {asset.op.pool for asset in found} == {POOL}
    assert {key for asset in found for key in asset.asset_deps[asset.key]} == {
        dg.AssetKey(table.split(".")) for table in tables
    }


def test_a_run_says_what_it_did(platform: Platform, dagster: dg.DagsterInstance) -> None:
    small_files(platform)
    before = sorted(platform.catalog().load_table(FLIGHTS).scan().to_arrow().to_pylist(), key=repr)
    result = run(platform, dagster, FLIGHTS)
    assert result.success
    (event,) = result.get_asset_materialization_events()
    metadata = {name: entry.value for name, entry in event.materialization.metadata.items()}
    assert (metadata["freshdata/files_before"], metadata["freshdata/files_after"]) == (20, 2)
    assert metadata["freshdata/manifests"] == 1
    assert metadata["freshdata/snapshots"] == THRESHOLDS.small_files + 1
    assert metadata["freshdata/bytes_after"] < metadata["freshdata/bytes_before"]
    assert "freshdata/skipped" not in metadata
    assert sorted(platform.catalog().load_table(FLIGHTS).scan().to_arrow().to_pylist(), key=repr) == before


def test_a_table_that_does_not_exist_yet_is_told_with_the_remedy(
    platform: Platform, dagster: dg.DagsterInstance
) -> None:
    result = run(platform, dagster, FLIGHTS)
    assert not result.success
    failure = next(event for event in result.all_events if event.event_type_value == "STEP_FAILURE")
    assert "Ingest its stream" in str(failure.step_failure_data.user_failure_data.description)


def test_only_tables_in_need_are_run_and_only_once(platform: Platform, dagster: dg.DagsterInstance) -> None:
    small_files(platform)
    ingest(platform.settings, "weather", [])
    asked = tick(platform, dagster)
    (request,) = asked.run_requests
    assert request.asset_selection == [maintenance_key(FLIGHTS)]
    assert request.tags[MODE] == MAINTENANCE
    assert request.tags[REASON] == f"{FLIGHTS}: rewrite 20 files of 2 partitions, merge 10 manifests"
    # Until it has run, nothing is asked for again: the table is as it was measured.
    assert not tick(platform, dagster, asked.cursor).run_requests
    # Measured anew, the same need has the same key, which Dagster drops.
    assert tick(platform, dagster).run_requests[0].run_key == request.run_key
    assert run(platform, dagster, FLIGHTS).success
    after = tick(platform, dagster, asked.cursor)
    assert not after.run_requests
    head = platform.catalog().load_table(FLIGHTS).current_snapshot()
    assert head is not None
    assert json.loads(after.cursor)[FLIGHTS][0] == str(head.snapshot_id)


def test_nothing_is_asked_for_while_tables_are_being_maintained(
    platform: Platform, dagster: dg.DagsterInstance
) -> None:
    small_files(platform)

    @dg.op
    def nothing() -> None: ...

    @dg.job
    def empty() -> None:
        nothing()

    dagster.create_run_for_job(empty, tags={MODE: MAINTENANCE}, status=dg.DagsterRunStatus.STARTED)
    assert isinstance(tick(platform, dagster), dg.SkipReason)


def test_the_metadata_of_a_streams_tables_is_its_workers_own_job(
    platform: Platform, dagster: dg.DagsterInstance
) -> None:
    for _ in range(12):
        ingest(platform.settings, "weather", [])
    schema = pa.schema([pa.field("day", pa.date32())])
    table = ensure_table(platform.catalog(), "gold.carrier_day", schema)
    for _ in range(12):
        table.append(pa.table({"day": [DAY]}, schema=schema))
    assert plan_upkeep(platform.catalog(), "gold.carrier_day").rewrite == 12
    (request,) = tick(platform, dagster).run_requests
    assert request.asset_selection == [maintenance_key("gold.carrier_day")]


def test_a_compaction_is_no_news_for_the_snapshot_sensor(platform: Platform, dagster: dg.DagsterInstance) -> None:
    small_files(platform)
    (request,) = live_run_requests(platform, platform.catalog())
    with dg.build_sensor_context(instance=dagster) as context:
        first = snapshot_sensor(platform, patience=0)(context)
    assert isinstance(first, dg.SensorResult)
    assert run(platform, dagster, FLIGHTS).success
    with dg.build_sensor_context(instance=dagster, cursor=first.cursor) as context:
        again = snapshot_sensor(platform, patience=0)(context)
    # What is still to be read has the key that it had, and no rows are reported a second time.
    assert isinstance(again, dg.SensorResult)
    assert not again.asset_events
    assert [each.run_key for each in again.run_requests or ()] == [request.run_key]


def test_a_tick_ends_in_time_and_the_next_one_goes_on(
    platform: Platform, dagster: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_files(platform)
    ingest(platform.settings, "weather", [])
    monkeypatch.setattr("freshdata_assets.defs.maintenance.sensor.LONGEST_LOOK_SECONDS", 0)
    looked, cursor = [], "{}"
    while len(looked) < 2 or looked[-1] != looked[-2]:
        cursor = tick(platform, dagster, cursor).cursor
        looked.append(set(json.loads(cursor)))
    assert [len(tables) for tables in looked[:2]] == [1, 2]
    assert {FLIGHTS, "bronze.weather"} <= looked[-1]
