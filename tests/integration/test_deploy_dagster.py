"""The settings for a company: Dagster on PostgreSQL, its code server, daemon and web server as separate processes."""

import json
import os
import shutil
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import create_engine, text

from freshdata.clock import instance_clock
from freshdata.services.processes import Program, Supervisor, free_port, listening
from freshdata.settings import PROJECT, Settings
from tests.lakes import departures, ingest
from tests.postgres import create_database, find_postgres, postgres

pytestmark = pytest.mark.integration

DAY = date(2013, 1, 1)
DEPLOY = PROJECT / "deploy" / "dagster"
GOLD = dg.AssetKey(["gold", "carrier_day"])
LONGEST = 120.0  # seconds
LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus } } } }"""


@pytest.fixture
def database() -> Iterator[str]:
    programs = find_postgres()
    if programs is None:
        pytest.skip("no PostgreSQL: apt install postgresql")
    with postgres(programs) as address:
        yield create_database(address, "dagster")


@pytest.fixture
def home(instance: Settings, database: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """DAGSTER_HOME with the settings, beside an instance that has a day of flights."""
    instance_clock(instance.home).set(start=DAY, now=datetime(2013, 1, 2, 5, tzinfo=UTC))
    ingest(instance, "flight_events", departures(DAY))
    home = instance.dagster_home
    home.mkdir(parents=True)
    shutil.copyfile(DEPLOY / "dagster.yaml", home / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", database)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("FRESHDATA_HOME", str(instance.home))
    return home


@pytest.fixture
def web(instance: Settings, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The three processes; yields the web server's address."""
    code, port = free_port(), free_port()
    monkeypatch.setenv("FRESHDATA_CODE_HOST", "127.0.0.1")
    monkeypatch.setenv("FRESHDATA_CODE_PORT", str(code))
    location = (
        "-m",
        "freshdata_assets.definitions",
        "--location-name",
        "freshdata",
        "-h",
        "127.0.0.1",
        "-p",
        str(code),
    )
    workspace = ("-w", str(DEPLOY / "workspace.yaml"))
    at = ("-h", "127.0.0.1", "-p")
    supervisor = Supervisor(instance.logs, lambda: None)
    try:
        for name, command, ready in (
            ("code", ("dagster", "code-server", "start", *location, *at, str(code)), partial(listening, code)),
            ("daemon", ("dagster._daemon", "run", *workspace), lambda: True),
            ("web", ("dagster_webserver", *workspace, *at, str(port)), partial(listening, port)),
        ):
            program = Program((sys.executable, "-m", *command), cwd=PROJECT, ready=ready)
            supervisor.start(name, lambda program=program: program)  # type: ignore[misc]
        yield f"http://127.0.0.1:{port}"
    finally:
        supervisor.stop()


def until(condition: Callable[[], bool], what: str, logs: Path) -> None:
    deadline = time.monotonic() + LONGEST
    while not condition():
        if time.monotonic() > deadline:
            tails = {path.name: path.read_text()[-3000:] for path in logs.glob("*.log")}
            raise AssertionError(f"{what}: waited in vain\n{json.dumps(tails, indent=1)}")
        threading.Event().wait(0.2)


def loaded(web: str) -> bool:
    request = urllib.request.Request(
        f"{web}/graphql", json.dumps({"query": LOCATIONS}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        entries = json.load(answer)["data"]["workspaceOrError"]["locationEntries"]
    return entries == [{"name": "freshdata", "loadStatus": "LOADED"}]


def test_new_rows_reach_gold_and_all_that_dagster_knows_is_in_postgresql(
    instance: Settings, home: Path, database: str, web: str
) -> None:
    until(lambda: loaded(web), "the code location", instance.logs)
    with dg.DagsterInstance.from_config(str(home)) as dagster:
        until(lambda: dagster.get_latest_materialization_event(GOLD) is not None, "gold.carrier_day", instance.logs)
        finished = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])
        until(lambda: dagster.get_runs_count(finished) > 0, "the run's end", instance.logs)
    engine = create_engine(database)
    with engine.connect() as connection:
        for table in ("runs", "event_logs", "job_ticks"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() > 0, table
    engine.dispose()
    assert not list(home.rglob("*.db"))
    assert os.environ["DAGSTER_POSTGRES_URL"] not in (home / "dagster.yaml").read_text()
