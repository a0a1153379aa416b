"""``dg launch`` against the project's code location: exactly the days asked for, and what became of each."""

import os
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.table import Table

from freshdata.clock import instance_clock
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.settings import PROJECT, Settings
from tests.lakes import day_files, departures, ingest, observations

pytestmark = pytest.mark.integration

FIRST, LAST = date(2012, 1, 1), date(2012, 12, 31)
DAYS = [date(2012, 3, day) for day in (1, 2, 3)]
SILVER, GOLD, WEATHER = "silver.flight_events", "gold.carrier_day", "silver.weather"
FLIGHTS = "silver/flight_events,gold/carrier_day,gold/carrier_month"
Files = dict[date, set[str]]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A year of weather, one observation a day, and some days of flights."""
    settings = Settings().for_home(tmp_path_factory.mktemp("home"))
    instance_clock(settings.home).set(start=FIRST, now=datetime(2013, 1, 1, tzinfo=UTC))
    settings.dagster_home.mkdir()
    shutil.copyfile(PROJECT / "dagster.yaml", settings.dagster_home / "dagster.yaml")
    year = [FIRST + timedelta(days=number) for number in range((LAST - FIRST).days + 1)]
    ingest(settings, "weather", [row for day in year for row in observations(day)])
    ingest(settings, "flight_events", [row for day in [*DAYS, date(2012, 3, 4)] for row in departures(day)])
    return settings


def launch(settings: Settings, assets: str, *partitions: str) -> tuple[int, str]:
    """Run ``dg launch`` in the project; returns its exit code and output."""
    program = Path(sys.executable).with_name("dg")
    done = subprocess.run(
        [program, "launch", "--assets", assets, *partitions],
        cwd=PROJECT,
        env={**os.environ, "FRESHDATA_HOME": str(settings.home), "DAGSTER_HOME": str(settings.dagster_home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout


def table(settings: Settings, name: str) -> Table:
    return load_table(open_catalog(settings), name)


def changed(before: Files, after: Files) -> set[date]:
    return {day for day in before.keys() | after.keys() if before.get(day) != after.get(day)}


def rows(settings: Settings, name: str) -> list[dict[str, Any]]:
    return sorted(table(settings, name).scan().to_arrow().to_pylist(), key=str)


def told(output: str, model: str) -> str:
    """What a run's log says became of a model."""
    return next(line for line in output.splitlines() if f" - {model}: " in line)


def test_a_year_is_one_run_that_tells_of_each_day(settings: Settings) -> None:
    code, output = launch(settings, "silver/weather", "--partition-range", f"{FIRST}...{LAST}")
    assert code == 0, output
    assert output.count("RUN_START ") == 1
    assert "rows of each of its 366 days: 2012-01-01 1, 2012-01-02 1, " in told(output, WEATHER)
    assert len(day_files(table(settings, WEATHER))) == len(rows(settings, WEATHER)) == 366


def test_what_a_check_stopped_is_launched_again_for_its_day_alone(settings: Settings) -> None:
    ingest(settings, "flight_events", departures(DAYS[1], 1, dest="EWR"), at=datetime(2012, 3, 5, tzinfo=UTC))
    code, output = launch(settings, FLIGHTS, "--partition-range", f"{DAYS[0]}...{DAYS[-1]}")
    assert code == 1
    # Silver's success is told beside the failure of what guards Gold.
    assert told(output, SILVER).endswith("its 3 days: 2012-03-01 4, 2012-03-02 4, 2012-03-03 4")
    assert "origin_not_dest (error): 1 bad of 12" in output
    assert f" - {GOLD}: " not in output
    before = day_files(table(settings, SILVER))
    assert before.keys() == set(DAYS)
    code, output = launch(settings, "gold/carrier_day", "--partition", str(DAYS[1]))
    assert code == 1
    assert f"{SILVER} failed its check contract_rules on {DAYS[1]}: origin_not_dest (error): 1 bad of 12" in output
    ingest(settings, "flight_events", departures(DAYS[1], 1), at=datetime(2012, 3, 6, tzinfo=UTC))
    code, output = launch(settings, FLIGHTS, "--partition", str(DAYS[1]))
    assert code == 0, output
    assert told(output, GOLD).endswith("rows of each of its 1 days: 2012-03-02 2")
    assert changed(before, day_files(table(settings, SILVER))) == {DAYS[1]}
    assert day_files(table(settings, GOLD)).keys() == {DAYS[1]}
    assert [(row["tenant_id"], row["flights"]) for row in rows(settings, GOLD)] == [("AA", 2), ("UA", 2)]
