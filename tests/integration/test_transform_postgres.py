"""Catalog and state on PostgreSQL: several processes run models at once, and no row is lost or twice there."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pyiceberg.catalog import Catalog

from freshdata.lake.catalog import load_table, open_catalog
from freshdata.lake.cursors import MODE_PROPERTY, behind
from freshdata.lake.progress import ancestors, summary_property
from freshdata.settings import Settings
from freshdata.transform.runner import open_runner
from freshdata.verify.layers import verify_models
from tests.bronze import append, flight_event, observation, rows
from tests.postgres import create_database, find_postgres, postgres

pytestmark = pytest.mark.integration

FLIGHTS, CARRIERS = "silver.flight_events", "gold.carrier_day"
DAYS = [date(2013, 1, 1) + timedelta(days=number) for number in range(3)]
UPSTREAM = {FLIGHTS: ("bronze.flight_events",), CARRIERS: (FLIGHTS,)}
ROUNDS, KILLS = 6, 3
# Runs models live, over and over, or by partition, once for each line that it is sent. Partition runs stop between
# computing their rows and storing them, say so, and wait for a line. It ends with its input, or as a run that fails.
LOOP = """
import select
import sys
from datetime import date
from freshdata.settings import load_settings
from freshdata.transform.engines.duckdb import DuckDBLakeAdapter
from freshdata.transform.runner import open_runner

def held(adapter, query, fetch=DuckDBLakeAdapter.fetch_arrow):
    rows = fetch(adapter, query)
    print("computed", flush=True)
    sys.stdin.readline()
    return rows

first, last = map(date.fromisoformat, sys.argv[2:])
live = sys.argv[1] == "live"
with open_runner(load_settings()) as runner:
    print("open", flush=True)
    if not live:
        DuckDBLakeAdapter.fetch_arrow = held
    while not select.select([sys.stdin], [], [], 0)[0] if live else sys.stdin.readline():
        for model in ("silver.flight_events", "gold.carrier_day"):
            runner.run_live(model) if live else runner.run_partitions(model, first, last)
        print("done", flush=True) if not live else None
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    programs = find_postgres()
    if programs is None:
        pytest.skip("no PostgreSQL: apt install postgresql")
    with postgres(programs) as address:
        yield address


@pytest.fixture
def shared(server: str, instance: Settings) -> Settings:
    """An instance whose catalog and state are PostgreSQL databases of its own."""
    name = uuid.uuid4().hex[:8]
    update = {
        "catalog_uri": create_database(server, f"catalog_{name}"),
        "state_uri": create_database(server, f"state_{name}"),
        "catalog_warehouse": f"file://{instance.home}/warehouse",
    }
    return instance.model_copy(update=update)


@pytest.fixture
def start(shared: Settings) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a process that runs models live, or by partition."""
    own = {
        "FRESHDATA_HOME": str(shared.home),
        "FRESHDATA_CATALOG_URI": str(shared.catalog_uri),
        "FRESHDATA_CATALOG_WAREHOUSE": str(shared.catalog_warehouse),
        "FRESHDATA_STATE_URI": str(shared.state_uri),
    }
    started: list[subprocess.Popen[str]] = []

    def start(what: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", LOOP, what, str(DAYS[0]), str(DAYS[-1])]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, env={**os.environ, **own}, text=True, **pipes)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ask(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("go\n")
    process.stdin.flush()


def answered(process: subprocess.Popen[str], answer: str) -> None:
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline() == f"{answer}\n", process.stderr.read()[-3000:]


def ended(process: subprocess.Popen[str]) -> None:
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors[-3000:]


def wait_for(done: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while not done():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.02)


def live_snapshots(catalog: Catalog) -> int:
    found = ancestors(load_table(catalog, FLIGHTS))
    return sum(summary_property(snapshot, MODE_PROPERTY) == "live" for snapshot in found)


def news(number: int) -> list[dict[str, Any]]:
    """New events of every day, and a later version of an event of each."""
    at = datetime(2013, 2, 1, tzinfo=UTC) + timedelta(minutes=number)
    fresh = [flight_event(day, 100 + number, "arrived", _ingested_at=at) for day in DAYS]
    return fresh + [flight_event(day, number % 3, dep_delay=number, _ingested_at=at) for day in DAYS]


def test_two_processes_run_the_same_models_at_once(
    shared: Settings, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    catalog = open_catalog(shared)
    append(catalog, "flight_events", [flight_event(day, number) for day in DAYS for number in range(3)])
    append(catalog, "weather", [observation(day) for day in DAYS])
    # Both find nothing deployed, and a state that is yet to be made.
    live, partitions = start("live"), start("partitions")
    answered(live, "open")
    answered(partitions, "open")
    for number in range(ROUNDS):
        ask(partitions)
        for part in range(len(UPSTREAM)):
            # What a live run takes in now is not among the rows that the partition run has computed of the same days.
            answered(partitions, "computed")
            before = live_snapshots(catalog)
            append(catalog, "flight_events", news(2 * number + part))
            wait_for(lambda before=before: live_snapshots(catalog) > before, live)  # type: ignore[misc]
            ask(partitions)
        answered(partitions, "done")
        wait_for(lambda: not behind(catalog, UPSTREAM), live)
        assert_each_event_is_there_once(catalog, 2 * number + 2)
    for process in (live, partitions):
        ended(process)
    assert_right(shared, catalog, 2 * ROUNDS)


def test_a_killed_process_is_made_good_by_the_next_run(
    shared: Settings, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    catalog = open_catalog(shared)
    append(catalog, "flight_events", [flight_event(day, number) for day in DAYS for number in range(3)])
    survivor = start("partitions")
    answered(survivor, "open")
    for number in range(KILLS):
        victim = start("live")
        answered(victim, "open")
        ask(survivor)
        answered(survivor, "computed")
        before = live_snapshots(catalog)
        append(catalog, "flight_events", news(number))
        wait_for(lambda before=before: live_snapshots(catalog) > before, victim)  # type: ignore[misc]
        victim.send_signal(signal.SIGKILL)  # While it runs Gold, or Silver again.
        assert victim.wait() == -signal.SIGKILL
        ask(survivor)
        answered(survivor, "computed")
        ask(survivor)
        answered(survivor, "done")
    ended(survivor)
    assert_right(shared, catalog, KILLS)


def assert_each_event_is_there_once(catalog: Catalog, rounds: int) -> None:
    """Silver has each event of Bronze once, in its newest version."""
    newest: dict[tuple[date, str], tuple[datetime, int]] = {}
    for row in rows(catalog, "bronze.flight_events"):
        key, version = (row["flight_date"], row["event_id"]), (row["_ingested_at"], row["_offset"])
        newest[key] = max(newest.get(key, version), version)
    stored = rows(catalog, FLIGHTS)
    assert len(stored) == len(newest) == len(DAYS) * (3 + rounds)
    assert {(row["flight_date"], row["event_id"]): (row["_ingested_at"], row["_offset"]) for row in stored} == newest


def assert_right(settings: Settings, catalog: Catalog, rounds: int) -> None:
    """After one more live run Silver is right, and Gold follows from it."""
    with open_runner(settings) as runner:
        for model in runner.manifest:
            runner.run_live(model)
    assert_each_event_is_there_once(catalog, rounds)
    assert [finding for finding in verify_models(settings, catalog) if not finding.ok] == []
