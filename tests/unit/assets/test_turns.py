"""Runs that make Silver and Gold take turns, each as a whole."""

import threading
from collections.abc import Iterator

import dagster as dg
import pytest

from freshdata_assets.defs.resources import TURN, Transform


@pytest.fixture
def dagster() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp() as instance:
        yield instance


def assets(log: list[str], middle: threading.Event, go_on: threading.Event) -> list[dg.AssetsDefinition]:
    def note(context: dg.AssetExecutionContext, step: str) -> None:
        log.append(f"{context.run.tags['name']} {step}")

    @dg.asset
    def silver(context: dg.AssetExecutionContext, transform: Transform) -> None:
        note(context, "silver")

    @dg.asset(deps=[silver])
    def checked(context: dg.AssetExecutionContext) -> None:
        middle.set()
        if context.run.tags["name"] == "first":
            go_on.wait()

    @dg.asset(deps=[checked])
    def gold(context: dg.AssetExecutionContext, transform: Transform) -> None:
        note(context, "gold")
        if context.run.tags["name"] == "failing":
            raise RuntimeError("as asked")

    return [silver, checked, gold]


def test_a_run_waits_until_the_one_before_has_done_its_last_step(dagster: dg.DagsterInstance) -> None:
    log: list[str] = []
    middle, go_on, waiting = threading.Event(), threading.Event(), threading.Event()
    defined = assets(log, middle, go_on)
    storage = dagster.event_log_storage
    # Chooses who waits; released below as the end of a run releases it.
    storage.set_concurrency_slots(TURN, 1)

    def run(name: str) -> None:
        dg.materialize(
            defined, instance=dagster, resources={"transform": Transform()}, tags={"name": name}, raise_on_error=False
        )

    first, second = (threading.Thread(target=run, args=(name,)) for name in ("first", "second"))
    first.start()
    assert middle.wait(60)
    second.start()
    while storage.get_concurrency_info(TURN).pending_step_count == 0:
        assert second.is_alive()
        waiting.wait(0.05)
    go_on.set()
    first.join()
    second.join()
    assert log == ["first silver", "first gold", "second silver", "second gold"]


def test_a_run_that_fails_ends_its_turn(dagster: dg.DagsterInstance) -> None:
    log: list[str] = []
    defined = assets(log, threading.Event(), threading.Event())
    for name in ("failing", "next"):
        dg.materialize(
            defined, instance=dagster, resources={"transform": Transform()}, tags={"name": name}, raise_on_error=False
        )
    assert log == ["failing silver", "failing gold", "next silver", "next gold"]
    assert dagster.event_log_storage.get_concurrency_info(TURN).active_slot_count == 0
