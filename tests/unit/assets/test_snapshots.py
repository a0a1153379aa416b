"""The sensor, on a real lake."""

import json
import os
import subprocess
import threading
from collections import Counter
from datetime import UTC, date, datetime

import dagster as dg
import psutil
import pyarrow as pa
import pytest
from dagster._core.events import EngineEventData

from freshdata.lake.catalog import QUARANTINE_SCHEMA
from freshdata.transform.runner import open_runner
from freshdata_assets.defs.automation.snapshots import snapshot_sensor
from freshdata_assets.defs.resources import TURN
from freshdata_assets.platform import Platform
from freshdata_assets.scope import LIVE, MODE, RANGE_END, RANGE_START, REASON
from tests.lakes import departures, fill_lookups, ingest, observations

DAYS = [date(2013, 1, day) for day in (1, 2, 3)]


@pytest.fixture
def dagster() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


def tick(
    platform: Platform, dagster: dg.DagsterInstance, cursor: str | None, patience: float = 0
) -> dg.SensorResult | dg.SkipReason:
    with dg.build_sensor_context(instance=dagster, cursor=cursor) as context:
        result = snapshot_sensor(platform, patience=patience)(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    return result


def first_tick(platform: Platform, dagster: dg.DagsterInstance) -> dg.SensorResult:
    result = tick(platform, dagster, None)
    assert isinstance(result, dg.SensorResult)
    return result


def reported(result: dg.SensorResult) -> Counter[tuple[str, str | None]]:
    return Counter(
        {
            (event.asset_key.to_user_string(), event.partition): int(event.metadata["freshdata/rows_added"].value)
            for event in result.asset_events
            if isinstance(event, dg.AssetMaterialization)
        }
    )


def ranges(result: dg.SensorResult) -> list[tuple[str, str]]:
    requests = [request for request in result.run_requests or () if RANGE_START in request.tags]
    assert all(request.tags[MODE] == LIVE for request in requests)
    return [(request.tags[RANGE_START], request.tags[RANGE_END]) for request in requests]


def test_an_empty_lake_is_skipped(platform: Platform, dagster: dg.DagsterInstance) -> None:
    assert isinstance(tick(platform, dagster, None), dg.SkipReason)


def test_the_first_report_names_each_ingestion_day_once(platform: Platform, dagster: dg.DagsterInstance) -> None:
    for day in DAYS:
        ingest(platform.settings, "flight_events", departures(day))
        ingest(platform.settings, "flight_events", departures(day, 2, event_id=f"second-{day}"))
    fill_lookups(platform.settings)
    result = first_tick(platform, dagster)
    assert reported(result) == {
        ("bronze/flight_events", "2013-01-01"): 6,
        ("bronze/flight_events", "2013-01-02"): 6,
        ("bronze/flight_events", "2013-01-03"): 6,
        ("lookup/airlines", None): 1,
        ("lookup/airports", None): 1,
        ("lookup/planes", None): 1,
    }
    head = platform.catalog().load_table("bronze.flight_events").current_snapshot()
    assert head is not None
    assert json.loads(result.cursor or "")["bronze.flight_events"] == str(head.snapshot_id)
    event = next(event for event in result.asset_events if event.partition == "2013-01-01")
    assert event.tags == {"dagster/data_version": str(head.snapshot_id)}


def test_nothing_new_is_reported_once_only_and_what_is_new_alone(
    platform: Platform, dagster: dg.DagsterInstance
) -> None:
    ingest(platform.settings, "flight_events", departures(DAYS[0]))
    first = first_tick(platform, dagster)
    again = tick(platform, dagster, first.cursor)
    # The run is asked for again under the same key, which Dagster drops: the news is still there.
    assert isinstance(again, dg.SensorResult)
    assert not again.asset_events
    assert [request.run_key for request in again.run_requests or ()] == [
        request.run_key for request in first.run_requests or ()
    ]
    ingest(platform.settings, "flight_events", departures(DAYS[1], 1))
    later = tick(platform, dagster, first.cursor)
    assert isinstance(later, dg.SensorResult)
    assert reported(later) == {("bronze/flight_events", "2013-01-02"): 1}
    assert {request.run_key for request in later.run_requests or ()}.isdisjoint(
        request.run_key for request in first.run_requests or ()
    )


def test_rejected_events_are_reported(platform: Platform, dagster: dg.DagsterInstance) -> None:
    ingest(platform.settings, "flight_events", departures(DAYS[0]))
    row = {
        "topic": "t", "partition": 0, "offset": 7, "reason": "not JSON", "contract_version": "1",
        "ingested_at": datetime(2013, 1, 1, tzinfo=UTC), "ingestion_date": DAYS[0],
    }  # fmt: skip
    table = platform.catalog().load_table("quarantine.flight_events")
    table.append(pa.Table.from_pylist([row], schema=QUARANTINE_SCHEMA))
    assert reported(first_tick(platform, dagster))["quarantine/flight_events", None] == 1


def test_what_was_rejected_is_seen_beside_the_count(platform: Platform, dagster: dg.DagsterInstance) -> None:
    ingest(platform.settings, "flight_events", departures(DAYS[0]))
    table = platform.catalog().load_table("quarantine.flight_events")

    def reject(first: int, count: int) -> None:
        rows = [
            {
                "topic": "t", "partition": 0, "offset": number, "reason": f"JSON is malformed (byte {number})",
                "contract_version": "1", "payload": b"\x00" + b"x" * 500,
                "ingested_at": datetime(2013, 1, 1, second=number, tzinfo=UTC), "ingestion_date": DAYS[0],
            }
            for number in range(first, first + count)
        ]  # fmt: skip
        table.append(pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA))

    def written(result: dg.SensorResult) -> dg.AssetMaterialization:
        events = [event for event in result.asset_events if isinstance(event, dg.AssetMaterialization)]
        [event] = [event for event in events if event.asset_key.path[0] == "quarantine"]
        return event

    def metadata(result: dg.SensorResult) -> list[list[dict[str, object]]]:
        event = written(result)
        shown = event.metadata["freshdata/rejected_by_reason"], event.metadata["freshdata/newest_rejected"]
        assert all(isinstance(value, dg.TableMetadataValue) for value in shown)
        return [[dict(record.data) for record in value.records] for value in shown]

    reject(0, 30)
    first = first_tick(platform, dagster)
    reasons, newest = metadata(first)
    assert reasons == [{"events": 30, "reason": "JSON is malformed"}]
    assert [record["at"] for record in newest] == [f"0:{number}" for number in range(29, 19, -1)]
    assert newest[0] == {
        "when": "2013-01-01 00:00:29+00:00", "at": "0:29", "reason": "JSON is malformed (byte 29)",
        "payload": "\\x00" + "x" * 199 + "…",
    }  # fmt: skip
    # Of the next snapshot only what it has added.
    reject(30, 2)
    second = tick(platform, dagster, first.cursor)
    assert isinstance(second, dg.SensorResult)
    reasons, newest = metadata(second)
    assert reasons == [{"events": 2, "reason": "JSON is malformed"}]
    assert [record["at"] for record in newest] == ["0:31", "0:30"]
    # A rewrite brings rows that were there before: they are counted as ever, and are no news to look at.
    table.delete("offset < 3")
    third = tick(platform, dagster, second.cursor)
    assert isinstance(third, dg.SensorResult)
    assert "freshdata/newest_rejected" not in written(third).metadata


def test_a_burst_is_one_run_over_its_days(platform: Platform, dagster: dg.DagsterInstance) -> None:
    for day in DAYS:
        ingest(platform.settings, "flight_events", departures(day))
        ingest(platform.settings, "weather", observations(day))
    result = first_tick(platform, dagster)
    assert ranges(result) == [("2013-01-01", "2013-01-03")]
    (request,) = result.run_requests or ()
    assert "bronze.flight_events" in request.tags[REASON]
    selected = {key.to_user_string() for key in request.asset_selection or ()}
    assert {"silver/flight_events", "silver/weather", "gold/carrier_day"} <= selected
    assert not any("dim_" in key for key in selected)


def test_only_what_follows_from_the_news_is_run_with_the_checks_that_guard_it(
    platform: Platform, dagster: dg.DagsterInstance
) -> None:
    ingest(platform.settings, "weather", observations(DAYS[0]))
    (request,) = first_tick(platform, dagster).run_requests or ()
    # Gold by weather also reads flights: their checks guard it too.
    assert {key.to_user_string() for key in request.asset_selection or ()} == {
        "silver/weather", "silver/flight_events", "gold/delay_by_weather",
    }  # fmt: skip


def test_a_late_old_event_is_a_run_of_its_own_day(platform: Platform, dagster: dg.DagsterInstance) -> None:
    ingest(platform.settings, "flight_events", departures(DAYS[2]))
    # Ingested on the third, it belongs to the first.
    ingest(platform.settings, "flight_events", departures(DAYS[0], 1), at=datetime(2013, 1, 3, 20, tzinfo=UTC))
    result = first_tick(platform, dagster)
    assert ranges(result) == [("2013-01-01", "2013-01-01"), ("2013-01-03", "2013-01-03")]
    assert set(reported(result)) == {("bronze/flight_events", "2013-01-03")}


def test_many_scattered_days_are_few_runs(platform: Platform, dagster: dg.DagsterInstance) -> None:
    platform.clock.set(start=date(2013, 1, 1), now=datetime(2013, 3, 1, tzinfo=UTC))
    rows = [row for day in (2, 4, 6, 10, 15, 20, 27) for row in departures(date(2013, 1, day), 1)]
    ingest(platform.settings, "flight_events", rows)
    assert ranges(first_tick(platform, dagster)) == [
        ("2013-01-02", "2013-01-06"), ("2013-01-10", "2013-01-10"), ("2013-01-15", "2013-01-15"),
        ("2013-01-20", "2013-01-20"), ("2013-01-27", "2013-01-27"),
    ]  # fmt: skip


def test_days_without_a_partition_are_run_under_the_nearest(platform: Platform, dagster: dg.DagsterInstance) -> None:
    ingest(platform.settings, "flight_events", departures(date(2012, 12, 30), 1))
    result = first_tick(platform, dagster)
    assert ranges(result) == [("2013-01-01", "2013-01-01")]
    assert not reported(result)


def test_a_batch_without_rows_is_no_news(platform: Platform, dagster: dg.DagsterInstance) -> None:
    ingest(platform.settings, "flight_events", [])
    result = tick(platform, dagster, None)
    assert isinstance(result, dg.SkipReason) or not result.run_requests


def test_changed_lookups_run_the_dimensions(platform: Platform, dagster: dg.DagsterInstance) -> None:
    fill_lookups(platform.settings)
    (request,) = first_tick(platform, dagster).run_requests or ()
    assert {key.to_user_string() for key in request.asset_selection or ()} == {
        "gold/dim_airport", "gold/dim_carrier", "gold/dim_plane",
    }  # fmt: skip
    assert RANGE_START not in request.tags


def add_run(
    dagster: dg.DagsterInstance, status: dg.DagsterRunStatus, assets: frozenset[dg.AssetKey] | None = None
) -> str:
    run = dg.DagsterRun("live", status=status, tags={MODE: LIVE}, asset_selection=assets)
    return dagster.add_run(run).run_id


def take_turn(dagster: dg.DagsterInstance, run_id: str) -> bool:
    log = dagster.event_log_storage
    log.set_concurrency_slots(TURN, 1)
    return log.claim_concurrency_slot(TURN, run_id, TURN).is_claimed


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])
def test_no_run_is_requested_while_one_is_under_way(
    platform: Platform, dagster: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    add_run(dagster, status)
    ingest(platform.settings, "flight_events", departures(DAYS[0]))
    result = first_tick(platform, dagster)
    assert result.asset_events
    assert not result.run_requests


def test_the_next_run_is_asked_for_once_one_has_read_bronze_and_more_has_come(
    platform: Platform, dagster: dg.DagsterInstance
) -> None:
    ingest(platform.settings, "flight_events", departures(DAYS[0]))
    (request,) = first_tick(platform, dagster).run_requests or ()
    run_id = add_run(dagster, dg.DagsterRunStatus.STARTING, frozenset(request.asset_selection or ()))
    begin = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job_name="live")
    dagster.report_dagster_event(begin, run_id)

    def asks() -> bool:
        return bool(first_tick(platform, dagster).run_requests)

    ingest(platform.settings, "flight_events", departures(DAYS[0], 1, event_id="before"))
    assert not asks()  # The run is about to read it.
    with open_runner(platform.settings) as runner:
        runner.run_live("silver.flight_events")
    assert not asks()  # Gold has yet to follow, in this very run.
    ingest(platform.settings, "flight_events", departures(DAYS[1], 1, event_id="after"))
    assert asks()
    add_run(dagster, dg.DagsterRunStatus.NOT_STARTED)
    assert not asks()  # One that waits is enough.


def test_a_run_whose_process_was_killed_is_failed_and_does_not_hold_up_the_next(
    platform: Platform, dagster: dg.DagsterInstance
) -> None:
    run_id = add_run(dagster, dg.DagsterRunStatus.STARTED)
    child = subprocess.Popen(["true"])
    child.wait()
    run = dagster.get_run_by_id(run_id)
    assert run is not None
    dagster.report_engine_event("Started", run, EngineEventData.in_process(child.pid))
    take_turn(dagster, run_id)
    ingest(platform.settings, "flight_events", departures(DAYS[0]))
    first = first_tick(platform, dagster)
    failed = dagster.get_run_by_id(run_id)
    assert failed is not None
    assert failed.status == dg.DagsterRunStatus.FAILURE
    assert take_turn(dagster, "the next")
    second = tick(platform, dagster, first.cursor)
    assert isinstance(second, dg.SensorResult)
    assert second.run_requests


@pytest.mark.parametrize("seen", [True, False])
def test_a_run_whose_process_lives_is_left_alone_whatever_the_clock_does(
    platform: Platform, dagster: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, *, seen: bool
) -> None:
    run_id = add_run(dagster, dg.DagsterRunStatus.STARTED)
    run = dagster.get_run_by_id(run_id)
    assert run is not None
    dagster.report_engine_event("Started", run, EngineEventData.in_process(os.getpid()))
    if seen:
        tick(platform, dagster, None)
    # Of a clock that is put forward the kernel says that the machine was started later, and so was every process.
    boot_time = psutil.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot_time + 7200)
    tick(platform, dagster, None)
    alive = dagster.get_run_by_id(run_id)
    assert alive is not None
    assert alive.status == dg.DagsterRunStatus.STARTED


def test_a_tick_waits_for_news(platform: Platform, dagster: dg.DagsterInstance) -> None:
    arrival = threading.Timer(0.5, ingest, (platform.settings, "flight_events", departures(DAYS[0])))
    arrival.start()
    result = tick(platform, dagster, None, patience=60)
    arrival.join()
    assert isinstance(result, dg.SensorResult)
    assert ranges(result) == [("2013-01-01", "2013-01-01")]


def test_a_tick_waits_for_the_end_of_a_run(platform: Platform, dagster: dg.DagsterInstance) -> None:
    run = dagster.get_run_by_id(add_run(dagster, dg.DagsterRunStatus.STARTING))
    assert run is not None
    ingest(platform.settings, "flight_events", departures(DAYS[0]))
    end = threading.Timer(0.5, dagster.report_run_failed, (run,))
    end.start()
    result = tick(platform, dagster, None, patience=60)
    end.join()
    assert isinstance(result, dg.SensorResult)
    assert result.asset_events
    assert ranges(result) == [("2013-01-01", "2013-01-01")]
