"""The Dagster UI as its users drive it, in a real headless browser, on one platform that runs for all of the tests."""

import json
import os
import re
import signal
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from dagster import AssetKey, DagsterEventType, DagsterRun, DagsterRunStatus
from dagster._core.scheduler.instigation import TickStatus
from playwright.sync_api import BrowserContext, Page, expect

from freshdata.lake.catalog import load_table
from freshdata_assets.scope import MODE, PARTITION
from tests.browser.conftest import CHROMIUM, PRESENT, SCREENSHOTS, START, Running
from tests.lakes import day_files
from tests.streams import wait_for

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: install it to run the browser tests"),
]

# By then every tenant has broken its SLA of 48 hours, and few have been silent for three days, after which one is idle.
SILENT = datetime(2013, 1, 5, 18, tzinfo=UTC)
GOLD, SILVER = "gold.carrier_day", "silver.flight_events"
SENSOR = "/locations/freshdata/sensors/snapshots"


@dataclass(frozen=True)
class Launched:
    """A backfill launched in the UI, and what was there before."""

    days: tuple[date, date]
    known: set[str]
    rows: list[dict[str, Any]]
    files: dict[date, set[str]]


@pytest.fixture(scope="module")
def launched(running: Running, browser: BrowserContext) -> Launched:
    """The daemon takes a backfill up within half a minute: it is launched first and looked at last."""
    days = (START, START + timedelta(days=1))
    table = load_table(running.catalog, GOLD)
    launched = Launched(days, running.known_runs(), rows(running, GOLD), day_files(table))
    page = browser.new_page()
    choose(page, "gold/carrier_day", f"[{days[0]}...{days[1]}]")
    expect(page.get_by_text("Backfills all partitions in a single run.")).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "backfill.png")
    page.get_by_role("button", name="Launch backfill").click()
    wait_for(running.dagster.get_backfills, "the backfill")
    page.close()
    return launched


@pytest.fixture(scope="module")
def silence(running: Running) -> datetime:
    """The clock goes on, and nothing comes in; returns when that was, by the wall clock."""
    running.clock.set(start=START, now=SILENT)
    return datetime.now(UTC)


def alerts_since(running: Running, when: datetime) -> list[str]:
    """The states that the flights' alerts have told since, oldest first."""
    records = running.dagster.fetch_materializations(AssetKey(["alerts", "flight_events"]), limit=9).records
    return [
        str(record.asset_materialization.metadata["freshdata/state"].value)
        for record in reversed(records)
        if record.asset_materialization and record.timestamp > when.timestamp()
    ]


@pytest.fixture(scope="module")
def late(running: Running, silence: datetime, browser: BrowserContext) -> datetime:
    """Tenants have been told to be late; returns when the silence began."""
    wait_for(lambda: alerts_since(running, silence), "the alert")
    page = browser.new_page()
    page.goto("/assets/alerts/flight_events?view=events")
    expect(page.get_by_text("the producer is silent").first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "alert.png")
    page.goto("/assets/silver/flight_events?view=checks&checkDetail=tenant_freshness")
    expect(page.get_by_text("late since").first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "late.png")
    page.close()
    return silence


@pytest.fixture(scope="module")
def killed(running: Running, late: datetime, browser: BrowserContext) -> tuple[set[str], list[DagsterRun]]:
    """With the sensor switched off events come in, and a run is launched by hand and killed.

    Returns:
        The ids of the runs before, and the runs that no sensor asked for since.
    """
    wait_for(running.built, "the end of the runs before")
    known, page = running.known_runs(), browser.new_page()
    page.goto(SENSOR)
    page.locator("label", has=page.get_by_role("checkbox")).click()
    expect(page.get_by_role("checkbox")).not_to_be_checked()
    wait_for(lambda: running.last_tick("snapshots") != TickStatus.STARTED, "the end of the tick under way")
    running.send_sample(PRESENT, SILENT)
    launch(page, "silver/flight_events", "2013-01-02")

    def process() -> int | None:
        for run in running.new_runs(known):
            for entry in running.dagster.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT):
                event = entry.dagster_event
                pid = event.engine_event_data.metadata.get("pid") if event else None
                if run.status == DagsterRunStatus.STARTED and pid is not None:
                    return int(str(pid.value))
        return None

    os.kill(wait_for(process, "the run's start"), signal.SIGKILL)
    page.close()
    return known, running.finished(known, 2)


def rows(running: Running, name: str) -> list[dict[str, Any]]:
    return sorted(load_table(running.catalog, name).scan().to_arrow().to_pylist(), key=str)


def choose(page: Page, asset: str, partitions: str) -> None:
    """Open an asset's launch dialog and choose partitions in it."""
    page.goto(f"/assets/{asset}")
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_placeholder("ex: 2013-01-01").fill(partitions)
    page.keyboard.press("Tab")


def launch(page: Page, asset: str, partition: str) -> None:
    choose(page, asset, partition)
    page.get_by_role("button", name="Launch").last.click()


def launch_together(page: Page, partition: str, *assets: str) -> None:
    """Launch a run of several assets, as the UI does it when they are selected."""
    mutation = """mutation ($run: ExecutionParams!) {
      launchPipelineExecution(executionParams: $run) { __typename }
    }"""
    run = {
        "mode": "default",
        "selector": {
            "repositoryLocationName": "freshdata",
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": asset.split("/")} for asset in assets],
        },
        "executionMetadata": {"tags": [{"key": PARTITION, "value": partition}]},
    }
    answer = page.request.post("/graphql", data={"query": mutation, "variables": {"run": run}}).json()
    assert answer["data"]["launchPipelineExecution"]["__typename"] == "LaunchRunSuccess", answer


def test_the_graph_shows_bronze_to_gold_with_checks(launched: Launched, page: Page) -> None:
    page.goto("/assets/gold/carrier_day?view=lineage&lineageScope=upstream&lineageDepth=5")
    for node in ("airlines", "carrier_day"):
        expect(page.get_by_text(node, exact=True).first).to_be_visible()
    for group in ("bronze", "silver", "gold"):
        expect(page.get_by_text(group).first).to_be_visible()
    # Checks are in the nodes themselves: of Gold, Silver, Bronze and the lookup; a topic has none.
    expect(page.get_by_text("Passed")).to_have_count(4)
    expect(page.get_by_text("Loading")).to_have_count(0)
    page.screenshot(path=SCREENSHOTS / "lineage.png", clip={"x": 300, "y": 305, "width": 1340, "height": 620})
    page.goto("/asset-groups")
    for group in ("bronze", "lookup", "quarantine", "silver", "gold", "serving"):
        expect(page.get_by_text(group, exact=True).first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "asset-groups.png")


def test_an_asset_shows_its_schema_owner_and_checks(launched: Launched, page: Page) -> None:
    page.goto("/assets/silver/flight_events")
    for text in ("flight-ops", "scheduled_departure", "Date of the scheduled departure, in the origin's local time."):
        expect(page.get_by_text(text).first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "silver-flight-events.png")
    page.goto("/assets/silver/flight_events?view=checks&checkDetail=contract_rules")
    expect(page.get_by_text("all 29 rules hold").first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "checks.png")


def test_a_backfill_of_days_is_one_run_that_touches_only_them(
    running: Running, launched: Launched, silence: datetime, page: Page
) -> None:
    [run] = running.finished(launched.known)
    assert run.status == DagsterRunStatus.SUCCESS
    days = {launched.days[0], launched.days[1]}
    assert partitions(running, run, "gold/carrier_day") == {day.isoformat() for day in days}
    table = load_table(running.catalog, GOLD)
    after = day_files(table)
    assert {day for day in after if after[day] != launched.files.get(day)} <= days
    assert rows(running, GOLD) == launched.rows
    page.goto(f"/runs/{run.run_id}")
    expect(page.get_by_text("Success").first).to_be_visible()
    expect(page.get_by_text("gold.carrier_day: ").first).to_be_visible()


def partitions(running: Running, run: DagsterRun, asset: str) -> set[str | None]:
    """The partitions of an asset that a run materialized."""
    entries = running.dagster.all_logs(run.run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION)
    events = [entry.dagster_event for entry in entries if entry.dagster_event]
    return {event.partition for event in events if event.asset_key == AssetKey(asset.split("/"))}


def test_from_asset_failure_runs_the_model_that_failed_and_no_other(running: Running, page: Page) -> None:
    wait_for(running.built, "the end of the runs before")
    known, day = running.known_runs(), START.isoformat()
    rename(running, "silver.weather", "visib", "visibility")
    # Nothing is made from routes: no run of the sensor's follows, for which the next one would wait.
    launch_together(page, day, "gold/route_day", "gold/delay_by_weather")
    [failed] = running.finished(known)
    rename(running, "silver.weather", "visibility", "visib")
    assert failed.status == DagsterRunStatus.FAILURE
    assert partitions(running, failed, "gold/route_day") == {day}
    page.goto(f"/runs/{failed.run_id}")
    expect(page.get_by_text(re.compile("gold.delay_by_weather failed: .*visib")).first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "failed-model.png")
    page.get_by_role("button", name="arrow_drop_down").click()
    page.get_by_text("From asset failure").click()
    _, again = running.finished(known, 2)
    assert (again.status, again.parent_run_id) == (DagsterRunStatus.SUCCESS, failed.run_id)
    assert partitions(running, again, "gold/delay_by_weather") == {day}
    assert partitions(running, again, "gold/route_day") == set()


def rename(running: Running, table: str, column: str, name: str) -> None:
    with load_table(running.catalog, table).update_schema() as change:
        change.rename_column(column, name)


def test_a_killed_run_is_found_marked_and_done_again(
    running: Running, killed: tuple[set[str], list[DagsterRun]], page: Page
) -> None:
    first, again = killed[1]
    assert (first.status, again.status) == (DagsterRunStatus.FAILURE, DagsterRunStatus.SUCCESS)
    assert again.parent_run_id == first.run_id
    assert partitions(running, again, "silver/flight_events") == {"2013-01-02"}
    page.goto(f"/runs/{first.run_id}")
    for text in ("terminated by signal 9", "Retrying the run"):
        expect(page.get_by_text(text).first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "killed-run.png")
    page.goto(f"/runs/{again.run_id}")
    expect(page.get_by_text("RUN_SUCCESS").first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "run.png")


def test_while_the_sensor_is_off_nothing_runs_by_itself(
    running: Running, killed: tuple[set[str], list[DagsterRun]], page: Page
) -> None:
    # In the time of two runs Gold would have followed the day that was rewritten, and all that came in.
    assert [run for run in running.new_runs(killed[0], automatic=True) if MODE in run.tags] == []
    before = rows(running, GOLD)
    assert max(row["flight_date"] for row in before) <= PRESENT.date()
    assert not running.built()
    page.goto(SENSOR)
    page.locator("label", has=page.get_by_role("checkbox")).click()
    expect(page.get_by_role("checkbox")).to_be_checked()
    wait_for(running.built, "Gold")
    assert {row["flight_date"] for row in rows(running, GOLD)} > {row["flight_date"] for row in before}


def test_bad_rows_stop_before_gold_and_the_page_shows_why(running: Running, page: Page) -> None:
    wait_for(running.built, "the end of the runs before")
    known, gold = running.known_runs(), load_table(running.catalog, GOLD).metadata.current_snapshot_id
    contract = running.platform.contracts["flight_events"]
    for number in range(3):
        event = bad_departure(number)
        key, payload = event["event_id"].encode(), json.dumps(event).encode()
        running.send({"topic": contract.rules.topic, "key": key, "payload": payload, "sent_at": SILENT})

    def failed() -> DagsterRun | None:
        runs = running.new_runs(known, automatic=True)
        return next((run for run in runs if run.status == DagsterRunStatus.FAILURE), None)

    run = wait_for(failed, "the run's failure")
    page.goto("/assets/silver/flight_events?view=checks&checkDetail=contract_rules")
    expect(page.get_by_text("departed_has_delay (error): 3 bad of").first).to_be_visible()
    row = page.get_by_role("row", name=re.compile("^departed_has_delay"))
    expect(row).to_contain_text("failed")
    expect(row).to_contain_text("UA-bad-0")
    page.screenshot(path=SCREENSHOTS / "failed-check.png", clip={"x": 240, "y": 95, "width": 1460, "height": 720})
    page.goto(f"/runs/{run.run_id}")
    expect(page.get_by_text(re.compile("Dependencies for step gold_daily failed")).first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "stopped-run.png")
    page.goto("/assets/gold/carrier_day?view=lineage&lineageScope=upstream&lineageDepth=5")
    expect(page.get_by_text(re.compile("[0-7] / 8 Passed"))).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "stopped-lineage.png", clip={"x": 300, "y": 305, "width": 1340, "height": 620})
    assert load_table(running.catalog, GOLD).metadata.current_snapshot_id == gold


def test_late_tenants_are_told_once_and_are_fresh_again(running: Running, late: datetime, page: Page) -> None:
    wait_for(lambda: "resolved" in alerts_since(running, late), "the end of the alert")
    assert alerts_since(running, late) == ["late", "resolved"]
    page.goto("/assets/silver/flight_events?view=checks&checkDetail=tenant_freshness")
    expect(page.get_by_text("Passed").first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "fresh.png")


def bad_departure(number: int) -> dict[str, Any]:
    """A departure that the contract's fields allow, but not its rules: it lacks its delay."""
    return {
        "event_id": f"UA-bad-{number}",
        "event_type": "departed",
        "tenant_id": "UA",
        "event_time": (SILENT - timedelta(hours=1)).isoformat(),
        "flight_date": (SILENT - timedelta(days=1)).date().isoformat(),
        "flight": 100 + number,
        "sched_dep_time": 600,
        "scheduled_departure": (SILENT - timedelta(hours=1)).isoformat(),
        "tailnum": "N100",
        "origin": "EWR",
        "dest": "ORD",
        "distance": 719,
    }
