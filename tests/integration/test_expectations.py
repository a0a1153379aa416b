"""Suites of one's own in Dagster runs: what blocks and what does not, and the report that a check links to."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from freshdata.clock import instance_clock
from freshdata.contracts import load_contracts
from freshdata.services.processes import free_port, listening
from freshdata.settings import PROJECT, Settings
from freshdata.transform.manifest import load_manifest
from freshdata_assets.automation import live_run_requests
from freshdata_assets.defs.bronze.assets import external_specs
from freshdata_assets.defs.quality.checks import quality_checks
from freshdata_assets.defs.resources import Transform
from freshdata_assets.defs.transform.assets import transform_assets
from freshdata_assets.platform import Platform
from tests.lakes import departures, ingest
from tests.streams import wait_for

pytestmark = pytest.mark.integration

DAY, NEXT = date(2013, 1, 1), date(2013, 1, 2)
SILVER, GOLD, MONTH = "silver/flight_events", "gold/carrier_day", "gold/carrier_month"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An instance of a project with room for suites."""
    project = tmp_path / "project"
    for folder in ("contracts", "sqlmesh_models"):
        shutil.copytree(PROJECT / folder, project / folder)
    (project / "expectations").mkdir()
    monkeypatch.setenv("FRESHDATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FRESHDATA_PROJECT", str(project))
    settings = Settings()
    instance_clock(settings.home).set(start=DAY, now=datetime(2013, 1, 4, tzinfo=UTC))
    return settings


@pytest.fixture
def live(settings: Settings) -> Callable[[], dg.ExecuteInProcessResult]:
    """Carries out the live run that the sensor would ask for."""
    dagster = dg.DagsterInstance.ephemeral()

    def run() -> dg.ExecuteInProcessResult:
        platform = Platform(settings, load_contracts(settings.contracts_dir), load_manifest(settings))
        (request,) = live_run_requests(platform, platform.catalog())
        keys = set(request.asset_check_keys or ())
        return dg.materialize(
            [*external_specs(platform), *transform_assets(platform), *quality_checks(platform)],
            instance=dagster,
            resources={"transform": Transform()},
            selection=dg.AssetSelection.assets(*(request.asset_selection or ())).without_checks()
            | dg.AssetSelection.checks(*keys),
            tags=dict(request.tags),
            raise_on_error=False,
        )

    return run


def made(result: dg.ExecuteInProcessResult) -> set[str]:
    return {
        event.step_materialization_data.materialization.asset_key.to_user_string()
        for event in result.all_events
        if event.event_type_value == "ASSET_MATERIALIZATION"
    }


def verdict(result: dg.ExecuteInProcessResult, asset: str, check: str) -> dg.AssetCheckEvaluation:
    found = result.get_asset_check_evaluations()
    return next(item for item in found if (item.asset_key.to_user_string(), item.check_name) == (asset, check))


def write(settings: Settings, name: str, **expectation: Any) -> None:
    """A suite of one expectation that no departure meets, or as changed."""
    usual = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "distance", "max_value": 100}}
    (settings.expectations_dir / name).write_text(json.dumps({"expectations": [usual | expectation]}))


def test_an_error_keeps_rows_from_what_follows_and_a_warning_does_not(
    settings: Settings, live: Callable[[], dg.ExecuteInProcessResult]
) -> None:
    write(settings, "flight_events.json", severity="warning")
    flights = {"column": "flights", "min_value": 3}
    write(settings, "gold.carrier_day.json", kwargs=flights, meta={"id": "enough", "severity": "error"})
    ingest(settings, "flight_events", departures(DAY, origin="<b>J"))
    first = live()
    warned = verdict(first, SILVER, "contract_rules")
    assert (warned.passed, warned.severity) == (False, dg.AssetCheckSeverity.ERROR)  # The contract has a say as well.
    assert "origin.pattern (error)" in str(warned.description)
    assert "distance.values_to_be_between (warning): 4 bad of 4" in str(warned.description)
    assert GOLD not in made(first)
    page = Path(str(warned.metadata["freshdata/report_file"].value))
    text = page.read_text()
    assert "distance values must be less than or equal to 100.0." in text
    assert "&lt;b&gt;J" in text
    assert "<b>" not in text

    # The bad rows are corrected: what only warns goes on to Gold, whose own suite stops the months made from it.
    corrected = datetime(2013, 1, 3, tzinfo=UTC)
    ingest(settings, "flight_events", departures(DAY), at=corrected)
    second = live()
    assert verdict(second, SILVER, "contract_rules").severity == dg.AssetCheckSeverity.WARN
    assert GOLD in made(second)
    assert MONTH not in made(second)
    stopped = verdict(second, GOLD, "expectations")
    assert (stopped.passed, stopped.severity) == (False, dg.AssetCheckSeverity.ERROR)
    (record,) = stopped.metadata["freshdata/rules"].records
    assert record.data["rule"] == "enough"
    assert (record.data["bad"], record.data["from"]) == (2, "expectations/gold.carrier_day.json")
    assert record.data["asks"] == "expect_column_values_to_be_between(column='flights', min_value=3)"
    assert json.loads(str(record.data["sample"]))[0]["flights"] == 2

    # It looks at what the months have not taken in, whatever day the news is of.
    write(settings, "flight_events.json", severity="error")
    ingest(settings, "flight_events", departures(NEXT, 6))
    assert GOLD not in made(live())
    write(settings, "flight_events.json", kwargs={"column": "distance", "max_value": 1000})
    third = live()
    assert [verdict(third, SILVER, "contract_rules").passed, GOLD in made(third)] == [True, True]
    assert "freshdata/report" not in verdict(third, SILVER, "contract_rules").metadata
    assert not verdict(third, GOLD, "expectations").passed
    assert MONTH not in made(third)
    assert len(list(page.parent.glob("*.html"))) >= 3


def test_the_web_server_shows_pages_that_run_nothing(settings: Settings, tmp_path: Path) -> None:
    page = settings.pages_dir / "quality" / "silver.flight_events-20130101T000000000000.html"
    page.parent.mkdir(parents=True)
    page.write_text("<h1>silver.flight_events</h1>")
    (settings.home / "secret").write_text("x")
    workspace, port = tmp_path / "workspace.yaml", free_port()
    workspace.write_text("load_from: []")
    (tmp_path / "dagster").mkdir()
    command = (sys.executable, "-m", "freshdata_assets.web", "-w", str(workspace), "-h", "127.0.0.1", "-p", str(port))
    server = subprocess.Popen(command, env={**os.environ, "DAGSTER_HOME": str(tmp_path / "dagster")})
    try:
        wait_for(partial(listening, port), "the web server's start")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/pages/quality/{page.name}") as answer:
            assert answer.read() == page.read_bytes()
            assert answer.headers["content-type"].startswith("text/html")
            assert "content-disposition" not in answer.headers
            assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        for path in ("/pages/quality/none.html", "/pages/%2e%2e/secret", "/pages/"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/assets") as answer:
            assert b"Dagster" in answer.read()
    finally:
        server.terminate()
        server.wait(30)
