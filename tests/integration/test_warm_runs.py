"""Runs that are forked from a warm process: as isolated, stoppable and restartable as any, and never lost."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from itertools import count

import dagster as dg
import psutil
import pytest

from freshdata.clock import instance_clock
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.services.platform import Platform
from freshdata.settings import PROJECT, Settings
from freshdata_assets.defs.resources import TURN
from freshdata_assets.scope import LIVE, MODE
from freshdata_assets.warm.launcher import PROCESS
from tests.developers import checkout, edit
from tests.lakes import departures, ingest

pytestmark = pytest.mark.integration

DAY = date(2013, 1, 1)
LONGEST = 180.0  # seconds
FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
numbers = count(1)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    home = tmp_path_factory.mktemp("home")
    settings = checkout(tmp_path_factory.mktemp("project"), home).model_copy(update={"warm_runs": True})
    shutil.copyfile(PROJECT / "dagster.yaml", settings.project / "dagster.yaml")
    instance_clock(home).set(start=DAY, now=datetime(2013, 1, 2, 5, tzinfo=UTC))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRESHDATA_HOME", str(home))
        patch.setenv("FRESHDATA_PROJECT", str(settings.project))
        yield settings


@pytest.fixture(scope="module")
def platform(settings: Settings) -> Iterator[Platform]:
    """Dagster with its warm process, and nothing else."""
    with Platform(settings) as platform:
        platform.start_dagster()
        yield platform


@pytest.fixture
def dagster(settings: Settings, platform: Platform) -> Iterator[dg.DagsterInstance]:
    until(lambda: warm_log(settings).count("ready") > warm_log(settings).count("starting anew"), "the warm process")
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        yield instance


def warm_log(settings: Settings) -> str:
    path = settings.logs / "dagster-warm.log"
    return path.read_text() if path.is_file() else ""


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < deadline, f"{what}: waited in vain"
        threading.Event().wait(0.02)


def warm_pid(platform: Platform) -> int:
    return next(child.pid for child in platform.children() if child.name == "dagster-warm")


def news(settings: Settings) -> int:
    """Land one more flight; returns how many there are."""
    number = next(numbers)
    ingest(settings, "flight_events", departures(DAY, 1, event_id=f"event-{number:04d}", flight=number))
    return number


def gold(settings: Settings) -> int:
    catalog = open_catalog(settings)
    if not catalog.table_exists("gold.carrier_day"):
        return 0
    return sum(load_table(catalog, "gold.carrier_day").scan().to_arrow()["flights"].to_pylist())


def started(dagster: dg.DagsterInstance, after: set[str]) -> dg.DagsterRun:
    """The first run that is under way and was not there before."""
    found: list[dg.DagsterRun] = []

    def look() -> bool:
        runs = dagster.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED], tags={MODE: LIVE}))
        found[:] = [run for run in runs if run.run_id not in after]
        return bool(found)

    until(look, "a run")
    return found[0]


@contextmanager
def turn_taken(dagster: dg.DagsterInstance) -> Iterator[None]:
    """Keep runs from ending before something has been done to them: each waits for its turn."""
    log = dagster.event_log_storage
    until(lambda: log.claim_concurrency_slot(TURN, "test", TURN).is_claimed, "the turn")
    try:
        yield
    finally:
        log.free_concurrency_slot_for_step("test", TURN)


def known(dagster: dg.DagsterInstance) -> set[str]:
    return {run.run_id for run in dagster.get_runs()}


def said(dagster: dg.DagsterInstance, run: dg.DagsterRun, words: str) -> bool:
    return any(words in entry.message for entry in dagster.all_logs(run.run_id))


def bring(settings: Settings, dagster: dg.DagsterInstance) -> dg.DagsterRun:
    """Land news and wait until they are in Gold and all runs have ended; returns the first run that took them in."""
    before, total = known(dagster), news(settings)
    until(lambda: gold(settings) == total, "Gold")
    until(lambda: all(run.status in FINISHED for run in dagster.get_runs()), "the run's end")
    live = dagster.get_runs(dg.RunsFilter(tags={MODE: LIVE}))
    return next(run for run in reversed(live) if run.run_id not in before)


def test_runs_are_forked_and_leave_the_warm_process_as_it_was(
    settings: Settings, platform: Platform, dagster: dg.DagsterInstance
) -> None:
    first = bring(settings, dagster)
    assert said(dagster, first, "Forked from the warm process")
    warm = psutil.Process(warm_pid(platform))
    size = warm.memory_info().rss
    pids = {int(bring(settings, dagster).tags[PROCESS].split(":")[0]) for _ in range(3)}
    assert len(pids) == 3
    assert warm_pid(platform) == warm.pid
    until(lambda: not warm.children(), "the end of the runs' processes")
    # A file of SQLite's that a fork finds open can be broken by it.
    assert not [file.path for file in warm.open_files() if ".db" in file.path]
    assert warm.memory_info().rss < 1.05 * size


def test_a_killed_run_is_found_and_done_again(settings: Settings, dagster: dg.DagsterInstance) -> None:
    with turn_taken(dagster):
        before, total = known(dagster), news(settings)
        run = started(dagster, before)
        os.kill(int(run.tags[PROCESS].split(":")[0]), signal.SIGKILL)
    until(lambda: gold(settings) == total, "Gold")
    ended = dagster.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.status == dg.DagsterRunStatus.FAILURE


def test_a_run_is_interrupted_when_told_to(settings: Settings, dagster: dg.DagsterInstance) -> None:
    with turn_taken(dagster):
        before = known(dagster)
        news(settings)
        run = started(dagster, before)
        process = psutil.Process(int(run.tags[PROCESS].split(":")[0]))
        assert dagster.run_launcher.terminate(run.run_id)
        until(lambda: dagster.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.CANCELED, "its end")
        until(lambda: not process.is_running(), "its process's end")
    assert not dagster.run_launcher.terminate(run.run_id)
    bring(settings, dagster)


def test_without_the_warm_process_runs_start_cold(
    settings: Settings, platform: Platform, dagster: dg.DagsterInstance
) -> None:
    warm = warm_pid(platform)
    os.kill(warm, signal.SIGSTOP)  # Not dead, which its supervisor would mend at once: it does not answer.
    try:
        assert said(dagster, bring(settings, dagster), "Started cold")
    finally:
        os.kill(warm, signal.SIGKILL)
    until(lambda: warm_pid(platform) != warm, "another warm process")
    until(lambda: warm_log(settings).count("ready") > 1, "its readiness")
    assert said(dagster, bring(settings, dagster), "Forked from the warm process")


def test_changed_files_are_loaded_before_the_next_warm_run(settings: Settings, dagster: dg.DagsterInstance) -> None:
    edit(settings, "models/gold/carrier_day.sql", ("On-time performance of each", "Performance of each"))
    times = warm_log(settings).count("ready")
    assert said(dagster, bring(settings, dagster), "has changed")
    until(lambda: warm_log(settings).count("ready") > times, "the warm process")
    assert said(dagster, bring(settings, dagster), "Forked from the warm process")
