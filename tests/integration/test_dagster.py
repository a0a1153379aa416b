"""Silver, checks and Gold as real Dagster runs on a small lake."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import pytest
from pydantic import PrivateAttr

from freshdata.clock import instance_clock
from freshdata.contracts import Contract
from freshdata.errors import TransformError
from freshdata.settings import Settings
from freshdata.transform.manifest import load_manifest
from freshdata.transform.results import ModelRun
from freshdata.transform.runner import Runner
from freshdata_assets.automation import live_run_requests
from freshdata_assets.defs.bronze.assets import external_specs
from freshdata_assets.defs.freshness.checks import freshness_checks
from freshdata_assets.defs.freshness.sensor import freshness_sensor
from freshdata_assets.defs.quality.checks import quality_checks
from freshdata_assets.defs.resources import Transform
from freshdata_assets.defs.transform import assets as transform_module
from freshdata_assets.defs.transform.assets import transform_assets
from freshdata_assets.platform import Platform
from freshdata_assets.scope import LIVE, MODE, PARTITION, RANGE_END, RANGE_START
from tests.lakes import departures, fill_lookups, ingest, observations

pytestmark = pytest.mark.integration

DAYS = [date(2013, 1, day) for day in (1, 2, 3)]
RULES = ("silver/flight_events", "contract_rules")
Run = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def platform(instance: Settings, contracts: dict[str, Contract], monkeypatch: pytest.MonkeyPatch) -> Platform:
    monkeypatch.setenv("FRESHDATA_HOME", str(instance.home))
    instance_clock(instance.home).set(start=DAYS[0], now=datetime(2013, 1, 4, 5, tzinfo=UTC))
    for day in DAYS:
        ingest(instance, "flight_events", departures(day))
        ingest(instance, "weather", observations(day))
    return Platform(instance, contracts, load_manifest(instance))


@pytest.fixture
def run(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(transform_module, "RETRIES", dg.RetryPolicy(max_retries=1))  # Without its back-off.
    assets = [
        *external_specs(platform),
        *transform_assets(platform),
        *quality_checks(platform),
        *freshness_checks(platform),
    ]
    dagster = dg.DagsterInstance.ephemeral()

    def execute(
        selection: list[dg.AssetKey] | None = None, tags: dict[str, str] | None = None, transform: Any = None
    ) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            assets,
            instance=dagster,
            resources={"transform": transform or Transform()},
            selection=dg.AssetSelection.assets(*selection) if selection else dg.AssetSelection.groups("silver", "gold"),
            tags=tags or {},
            raise_on_error=False,
        )

    return execute


def live(platform: Platform, run: Run, transform: Any = None) -> dg.ExecuteInProcessResult:
    (request,) = live_run_requests(platform, platform.catalog())
    return run(list(request.asset_selection or ()), dict(request.tags), transform)


def steps(result: dg.ExecuteInProcessResult, kind: str = "STEP_SUCCESS") -> list[str]:
    return [str(event.step_key) for event in result.all_events if event.event_type_value == kind]


def materialized(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str | None], int | None]:
    """Asset and partition to the partition's row count."""
    found = {}
    for event in result.all_events:
        if event.event_type_value == "ASSET_MATERIALIZATION":
            materialization = event.step_materialization_data.materialization
            rows = materialization.metadata.get("dagster/partition_row_count")
            found[materialization.asset_key.to_user_string(), materialization.partition] = rows.value if rows else None
    return found


def checks(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
    return {(item.asset_key.to_user_string(), item.check_name): item for item in result.get_asset_check_evaluations()}


def rows(platform: Platform, table: str) -> list[dict[str, Any]]:
    found = platform.catalog().load_table(table).scan().to_arrow()
    return sorted(found.to_pylist(), key=str)


def test_a_live_run_checks_silver_before_gold_and_leaves_nothing_behind(platform: Platform, run: Run) -> None:
    result = live(platform, run)
    assert result.success
    order = steps(result)
    assert order[0] == "silver_daily"
    assert order[-2:] == ["gold_daily", "gold_following"]
    assert "silver__flight_events_contract_rules" in order
    days = [day.isoformat() for day in DAYS]
    found = materialized(result)
    assert {key: count for key, count in found.items() if key[0] == "silver/flight_events"} == {
        ("silver/flight_events", day): 4 for day in days
    }
    assert {key: count for key, count in found.items() if key[0] == "gold/carrier_day"} == {
        ("gold/carrier_day", day): 2 for day in days
    }
    verdicts = checks(result)
    assert all(item.passed for item in verdicts.values())
    assert verdicts["gold/carrier_day", "not_null"].metadata["freshdata/failing_rows"].value == 0
    tenants = verdicts["silver/flight_events", "tenant_freshness"].metadata["freshdata/tenants"].records
    assert {(record.data["tenant"], record.data["status"]) for record in tenants} == {("AA", "fresh"), ("UA", "fresh")}
    # The sensor sees what the check of a run saw.
    with dg.build_sensor_context(instance=dg.DagsterInstance.ephemeral()) as context:
        looked = freshness_sensor(platform)(context)
    assert isinstance(looked, dg.SensorResult)
    assert {event.asset_key.to_user_string(): event.description for event in looked.asset_events} == {
        asset: item.description for (asset, name), item in verdicts.items() if name == "tenant_freshness"
    }
    assert live_run_requests(platform, platform.catalog()) == []


def test_news_beyond_the_runs_range_is_taken_in_and_reported(platform: Platform, run: Run) -> None:
    live(platform, run)
    late = departures(DAYS[0], 1, event_id="late-event", flight=99)
    ingest(platform.settings, "flight_events", late, at=datetime(2013, 1, 3, 20, tzinfo=UTC))
    ingest(platform.settings, "flight_events", departures(DAYS[2], 1, event_id="new-event", flight=98))
    first, second = live_run_requests(platform, platform.catalog())
    result = run(list(second.asset_selection or ()), dict(second.tags))
    found = materialized(result)
    assert found["silver/flight_events", "2013-01-03"] == 5
    assert found["silver/flight_events", "2013-01-01"] == 5
    assert ("silver/flight_events", "2013-01-02") not in found
    # The other range's run finds everything done, and says so on its own partitions.
    again = run(list(first.asset_selection or ()), dict(first.tags))
    assert again.success
    assert materialized(again)["gold/carrier_day", "2013-01-01"] == 2
    told = again.asset_materializations_for_node("gold_daily")
    assert {one.metadata["dagster/row_count"].value for one in told if one.asset_key.path[-1] == "carrier_day"} == {6}
    assert checks(again)[RULES].passed


def test_an_error_keeps_gold_out_and_shows_why(platform: Platform, run: Run) -> None:
    live(platform, run)
    before = rows(platform, "gold.carrier_day")
    ingest(platform.settings, "flight_events", departures(DAYS[1], 1, event_id="bad-event", flight=20_000))
    (request,) = live_run_requests(platform, platform.catalog())
    result = live(platform, run)
    assert not result.success
    verdict = checks(result)[RULES]
    assert not verdict.passed
    assert verdict.severity == dg.AssetCheckSeverity.ERROR
    assert verdict.description == "flight.range (error): 1 bad of 5"
    records = {record.data["rule"]: record.data for record in verdict.metadata["freshdata/rules"].records}
    assert records["flight.range"]["outcome"] == "failed"
    assert "bad-event" in str(records["flight.range"]["sample"])
    assert "gold_daily" not in steps(result)
    assert rows(platform, "gold.carrier_day") == before
    # Asked again the same, Dagster drops it by its key: it failed, and nothing has changed since.
    assert [again.run_key for again in live_run_requests(platform, platform.catalog())] == [request.run_key]


def test_gold_alone_of_days_that_a_check_refused_is_refused_until_a_check_of_them_passes(
    platform: Platform, run: Run
) -> None:
    silver, gold = dg.AssetKey(["silver", "flight_events"]), dg.AssetKey(["gold", "carrier_day"])

    def day(number: int, *assets: dg.AssetKey) -> dg.ExecuteInProcessResult:
        return run(list(assets), {PARTITION: DAYS[number].isoformat()})

    ingest(platform.settings, "flight_events", departures(DAYS[1], 1, event_id="bad-event", flight=20_000))
    assert not day(1, silver, gold).success
    # Another day's passing says nothing of this one.
    assert day(0, silver, gold).success
    refused = day(1, gold)
    (failure,) = (event for event in refused.all_events if event.event_type_value == "STEP_FAILURE")
    assert failure.step_failure_data.user_failure_data.description == (
        "gold.carrier_day: not run, because silver.flight_events failed its check contract_rules on 2013-01-02. "
        "Mend the rows, and materialize them with this model: their checks come first."
    )
    assert {row["flight_date"] for row in rows(platform, "gold.carrier_day")} == {DAYS[0]}
    assert day(0, gold).success
    ingest(
        platform.settings, "flight_events", departures(DAYS[1], 1, event_id="bad-event", flight=2),
        at=datetime(2013, 1, 4, tzinfo=UTC),
    )  # fmt: skip
    assert day(1, silver).success
    assert day(1, gold).success
    assert {row["flight_date"] for row in rows(platform, "gold.carrier_day")} == {*DAYS[:2]}


def test_months_follow_in_the_same_run_behind_the_same_checks(platform: Platform, run: Run) -> None:
    fill_lookups(platform.settings)
    requests = live_run_requests(platform, platform.catalog())
    # What is made from lookups alone waits for nobody's days.
    assert [RANGE_START in request.tags for request in requests] == [False, True]
    assert run(list(requests[1].asset_selection or ()), dict(requests[1].tags)).success
    months = rows(platform, "gold.carrier_month")
    assert {(row["flight_month"], row["tenant_id"], row["days"]) for row in months} == {
        (date(2013, 1, 1), "AA", 3), (date(2013, 1, 1), "UA", 3),
    }  # fmt: skip
    assert {row["flights"] for row in months} == {6}
    ingest(platform.settings, "flight_events", departures(DAYS[1], 1, event_id="bad-event", flight=20_000))
    (request,) = (one for one in live_run_requests(platform, platform.catalog()) if RANGE_START in one.tags)
    assert dg.AssetKey(["gold", "carrier_month"]) in (request.asset_selection or ())
    assert not run(list(request.asset_selection or ()), dict(request.tags)).success
    assert rows(platform, "gold.carrier_month") == months


def test_rows_that_an_audit_refused_stay_refused_when_other_days_get_news(platform: Platform, run: Run) -> None:
    live(platform, run)
    refused = departures(DAYS[0], 1, event_id="refused", event_type="exploded")
    ingest(platform.settings, "flight_events", refused)
    assert not checks(live(platform, run))["silver/flight_events", "accepted_values"].passed
    ingest(platform.settings, "flight_events", departures(DAYS[2], 1, event_id="fine", flight=97))
    later = run([dg.AssetKey(["silver", "flight_events"])], {MODE: LIVE})
    verdict = checks(later)["silver/flight_events", "accepted_values"]
    assert not verdict.passed
    assert verdict.metadata["freshdata/failing_rows"].value == 1


def test_a_warning_does_not_keep_gold_out(platform: Platform, run: Run) -> None:
    nameless = departures(DAYS[1], 4, tailnum=None)
    for number, row in enumerate(nameless):
        row["event_id"], row["flight"] = f"nameless-{number}", 500 + number
    ingest(platform.settings, "flight_events", nameless)
    result = live(platform, run)
    assert result.success
    verdict = checks(result)[RULES]
    assert not verdict.passed
    assert verdict.severity == dg.AssetCheckSeverity.WARN
    assert "gold_daily" in steps(result)


def test_a_range_is_one_run_that_leaves_what_a_live_run_leaves(platform: Platform, run: Run) -> None:
    tables = ("silver.flight_events", "silver.weather", "gold.carrier_day", "gold.route_day", "gold.delay_by_weather")
    span = {RANGE_START: DAYS[0].isoformat(), RANGE_END: DAYS[2].isoformat()}
    fill_lookups(platform.settings)
    result = run(tags=span)
    assert result.success
    assert {key[1] for key in materialized(result) if key[0] == "gold/carrier_day"} == {day.isoformat() for day in DAYS}
    assert "the run's days" in str(checks(result)[RULES].metadata["freshdata/extent"].value)
    rebuilt = {table: rows(platform, table) for table in tables}
    for request in live_run_requests(platform, platform.catalog()):
        assert run(list(request.asset_selection or ()), dict(request.tags)).success
    assert {table: rows(platform, table) for table in tables} == rebuilt


def test_a_day_without_events_breaks_its_rule(platform: Platform) -> None:
    platform.clock.set(start=DAYS[0], now=datetime(2013, 1, 5, 5, tzinfo=UTC))
    wider = Platform(platform.settings, platform.contracts, platform.models)
    ingest(platform.settings, "weather", observations(date(2013, 1, 4)))
    silver = [dg.AssetKey(["silver", "flight_events"])]
    result = dg.materialize(
        [*external_specs(wider), *transform_assets(wider), *quality_checks(wider)],
        instance=dg.DagsterInstance.ephemeral(),
        resources={"transform": Transform()},
        selection=dg.AssetSelection.assets(*silver),
        partition_key="2013-01-04",
        raise_on_error=False,
    )
    assert "rows_present" in str(checks(result)[RULES].description)


def test_a_refused_audit_keeps_gold_out_until_its_rows_change(platform: Platform, run: Run) -> None:
    ingest(platform.settings, "flight_events", departures(DAYS[1], 1, event_id="bad-event", event_type="exploded"))
    assert not live(platform, run).success
    # Silver has nothing new now; the verdict on what it holds stands.
    again = live(platform, run)
    verdict = checks(again)["silver/flight_events", "accepted_values"]
    assert not verdict.passed
    assert "As last evaluated" in str(verdict.description)
    assert "gold_daily" not in steps(again)


class Failing(Transform):
    """A runner that fails on one model."""

    model: str

    def runner(self, run_id: str) -> Runner:
        runner, broken = super().runner(run_id), self.model

        class Broken:
            def run_live(self, model: str) -> ModelRun:
                if model == broken:
                    raise TransformError(model, "is broken.", remedy="Mend it.")
                return runner.run_live(model)

        return Broken()  # type: ignore[return-value]


def test_one_models_failure_does_not_hide_the_others_success(platform: Platform, run: Run) -> None:
    result = live(platform, run, Failing(model="gold.carrier_day"))
    assert not result.success
    assert {key[0] for key in materialized(result)} == {
        "silver/flight_events", "silver/weather", "gold/delay_by_weather", "gold/route_day",
    }  # fmt: skip
    failure = next(event for event in result.all_events if event.event_type_value == "STEP_FAILURE")
    assert "gold.carrier_day" in str(failure.step_failure_data.user_failure_data.description)
    assert steps(result, "STEP_UP_FOR_RETRY") == []
    # What failed is still news.
    (request,) = live_run_requests(platform, platform.catalog())
    assert dg.AssetKey(["gold", "carrier_day"]) in (request.asset_selection or ())


class Unsteady(Transform):
    """A runner whose catalog is away when a model is run for the first time."""

    model: str
    _errors: list[Exception] = PrivateAttr(default_factory=lambda: [ConnectionResetError("by the catalog")])

    def runner(self, run_id: str) -> Runner:
        runner, model_in_trouble, errors = super().runner(run_id), self.model, self._errors

        class Away:
            def run_live(self, model: str) -> ModelRun:
                if model == model_in_trouble and errors:
                    raise TransformError(model, "failed.", remedy="Run it again.") from errors.pop()
                return runner.run_live(model)

        return Away()  # type: ignore[return-value]


def test_what_passes_by_itself_is_tried_again(platform: Platform, run: Run) -> None:
    result = live(platform, run, Unsteady(model="gold.carrier_day"))
    assert result.success
    assert steps(result, "STEP_UP_FOR_RETRY") == ["gold_daily"]
    assert materialized(result)["gold/carrier_day", DAYS[0].isoformat()] == 2
