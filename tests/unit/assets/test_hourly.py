"""A stream whose contract says hours has them in Dagster."""

from collections import Counter
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from freshdata.clock import instance_clock
from freshdata.contracts import load_contracts
from freshdata.intervals import HOUR
from freshdata.transform.manifest import ModelInfo
from freshdata.transform.periods import Period
from freshdata_assets.automation import MOST_RANGES, live_run_requests
from freshdata_assets.defs.automation.snapshots import snapshot_sensor
from freshdata_assets.defs.bronze.assets import external_specs
from freshdata_assets.platform import Platform, asset_key, interval_of, key_of
from freshdata_assets.scope import RANGE_END, RANGE_START
from tests.hourly import START, clicks, project
from tests.lakes import ingest

SILVER = ModelInfo(
    name="silver.clicks",
    layer="silver",
    description="",
    owner="web",
    kind="merge_by_key",
    partition_column="event_hour",
    columns={},
    column_descriptions={},
    depends_on=("bronze.clicks",),
    column_lineage={},
    audits=(),
    code_version="1",
    metadata_version="1",
    path="",
    period=Period("hour"),
)


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    settings = project(tmp_path)
    instance_clock(settings.home).set(start=START.date(), now=START + timedelta(hours=5, minutes=20))
    return Platform(settings, load_contracts(settings.contracts_dir), {})


def test_bronze_has_a_partition_for_each_hour_until_the_present(platform: Platform) -> None:
    (bronze,) = (spec for spec in external_specs(platform) if spec.key == asset_key("bronze.clicks"))
    assert isinstance(bronze.partitions_def, dg.TimeWindowPartitionsDefinition)
    keys = bronze.partitions_def.get_partition_keys()
    assert (keys[0], keys[-1], len(keys)) == ("2026-03-01-00:00", "2026-03-02-03:00", 28)
    assert platform.span("hour") == (START.replace(hour=0), START + 5 * HOUR)
    assert (platform.has(START + 5 * HOUR), platform.has(START + 6 * HOUR)) == (True, False)
    assert [key_of(interval_of(key)) for key in keys] == keys


def test_the_sensor_reports_each_ingestion_hour(platform: Platform) -> None:
    ingest(platform.settings, "clicks", clicks(START, 3))
    ingest(platform.settings, "clicks", clicks(START, 1, click_id="late"), at=START + 4 * HOUR)
    ingest(platform.settings, "clicks", clicks(START + 4 * HOUR), at=START + 4 * HOUR)
    with dg.build_sensor_context(instance=dg.DagsterInstance.ephemeral()) as context:
        result = snapshot_sensor(platform, patience=0)(context)
    assert isinstance(result, dg.SensorResult)
    events = [event for event in result.asset_events if isinstance(event, dg.AssetMaterialization)]
    assert Counter({event.partition: event.metadata["freshdata/rows_added"].value for event in events}) == {
        "2026-03-01-22:00": 3,
        "2026-03-02-02:00": 3,
    }


def test_news_of_scattered_hours_is_a_few_runs_of_just_those(platform: Platform) -> None:
    platform.clock.set(start=START.date(), now=START + 40 * HOUR)
    platform = Platform(platform.settings, platform.contracts, {SILVER.name: SILVER})
    scattered = [START + number * HOUR for number in (0, 1, *range(10, 30, 2))]
    ingest(platform.settings, "clicks", [click for hour in scattered for click in clicks(hour)])
    requests = live_run_requests(platform, platform.catalog())
    found = [(request.tags[RANGE_START], request.tags[RANGE_END]) for request in requests]
    assert found == [(key_of(hour), key_of(hour)) for hour in scattered[-MOST_RANGES:]]
