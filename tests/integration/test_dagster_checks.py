"""The checks of columns and of unusual days, as real Dagster runs on a small lake."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from pyiceberg.types import DoubleType, StringType

from freshdata.clock import instance_clock
from freshdata.contracts import Contract
from freshdata.lake.catalog import ensure_stream_tables
from freshdata.settings import Settings
from freshdata.transform.manifest import load_manifest
from freshdata_assets.automation import live_run_requests
from freshdata_assets.defs.anomalies.checks import anomaly_checks
from freshdata_assets.defs.automation.snapshots import snapshot_sensor
from freshdata_assets.defs.bronze.assets import external_specs
from freshdata_assets.defs.resources import Transform
from freshdata_assets.defs.schema.checks import schema_checks
from freshdata_assets.defs.transform.assets import transform_assets
from freshdata_assets.platform import Platform, asset_key
from freshdata_assets.schema_check import SCHEMA_CHECK
from tests.lakes import departures, fill_lookups, ingest

pytestmark = pytest.mark.integration

DAYS = [date(2013, 1, day) for day in range(1, 13)]
NOON_AFTER = datetime(2013, 1, 13, 12, tzinfo=UTC)
SILVER, BRONZE = "silver.flight_events", "bronze.flight_events"
Verdicts = dict[tuple[str, str], dg.AssetCheckEvaluation]
Live = Callable[[], list[Verdicts]]


@pytest.fixture
def dagster() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


@pytest.fixture
def platform(instance: Settings, contracts: dict[str, Contract], monkeypatch: pytest.MonkeyPatch) -> Platform:
    monkeypatch.setenv("FRESHDATA_HOME", str(instance.home))
    instance_clock(instance.home).set(start=DAYS[0], now=NOON_AFTER)
    return Platform(instance, contracts, load_manifest(instance))


def checks(result: dg.ExecuteInProcessResult) -> Verdicts:
    return {(".".join(item.asset_key.path), item.check_name): item for item in result.get_asset_check_evaluations()}


@pytest.fixture
def live(platform: Platform, dagster: dg.DagsterInstance) -> Live:
    """Carries out the live runs that the sensor would ask for, and returns the verdicts of each."""

    def run() -> list[Verdicts]:
        # As a new process would load the code location.
        loaded = Platform(platform.settings, platform.contracts, platform.models)
        assets = [*external_specs(loaded), *transform_assets(loaded), *anomaly_checks(loaded)]
        verdicts = []
        for request in live_run_requests(loaded, loaded.catalog()):
            result = dg.materialize(
                assets,
                instance=dagster,
                resources={"transform": Transform()},
                selection=dg.AssetSelection.assets(*(request.asset_selection or ())),
                tags=dict(request.tags),
                raise_on_error=False,
            )
            verdicts.append(checks(result))
        return verdicts

    return run


def table(evaluation: dg.AssetCheckEvaluation, name: str) -> list[dict[str, Any]]:
    return [dict(record.data) for record in evaluation.metadata[f"freshdata/{name}"].records]


def number(evaluation: dg.AssetCheckEvaluation, name: str) -> Any:
    return evaluation.metadata[f"freshdata/{name}"].value


def delete_column(platform: Platform, name: str, column: str) -> None:
    with platform.catalog().load_table(name).update_schema() as change:
        change.delete_column(column)


def execute(platform: Platform, dagster: dg.DagsterInstance, name: str) -> dg.AssetCheckEvaluation:
    """Execute a table's check of columns alone, as from the UI."""
    assets = [*external_specs(platform), *transform_assets(platform), *schema_checks(platform)]
    selection = dg.AssetSelection.checks(dg.AssetCheckKey(asset_key(name), SCHEMA_CHECK))
    resources = {"transform": Transform()}
    result = dg.materialize(assets, instance=dagster, resources=resources, selection=selection)
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def report(platform: Platform, dagster: dg.DagsterInstance) -> None:
    """A tick of the snapshot sensor, whose events the daemon records."""
    with dg.build_sensor_context(instance=dagster) as context:
        result = snapshot_sensor(platform, patience=0)(context)
    assert isinstance(result, dg.SensorResult)
    for event in result.asset_events:
        dagster.report_runless_asset_event(event)


def recorded(dagster: dg.DagsterInstance, name: str) -> dg.AssetCheckEvaluation:
    key = dg.AssetCheckKey(asset_key(name), SCHEMA_CHECK)
    (record,) = dagster.event_log_storage.get_asset_check_execution_history(key, limit=1)
    assert isinstance(record.evaluation, dg.AssetCheckEvaluation)
    return record.evaluation


def test_the_workers_tables_have_their_contracts_columns(platform: Platform, dagster: dg.DagsterInstance) -> None:
    ingest(platform.settings, "flight_events", departures(DAYS[0]))
    fill_lookups(platform.settings)
    report(platform, dagster)
    for name in (BRONZE, "lookup.airlines", "lookup.airports", "lookup.planes"):
        assert recorded(dagster, name).passed
        assert execute(platform, dagster, name).passed
    assert execute(platform, dagster, "quarantine.flight_events").passed
    missing = execute(platform, dagster, "bronze.weather")
    assert not missing.passed
    assert "Table bronze.weather: does not exist." in str(missing.description)


def test_a_column_dropped_behind_the_contracts_back_is_told(platform: Platform, dagster: dg.DagsterInstance) -> None:
    ingest(platform.settings, "flight_events", departures(DAYS[0]))
    fill_lookups(platform.settings)
    delete_column(platform, BRONZE, "air_time")
    delete_column(platform, "lookup.airlines", "name")
    with platform.catalog().load_table("lookup.planes").update_schema() as change:
        change.delete_column("seats")
        change.add_column("seats", StringType())
    with platform.catalog().load_table("quarantine.flight_events").update_schema() as change:
        change.make_column_optional("reason")
    report(platform, dagster)
    reason = {"column": "reason", "expected": "string, required", "found": "string, optional"}
    for name, difference in (
        (BRONZE, {"column": "air_time", "expected": "int, optional", "found": "no such column"}),
        ("lookup.airlines", {"column": "name", "expected": "string, required", "found": "no such column"}),
        ("lookup.planes", {"column": "seats", "expected": "int, required", "found": "string, optional"}),
        ("quarantine.flight_events", reason),
    ):
        alone = execute(platform, dagster, name)
        for verdict in (alone,) if difference is reason else (alone, recorded(dagster, name)):
            assert (verdict.passed, verdict.severity) == (False, dg.AssetCheckSeverity.ERROR)
            assert table(verdict, "differences") == [difference]
            assert difference["column"] in str(verdict.description)
    # As a worker does when it starts.
    ensure_stream_tables(platform.catalog(), platform.contracts["flight_events"], platform.contracts)
    assert execute(platform, dagster, BRONZE).passed


def test_a_column_too_many_is_a_warning(platform: Platform, dagster: dg.DagsterInstance, live: Live) -> None:
    ingest(platform.settings, "flight_events", departures(DAYS[0]))
    live()
    for name in (BRONZE, SILVER):
        with platform.catalog().load_table(name).update_schema() as change:
            change.add_column("surplus", DoubleType())
        verdict = execute(platform, dagster, name)
        assert (verdict.passed, verdict.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert verdict.description == "surplus: expected no such column, found double, optional"


def test_gold_takes_nothing_from_a_silver_table_that_lacks_a_column(platform: Platform, live: Live) -> None:
    ingest(platform.settings, "flight_events", departures(DAYS[0]))
    (first,) = live()
    judged = {key[0]: verdict for key, verdict in first.items() if key[1] == SCHEMA_CHECK}
    assert {SILVER, "gold.carrier_day", "gold.route_day"} <= set(judged)
    assert all(verdict.passed for verdict in judged.values())
    head = platform.catalog().load_table("gold.carrier_day").current_snapshot()
    delete_column(platform, SILVER, "dep_delay")
    ingest(platform.settings, "flight_events", departures(DAYS[1]))
    (verdicts,) = live()
    verdict = verdicts[SILVER, SCHEMA_CHECK]
    assert (verdict.passed, verdict.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert verdict.description == "dep_delay: expected int, optional, found no such column"
    assert not [key for key in verdicts if key[0].startswith("gold.")]
    assert platform.catalog().load_table("gold.carrier_day").current_snapshot() == head


def test_an_unusual_day_is_found_once_it_is_over_and_late_data_is_learned(platform: Platform, live: Live) -> None:
    for day in DAYS[:-1]:
        ingest(platform.settings, "flight_events", departures(day, 40))
    few = departures(DAYS[-1], 8, tailnum=None)
    ingest(platform.settings, "flight_events", few)
    platform.clock.set(start=DAYS[0], now=datetime(2013, 1, 13, 5, tzinfo=UTC))  # An event may be six hours late.
    before = live()[-1][SILVER, "anomalies"]
    assert before.passed
    assert number(before, "days_learning") == 7
    assert {row["day"] for row in table(before, "findings")} == {day.isoformat() for day in DAYS[:-1]}

    platform.clock.set(start=DAYS[0], now=NOON_AFTER)
    ingest(platform.settings, "flight_events", departures(DAYS[-1] + timedelta(days=1), 1))
    (verdicts,) = live()
    found = verdicts[SILVER, "anomalies"]
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert number(found, "days_read") == 1
    unusual = {
        (row["day"], row["column"], row["measure"]): row
        for row in table(found, "findings")
        if row["verdict"].startswith("too")
    }
    assert set(unusual) >= {("2013-01-12", "", "rows"), ("2013-01-12", "tailnum", "null share")}
    assert {key[0] for key in unusual} == {"2013-01-12"}
    rows = unusual["2013-01-12", "", "rows"]
    assert (rows["value"], rows["verdict"]) == ("8", "too low")
    assert str(found.description).startswith("2013-01-12 rows 8 (expected 30 to 50); ")
    flights = [
        row for row in table(verdicts["gold.carrier_day", "anomalies"], "findings") if row["column"] == "flights"
    ]
    assert [(row["day"], row["measure"], row["verdict"]) for row in flights] == [("2013-01-12", "mean", "too low")]
    assert verdicts["gold.carrier_day", SCHEMA_CHECK].passed  # It kept nothing from Gold.

    # What was missing comes late, and an old day changes as well: both are learned anew, and only they.
    late = departures(DAYS[-1], 40)
    ingest(platform.settings, "flight_events", late, at=NOON_AFTER)
    old = [row | {"event_id": f"late-{row['event_id']}"} for row in departures(DAYS[6], 3)]
    ingest(platform.settings, "flight_events", old, at=NOON_AFTER)
    *_, after = runs = [verdicts[SILVER, "anomalies"] for verdicts in live()]
    assert after.passed
    assert sum(number(each, "days_read") for each in runs) == 2
    judged = {row["day"]: row for row in table(after, "findings")}
    assert (judged["2013-01-12"]["value"], judged["2013-01-12"]["verdict"]) == ("40", "in range")
    assert judged["2013-01-07"]["value"] == "43"
