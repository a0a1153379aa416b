"""A run that is killed with ``kill -9`` leaves each table as it was or as it was to be, and the next run does the rest.

And everything behind Kafka can be thrown away: the topics, the contracts and the models make it again, row for row.
"""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog

from freshdata.clock import instance_clock
from freshdata.lake.catalog import open_catalog
from freshdata.settings import Settings
from freshdata.transform.runner import open_runner
from freshdata.verify.layers import verify_models
from tests.bronze import append, flight_event, observation, rows
from tests.streams import START, assert_verified, disorderly, flight_contract, send, wait_until_caught_up, worker

pytestmark = pytest.mark.integration

DAY = date(2013, 1, 1)
MODELS = ["silver.flight_events", "silver.weather", "gold.carrier_day", "gold.route_day", "gold.delay_by_weather"]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["freshdata.transform.runner", "freshdata.transform.project", __name__])


def follow(settings: Settings, kill_at: int, when: str) -> None:
    """Run every model live; die before, or after, the catalog takes the commit of a number."""
    commit, count = SqlCatalog.commit_table, 0

    def deadly(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == kill_at and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = commit(*arguments)
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    with open_runner(settings) as runner:
        SqlCatalog.commit_table = deadly  # type: ignore[method-assign]
        for model in runner.manifest:
            runner.run_live(model)


def run(settings: Settings, kill_at: int = 0, when: str = "") -> int | None:
    """A run in a process of its own; its exit code."""
    process = CONTEXT.Process(target=follow, args=(settings, kill_at, when))
    process.start()
    process.join(200)
    assert process.exitcode is not None
    return process.exitcode


def all_rows(catalog: Catalog) -> dict[str, list[dict[str, Any]]]:
    return {model: rows(catalog, model) for model in MODELS}


def test_a_killed_run_leaves_the_old_or_the_new_and_the_next_one_repairs_the_rest(instance: Settings) -> None:
    catalog = open_catalog(instance)
    append(catalog, "flight_events", [flight_event(DAY, 1)])
    append(catalog, "weather", [observation(DAY)])
    assert run(instance) == 0
    killed, seen = 0, set()
    for number in range(1, 20):
        when = ("before", "after")[number % 2]
        before = all_rows(catalog)
        # News of a day that is there and of a new one, and a later version of an event.
        days = (DAY, DAY + timedelta(days=number))
        append(catalog, "flight_events", [flight_event(day, 100 + number, "arrived") for day in days])
        append(catalog, "weather", [observation(day, hour=number, precip=0.5) for day in days])
        code = run(instance, (number + 1) // 2, when)
        left = all_rows(catalog)
        assert run(instance) == 0
        after = all_rows(catalog)
        assert [model for model in MODELS if left[model] not in (before[model], after[model])] == []
        assert all(before[model] != after[model] for model in MODELS)
        if code == 0:  # There are no more commits to die at.
            break
        assert code == -signal.SIGKILL
        killed += 1
        seen |= {model for model in MODELS if left[model] == after[model]}
    assert killed >= 2 * len(MODELS)
    assert seen == set(MODELS)
    assert [finding for finding in verify_models(instance, catalog) if not finding.ok] == []


def test_everything_behind_kafka_can_be_thrown_away_and_is_made_again(
    streaming: Settings, environment: Callable[[Settings], dict[str, str]]
) -> None:
    instance_clock(streaming.home).set(start=START.date(), now=START + timedelta(days=2))
    catalog, contract = open_catalog(streaming), flight_contract(streaming)
    send(streaming, disorderly(1500, seed=5))
    with worker(streaming, environment(streaming)):
        wait_until_caught_up(streaming)
    assert run(streaming) == 0
    tables = [contract.table, contract.quarantine_table, "silver.flight_events", "gold.carrier_day", "gold.route_day"]
    made = {table: rows(catalog, table) for table in tables}
    assert all(made.values())
    for namespace in catalog.list_namespaces():
        for table in catalog.list_tables(namespace):
            catalog.drop_table(table)
    shutil.rmtree(Path(streaming.home) / "warehouse")
    with worker(streaming, environment(streaming)):
        wait_until_caught_up(streaming)
    assert run(streaming) == 0
    assert {table: rows(catalog, table) for table in tables} == made
    assert_verified(streaming)
