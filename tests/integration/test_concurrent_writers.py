"""A worker that appends, maintenance, and runs of the models, all at once: none loses another's commit."""

import multiprocessing
from collections.abc import Callable
from datetime import date, timedelta
from multiprocessing.synchronize import Event
from typing import Any

import pytest

from freshdata.lake.catalog import load_table, open_catalog
from freshdata.lake.maintenance import Retention, maintain, tables
from freshdata.settings import Settings
from freshdata.transform.runner import open_runner
from freshdata.verify.layers import verify_models
from tests.bronze import append, flight_event, rows

pytestmark = pytest.mark.integration

DAY = date(2013, 1, 1)
COMMITS = 30
BRONZE, FLIGHTS = "bronze.flight_events", "silver.flight_events"
# Everything that may go does, at each chance.
EAGER = Retention(keep=2, young=timedelta(0), cursor_age=timedelta(hours=1), orphan_age=timedelta(hours=1))
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["freshdata.transform.runner", "freshdata.transform.project", __name__])


def appending(settings: Settings, ended: Event) -> None:
    catalog = open_catalog(settings)
    for number in range(COMMITS):
        day = DAY + timedelta(days=number % 3)
        # Each commit has a new event, and a later version of one of three commits ago.
        append(catalog, "flight_events", [flight_event(day, known) for known in {number, max(number - 3, number % 3)}])
    ended.set()


def transforming(settings: Settings, ended: Event) -> None:
    with open_runner(settings) as runner:
        while not ended.is_set():
            for model in runner.manifest:
                runner.run_live(model)


def rebuilding(settings: Settings, ended: Event) -> None:
    """Two processes cannot hold SQLMesh's state at once: runs by partition wait for the live ones, and come between."""
    while not ended.is_set():
        with open_runner(settings) as runner:
            runner.run_live(FLIGHTS)
            runner.run_partitions(FLIGHTS, DAY, DAY + timedelta(days=1))


def maintaining(settings: Settings, ended: Event) -> None:
    catalog = open_catalog(settings)
    while not ended.is_set():
        for name in tables(catalog):
            maintain(catalog, name, EAGER)


@pytest.mark.parametrize("models", [transforming, rebuilding])
def test_all_at_once_lose_nothing(instance: Settings, models: Callable[[Settings, Event], None]) -> None:
    with open_runner(instance):  # Makes the tables.
        pass
    ended = CONTEXT.Event()
    started: list[Any] = []
    try:
        for work in (models, maintaining, appending):
            started.append(CONTEXT.Process(target=work, args=(instance, ended)))
            started[-1].start()
        for process in started:
            process.join(240)
        assert [process.exitcode for process in started] == [0, 0, 0]
    finally:
        for process in started:
            process.kill()
    catalog = open_catalog(instance)
    assert len(rows(catalog, BRONZE)) == 2 * COMMITS - 3
    with open_runner(instance) as runner:
        for model in runner.manifest:
            runner.run_live(model)
    assert [finding for finding in verify_models(instance, catalog) if not finding.ok] == []
    silver = rows(catalog, FLIGHTS)
    assert len({row["event_id"] for row in silver}) == len(silver) == COMMITS
    assert len(load_table(catalog, BRONZE).snapshots()) < COMMITS
