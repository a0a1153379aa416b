"""The Dagster UI as its users drive it, in a real headless browser."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from freshdata.services.platform import Platform
from freshdata.settings import PROJECT
from tests.streams import wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SCREENSHOTS = Path(os.environ.get("FRESHDATA_SCREENSHOTS", PROJECT / ".ci" / "out"))
PATIENCE = 60_000  # milliseconds

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: install it to run the browser tests"),
]


@pytest.fixture(scope="module")
def dagster(january) -> Iterator[Platform]:
    """Dagster with its UI over the demo's instance."""
    with Platform(january.settings) as platform:
        platform.start_dagster(web_port=0)
        yield platform


@pytest.fixture
def page(dagster) -> Iterator[Page]:
    """A page of a real browser that reaches nothing but loopback."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport={"width": 1700, "height": 1000}, base_url=dagster.web_address)
        page.set_default_timeout(PATIENCE)
        yield page
        browser.close()


def test_the_graph_shows_bronze_to_gold_with_checks(page):
    page.goto("/assets/gold/carrier_day?view=lineage&lineageScope=upstream&lineageDepth=5")
    for node in ("airlines", "carrier_day"):
        expect(page.get_by_text(node, exact=True).first).to_be_visible(timeout=PATIENCE)
    for group in ("bronze", "silver", "gold"):
        expect(page.get_by_text(group).first).to_be_visible(timeout=PATIENCE)
    # Checks are in the nodes themselves: of Gold, Silver, Bronze and the lookup; a topic has none.
    expect(page.get_by_text("Passed")).to_have_count(4, timeout=PATIENCE)
    expect(page.get_by_text("Loading")).to_have_count(0, timeout=PATIENCE)
    page.screenshot(path=SCREENSHOTS / "lineage.png", clip={"x": 300, "y": 305, "width": 1340, "height": 620})
    page.goto("/asset-groups")
    for group in ("bronze", "lookup", "quarantine", "silver", "gold"):
        expect(page.get_by_text(group, exact=True).first).to_be_visible(timeout=PATIENCE)
    page.screenshot(path=SCREENSHOTS / "asset-groups.png")


def test_an_asset_shows_its_schema_owner_and_checks(page):
    page.goto("/assets/silver/flight_events")
    for text in ("flight-ops", "scheduled_departure", "Date of the scheduled departure, in the origin's local time."):
        expect(page.get_by_text(text).first).to_be_visible(timeout=PATIENCE)
    page.screenshot(path=SCREENSHOTS / "silver-flight-events.png")
    page.goto("/assets/silver/flight_events?view=checks")
    expect(page.get_by_text("contract_rules").first).to_be_visible(timeout=PATIENCE)
    page.screenshot(path=SCREENSHOTS / "checks.png")


def test_materializing_one_silver_partition_from_the_page_succeeds(page, january):
    from dagster import DagsterInstance, DagsterRunStatus

    with DagsterInstance.from_config(str(january.settings.dagster_home)) as instance:
        known = {run.run_id for run in instance.get_runs()}
        page.goto("/assets/silver/flight_events")
        page.get_by_role("button", name="Materialize").first.click()
        page.get_by_placeholder("ex: 2013-01-01").fill("2013-01-15")
        page.keyboard.press("Tab")
        page.get_by_role("button", name="Launch").last.click()

        def finished():
            # The sensor may answer with a run of its own: Gold follows the partition that Silver has rewritten.
            new = [run for run in instance.get_runs() if run.run_id not in known]
            mine = [run for run in new if "dagster/sensor_name" not in run.tags]
            return mine if mine and all(run.is_finished for run in mine) else None

        runs = wait_for(finished, "the run")
        assert [run.status for run in runs] == [DagsterRunStatus.SUCCESS]
        assert "2013-01-15" in str(runs[0].tags)
        page.goto(f"/runs/{runs[0].run_id}")
        expect(page.get_by_text("Success").first).to_be_visible(timeout=PATIENCE)
        page.screenshot(path=SCREENSHOTS / "run.png")
