"""Days are closed once, when they are over and Gold has them; what was closed reads the same for ever after."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from freshdata.clock import instance_clock
from freshdata.contracts import Contract
from freshdata.lake.catalog import load_table
from freshdata.lake.maintenance import Retention, maintain
from freshdata.lake.tags import drop_tag, list_tags
from freshdata.settings import Settings
from freshdata.transform.manifest import load_manifest
from freshdata.transform.runner import Runner, open_runner
from freshdata_assets.definitions import defs
from freshdata_assets.defs.closes.closes import close_requests
from freshdata_assets.platform import Platform
from freshdata_assets.scope import RANGE_END, RANGE_START
from tests.lakes import departures, ingest, observations
from tests.runs import follow

pytestmark = pytest.mark.integration

FIRST, SECOND, THIRD = (date(2013, 1, day) for day in (1, 2, 3))
GOLD = ("gold.carrier_day", "gold.delay_by_weather", "gold.route_day")


@pytest.fixture
def platform(instance: Settings, contracts: dict[str, Contract], monkeypatch: pytest.MonkeyPatch) -> Platform:
    monkeypatch.setenv("FRESHDATA_HOME", str(instance.home))
    for day in (FIRST, SECOND, THIRD):
        ingest(instance, "flight_events", departures(day))
        ingest(instance, "weather", observations(day))
    platform = Platform(instance, contracts, load_manifest(instance))
    # A minute before the first day's events may come no more: it was over two days ago, and the SLA is 48 hours.
    set_clock(platform, datetime(2013, 1, 3, 23, 59, tzinfo=UTC))
    return platform


@pytest.fixture
def runner(platform: Platform) -> Iterator[Runner]:
    with open_runner(platform.settings) as runner:
        yield runner


def set_clock(platform: Platform, now: datetime) -> None:
    instance_clock(platform.settings.home).set(start=FIRST, now=now)
    vars(platform).pop("partitions", None)  # On a simulated clock they are fixed when the code location loads.


def execute(instance: dg.DagsterInstance, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    """Run what the sensor asks for, over the real definitions."""
    loaded = defs()
    keys = list(request.asset_selection or ())
    job = loaded.resolve_implicit_global_asset_job_def().get_subset(asset_selection=set(keys))
    return job.execute_in_process(
        instance=instance, tags=dict(request.tags), partition_key=request.partition_key, raise_on_error=False
    )


def closes(platform: Platform) -> dict[str, tuple[str, ...]]:
    return {name: tuple(tag.name for tag in list_tags(load_table(platform.catalog(), name))) for name in GOLD}


def closed_rows(platform: Platform, table: str, tag: str) -> list[dict[str, Any]]:
    found = load_table(platform.catalog(), table)
    return found.scan(snapshot_id=found.refs()[tag].snapshot_id).to_arrow().to_pylist()


def test_days_are_closed_once_when_gold_has_what_came_in_for_them(platform: Platform, runner: Runner) -> None:
    instance = dg.DagsterInstance.ephemeral()
    follow(runner)
    assert list(close_requests(platform)) == []
    set_clock(platform, datetime(2013, 1, 4, tzinfo=UTC))
    [request] = close_requests(platform)
    assert request.tags["freshdata/reason"] == "days 2013-01-01 to 2013-01-01 are over"
    result = execute(instance, request)
    assert result.success
    assert closes(platform) == dict.fromkeys(GOLD, ("close-2013-01-01",))
    made = [event.step_materialization_data.materialization for event in result.get_asset_materialization_events()]
    assert {(item.asset_key.to_user_string(), item.partition) for item in made} == {
        (f"closes/{name.removeprefix('gold.')}", "2013-01-01") for name in GOLD
    }
    assert list(close_requests(platform)) == []

    # A late event for the second day holds back the tables that flights go to; one for the third does not.
    set_clock(platform, datetime(2013, 1, 5, tzinfo=UTC))
    ingest(platform.settings, "flight_events", departures(SECOND, 1, event_id="late", flight=90))
    assert list(close_requests(platform)) == []
    follow(runner)
    ingest(platform.settings, "flight_events", departures(THIRD, 1, event_id="later", flight=91))
    [request] = close_requests(platform)
    assert execute(instance, request).success
    assert closes(platform) == dict.fromkeys(GOLD, ("close-2013-01-01", "close-2013-01-02"))
    flights = sum(row["flights"] for row in closed_rows(platform, "gold.carrier_day", "close-2013-01-02"))
    assert flights == 4 + 5 + 4

    # What is corrected after the close is in the table, and not in the close.
    ingest(platform.settings, "flight_events", departures(SECOND, 1, event_id="too late", flight=92))
    follow(runner)
    maintain(platform.catalog(), "gold.carrier_day", Retention(keep=1, young=timedelta(0), cursor_age=timedelta(0)))
    assert sum(row["flights"] for row in closed_rows(platform, "gold.carrier_day", "close-2013-01-02")) == flights
    assert sum(row["flights"] for row in closed_rows(platform, "gold.carrier_day", "main")) == flights + 2
    assert list(close_requests(platform)) == []


def test_a_day_is_not_closed_early_nor_a_second_time(platform: Platform, runner: Runner) -> None:
    follow(runner)
    [sensor] = [sensor for sensor in defs().sensors or () if sensor.name == "closes"]
    with dg.instance_for_test() as instance:
        assert isinstance(sensor(dg.build_sensor_context(instance=instance)), dg.SkipReason)

        # By hand, too soon.
        span = {RANGE_START: SECOND.isoformat(), RANGE_END: SECOND.isoformat()}
        by_hand = dg.RunRequest(asset_selection=[dg.AssetKey(["closes", "carrier_day"])], tags=span)
        result = execute(instance, by_hand)
        [failure] = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
        assert "closes at 2013-01-05 00:00:00+00:00" in str(failure.step_failure_data.user_failure_data.description)
        assert closes(platform) == dict.fromkeys(GOLD, ())

        set_clock(platform, datetime(2013, 1, 4, tzinfo=UTC))
        [request] = sensor(dg.build_sensor_context(instance=instance))  # type: ignore[misc]
        assert execute(instance, request).success
        again = execute(instance, request)
        assert again.success
        assert closes(platform) == dict.fromkeys(GOLD, ("close-2013-01-01",))

    # A close ends at its age, and its day is then too old to be closed again.
    table = load_table(platform.catalog(), "gold.carrier_day")
    [tag] = list_tags(table)
    assert tag.expires is not None
    assert timedelta(days=89) < tag.expires - datetime.now(UTC) < timedelta(days=91)
    drop_tag(table, tag.name)
    set_clock(platform, datetime(2013, 1, 4, tzinfo=UTC) + timedelta(days=90))
    firsts = {request.tags[RANGE_START] for request in close_requests(platform)}
    assert firsts == {"2013-01-02"}
