"""Hours as real Dagster runs: asked for, following news, and kept from the days made of them by a check."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from freshdata.clock import instance_clock
from freshdata.contracts import load_contracts
from freshdata.errors import TransformError
from freshdata.intervals import HOUR, first_hour, last_hour
from freshdata.settings import PROJECT, Settings
from freshdata.transform.manifest import load_manifest
from freshdata.transform.runner import Runner, open_runner
from freshdata_assets.defs.automation.snapshots import snapshot_sensor
from freshdata_assets.defs.bronze.assets import external_specs
from freshdata_assets.defs.quality.checks import quality_checks
from freshdata_assets.defs.resources import Transform
from freshdata_assets.defs.transform.assets import transform_assets
from freshdata_assets.platform import Platform, asset_key, key_of
from freshdata_assets.scope import PARTITION, RANGE_END, RANGE_START
from tests.hourly import DAYS, HOURS, SILVER, START, clicks, project_with_models
from tests.lakes import ingest

pytestmark = pytest.mark.integration

DAY, AFTER = START.date(), START.date() + timedelta(days=1)
Run = Callable[..., dg.ExecuteInProcessResult]
Tick = Callable[[], list[dg.ExecuteInProcessResult]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return project_with_models(tmp_path_factory.mktemp("project"))


@pytest.fixture
def platform(project: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    settings = project.model_copy(update={"home_override": tmp_path})
    monkeypatch.setenv("FRESHDATA_HOME", str(settings.home))
    monkeypatch.setenv("FRESHDATA_PROJECT", str(settings.project))
    instance_clock(settings.home).set(start=DAY, now=START + 40 * HOUR)
    for number in range(4):
        ingest(settings, "clicks", clicks(START + number * HOUR, 3))
    return Platform(settings, load_contracts(settings.contracts_dir), load_manifest(settings))


@pytest.fixture
def dagster() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


@pytest.fixture
def run(platform: Platform, dagster: dg.DagsterInstance) -> Run:
    assets = [*external_specs(platform), *transform_assets(platform), *quality_checks(platform)]

    def execute(
        selection: list[dg.AssetKey], tags: dict[str, str], checks: Sequence[dg.AssetCheckKey] | None = None
    ) -> dg.ExecuteInProcessResult:
        chosen: dg.AssetSelection = dg.AssetSelection.assets(*selection)
        return dg.materialize(
            assets,
            instance=dagster,
            resources={"transform": Transform()},
            selection=chosen if checks is None else chosen.without_checks() | dg.AssetSelection.checks(*checks),
            tags=tags,
            raise_on_error=False,
        )

    return execute


@pytest.fixture
def tick(platform: Platform, dagster: dg.DagsterInstance, run: Run) -> Tick:
    """Runs what the sensor asks for, as Dagster does: never a second time."""
    asked: set[str | None] = set()

    def execute() -> list[dg.ExecuteInProcessResult]:
        with dg.build_sensor_context(instance=dagster) as context:
            result = snapshot_sensor(platform, patience=0)(context)
        if isinstance(result, dg.SkipReason):
            return []
        assert isinstance(result, dg.SensorResult)
        fresh = [request for request in result.run_requests or () if request.run_key not in asked]
        asked.update(request.run_key for request in fresh)
        return [run(list(one.asset_selection or ()), dict(one.tags), one.asset_check_keys) for one in fresh]

    return execute


def over(*limits: date) -> dict[str, str]:
    return {RANGE_START: key_of(limits[0]), RANGE_END: key_of(limits[-1])}


def done(result: dg.ExecuteInProcessResult, model: str) -> dict[str | None, Any]:
    """Each partition that a run reports of a model, to its rows."""
    found = {}
    for event in result.all_events:
        if event.event_type_value == "ASSET_MATERIALIZATION":
            materialization = event.step_materialization_data.materialization
            if materialization.asset_key == asset_key(model):
                found[materialization.partition] = materialization.metadata["dagster/partition_row_count"].value
    return found


def hours(platform: Platform, model: str) -> dict[datetime, int]:
    found: dict[datetime, int] = {}
    for row in platform.catalog().load_table(model).scan().to_arrow().to_pylist():
        found[row["event_hour"]] = found.get(row["event_hour"], 0) + row.get("clicks", 1)
    return found


def days(platform: Platform) -> dict[date, int]:
    found: dict[date, int] = {}
    for row in platform.catalog().load_table(DAYS).scan().to_arrow().to_pylist():
        found[row["event_date"]] = found.get(row["event_date"], 0) + row["clicks"]
    return found


def steps(result: dg.ExecuteInProcessResult, kind: str) -> list[str]:
    return [str(event.step_key) for event in result.all_events if event.event_type_value == kind]


def why(result: dg.ExecuteInProcessResult) -> str:
    (failure,) = (event for event in result.all_events if event.event_type_value == "STEP_FAILURE")
    data = failure.step_failure_data.user_failure_data
    return str(data.description if data else failure.step_failure_data.error)


def test_the_graph_has_hours_and_days_and_maps_the_one_to_the_other(platform: Platform) -> None:
    graph = dg.Definitions(
        assets=[*external_specs(platform), *transform_assets(platform)], resources={"transform": Transform()}
    ).resolve_asset_graph()
    kinds = {name: type(graph.get(asset_key(name)).partitions_def) for name in ("bronze.clicks", *platform.models)}
    hourly, daily = dg.HourlyPartitionsDefinition, dg.DailyPartitionsDefinition
    assert kinds == {"bronze.clicks": hourly, SILVER: hourly, HOURS: hourly, DAYS: daily}
    mapping = graph.get_partition_mapping(asset_key(DAYS), asset_key(SILVER))
    day = platform.calendars["day"]
    upstream = mapping.get_upstream_mapped_partitions_result_for_partitions(
        day.subset_with_partition_keys([key_of(DAY)]), day, platform.calendars["hour"]
    ).partitions_subset
    assert (len(upstream), min(upstream.get_partition_keys())) == (24, "2026-03-01-00:00")


def test_one_hour_then_a_range_and_nothing_else(platform: Platform, run: Run) -> None:
    one = run([asset_key(SILVER), asset_key(HOURS)], {PARTITION: key_of(START)})
    assert one.success
    assert done(one, SILVER) == {"2026-03-01-22:00": 3}
    assert hours(platform, SILVER) == hours(platform, HOURS) == {START: 3}
    for _ in range(2):
        more = run([asset_key(SILVER), asset_key(HOURS)], over(START + HOUR, START + 2 * HOUR))
        assert more.success
        assert done(more, HOURS) == {"2026-03-01-23:00": 2, "2026-03-02-00:00": 2}
        assert hours(platform, HOURS) == {START + number * HOUR: 3 for number in range(3)}
    day = run([asset_key(DAYS)], {PARTITION: key_of(AFTER)})
    assert (done(day, DAYS), days(platform)) == ({"2026-03-02": 2}, {AFTER: 3})


def test_a_failed_model_leaves_the_others_results_and_is_done_again_alone(
    platform: Platform, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Runner.run_partitions

    def broken(self: Runner, model: str, *args: Any, **kwargs: Any) -> Any:
        if model == HOURS:
            raise TransformError(model, "is broken.", remedy="Mend it.")
        return real(self, model, *args, **kwargs)

    asked = over(START, START + 3 * HOUR)
    with monkeypatch.context() as patch:
        patch.setattr(Runner, "run_partitions", broken)
        failed = run([asset_key(SILVER), asset_key(HOURS)], asked)
    assert "gold.clicks_hour: Model gold.clicks_hour: is broken." in why(failed)
    assert (len(done(failed, SILVER)), done(failed, HOURS)) == (4, {})
    again = run([asset_key(HOURS)], asked)
    assert again.success
    assert hours(platform, HOURS) == hours(platform, SILVER)


def test_a_long_range_is_one_run_of_dg_launch_and_a_backfill_takes_hours_and_days_in_turn(
    platform: Platform, environment: Callable[[Settings], dict[str, str]]
) -> None:
    home, last = platform.settings.dagster_home, START + 40 * HOUR
    home.mkdir(parents=True)
    shutil.copyfile(PROJECT / "dagster.yaml", home / "dagster.yaml")
    asked = ["--assets", "silver/clicks,gold/clicks_hour", "--partition-range", f"{key_of(START)}...{key_of(last)}"]
    launched = subprocess.run(
        [Path(sys.executable).with_name("dg"), "launch", *asked],
        cwd=PROJECT,
        env=environment(platform.settings) | {"DAGSTER_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert launched.returncode == 0, launched.stdout
    assert launched.stdout.count("RUN_START ") == 1
    assert "rows of each of its 41 hours: 2026-03-01-22:00 3, " in launched.stdout
    assert hours(platform, HOURS) == {START + number * HOUR: 3 for number in range(4)}
    asked = ["--from", str(DAY), "--to", str(DAY), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "freshdata.cli", "backfill", *asked],
        cwd=PROJECT, env=environment(platform.settings), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [run["rows"] for run in json.loads(done.stdout)] == [{SILVER: 6, HOURS: 4}, {DAYS: 2}]
    assert days(platform) == {DAY: 6}


def test_news_flows_by_its_hours_and_then_by_their_days(platform: Platform, tick: Tick) -> None:
    (first,) = tick()
    assert set(done(first, SILVER)) == {key_of(START + number * HOUR) for number in range(4)}
    (second,) = tick()
    assert done(second, DAYS) == {"2026-03-01": 2, "2026-03-02": 2}
    assert days(platform) == {DAY: 6, AFTER: 6}
    assert tick() == []
    late = clicks(START, 1, click_id="late", clicked_at=START + timedelta(minutes=59))
    ingest(platform.settings, "clicks", late, at=START + 30 * HOUR)
    (third,) = tick()
    assert (done(third, SILVER), done(third, HOURS)) == ({"2026-03-01-22:00": 4}, {"2026-03-01-22:00": 2})
    # More hours have come in: each calendar has a run, and neither waits for the other.
    ingest(platform.settings, "clicks", clicks(START + 20 * HOUR))
    newer, older = tick()
    assert done(newer, SILVER) == {key_of(START + 20 * HOUR): 2}
    assert done(older, DAYS) == {"2026-03-01": 2, "2026-03-02": 2}
    assert tick() == []
    assert days(platform) == {DAY: 7, AFTER: 8}


def test_hours_that_a_check_refuses_keep_out_of_days_until_they_are_mended(
    platform: Platform, tick: Tick, run: Run
) -> None:
    tick(), tick()
    bad = clicks(START, 1, click_id="bad", price=-1.0)
    ingest(platform.settings, "clicks", bad, at=START + 30 * HOUR)
    (refused,) = tick()
    assert not refused.success
    (held,) = tick()
    assert steps(held, "STEP_FAILURE") == ["silver__clicks_contract_rules"]
    asked = run([asset_key(DAYS)], {PARTITION: key_of(DAY)})
    assert (
        "not run, because silver.clicks failed its check contract_rules on 2026-03-01: price.not-negative (error)"
        in why(asked)
    )
    # Another day's hours were not refused.
    assert run([asset_key(DAYS)], {PARTITION: key_of(AFTER)}).success
    assert days(platform) == {DAY: 6, AFTER: 6}
    assert tick() == []
    ingest(platform.settings, "clicks", [row | {"price": 1.0} for row in bad], at=START + 31 * HOUR)
    assert [one.success for one in (*tick(), *tick())] == [True, True]
    assert days(platform) == {DAY: 7, AFTER: 6}
    # A run that is killed between the rows and their check leaves them unchecked.
    ingest(platform.settings, "clicks", clicks(START, 1, click_id="unchecked", price=-1.0), at=START + 32 * HOUR)
    with open_runner(platform.settings) as runner:
        runner.run_live(SILVER)
    assert {one.success for one in tick()} == {False}
    assert days(platform) == {DAY: 7, AFTER: 6}
    # That a whole day's hours are fine says nothing of another day's.
    assert run([asset_key(SILVER)], over(first_hour(AFTER), last_hour(AFTER))).success
    refused = run([asset_key(DAYS)], {PARTITION: key_of(DAY)})
    assert "because silver.clicks failed its check contract_rules on 2026-03-01. Mend" in why(refused)
