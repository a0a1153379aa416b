"""Runs that other runs and compactions get in the way of, each on a day of its own."""

import dataclasses
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog

from freshdata.contracts import load_contracts
from freshdata.lake import rest_catalog
from freshdata.lake.catalog import load_table
from freshdata.lake.clustering import Clustering, Key, clustering_of
from freshdata.lake.compaction import Compacted, compact
from freshdata.lake.cursors import behind, read_cursor
from freshdata.lake.health import Thresholds
from freshdata.settings import PROJECT
from freshdata.transform.runner import ModelRun, Runner
from tests.bronze import append, flight_event, head, rows
from tests.runs import CARRIERS, FLIGHTS, follow, of_day

pytestmark = pytest.mark.integration


def test_a_live_run_that_another_run_overtakes_begins_anew(
    runner: Runner, catalog: Catalog, day: date, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(catalog, "flight_events", [flight_event(day, 1)])
    follow(runner)
    # A partition run of another process begins here: this is what it has seen, and what it will write.
    before, begun = of_day(catalog, FLIGHTS, day), read_cursor(load_table(catalog, FLIGHTS))
    assert begun is not None
    append(catalog, "flight_events", [flight_event(day, 2)])
    follow(runner)
    append(catalog, "flight_events", [flight_event(day, 3)])
    adapter = runner._adapter
    stage, overtaken = type(adapter).stage, []

    def overtake(self: Any, *arguments: Any) -> str:
        relation: str = stage(self, *arguments)
        if not overtaken:
            table = load_table(catalog, FLIGHTS)
            replaced = pa.Table.from_pylist(before, schema=table.schema().as_arrow())
            overtaken.append(day)
            table.overwrite(replaced, f"flight_date = '{day}'", snapshot_properties=begun.properties())
        return relation

    monkeypatch.setattr(type(adapter), "stage", overtake)
    runs = follow(runner)
    assert overtaken
    # The row that the other run took back is there again, beside the news.
    assert runs[FLIGHTS].partitions == {day: 3}
    assert [row["flight"] for row in of_day(catalog, FLIGHTS, day)] == [1, 2, 3]
    assert of_day(catalog, CARRIERS, day)[0]["flights"] == 3


def test_a_partition_run_leaves_no_newer_cursor_than_it_has_seen(
    runner: Runner, catalog: Catalog, day: date, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(catalog, "flight_events", [flight_event(day, 1)])
    follow(runner)
    begun = read_cursor(load_table(catalog, FLIGHTS))
    assert begun is not None
    adapter = type(runner._adapter)
    fetch, overtaken = adapter.fetch_arrow, []

    def overtake(self: Any, query: Any) -> pa.Table:
        rows = fetch(self, query)
        if not overtaken:
            overtaken.append(day)
            # Before these rows are stored, a live run of another process takes in an event that they lack.
            bronze = append(catalog, "flight_events", [flight_event(day, 2)])
            table = load_table(catalog, FLIGHTS)
            news = pa.Table.from_pylist(of_day(catalog, "bronze.flight_events", day)[-1:])
            fitting = news.select(table.schema().column_names).cast(table.schema().as_arrow())
            newer = dataclasses.replace(begun, upstream={"bronze.flight_events": bronze})
            table.append(fitting, snapshot_properties=newer.properties())
        return rows

    monkeypatch.setattr(adapter, "fetch_arrow", overtake)
    runner.run_partitions(FLIGHTS, day, day)
    assert [row["flight"] for row in of_day(catalog, FLIGHTS, day)] == [1]
    assert read_cursor(load_table(catalog, FLIGHTS)) == begun
    assert runner.run_live(FLIGHTS).partitions == {day: 2}


def test_a_merge_that_loses_a_race_is_run_again(
    runner: Runner, catalog: Catalog, day: date, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(catalog, "flight_events", [flight_event(day, 1)])
    follow(runner)
    append(catalog, "flight_events", [flight_event(day, 2), flight_event(day, 1, dep_delay=7)])
    commit, attempts = rest_catalog._commit, []

    def late(*args: Any) -> Any:
        attempts.append(1)
        if len(attempts) == 1:
            with load_table(catalog, FLIGHTS).transaction() as change, change.update_snapshot().fast_append():
                pass
        return commit(*args)

    monkeypatch.setattr(rest_catalog, "_commit", late)
    run = runner.run_live(FLIGHTS)
    assert len(attempts) == 2
    assert run.partitions == {day: 2}


def everything_in_few_files(catalog: Catalog, *tables: str) -> list[Compacted]:
    contracts = load_contracts(PROJECT / "contracts")
    found = [load_table(catalog, name) for name in tables]
    return [compact(table, clustering_of(table, contracts), Thresholds(everything=True)) for table in found]


def test_compactions_between_runs_are_no_news_and_lose_none(runner: Runner, catalog: Catalog, day: date) -> None:
    def run() -> list[ModelRun]:
        return [runner.run_live(model) for model in (FLIGHTS, CARRIERS)]

    append(catalog, "flight_events", [flight_event(day, number) for number in range(1, 6)])
    run()
    append(catalog, "flight_events", [flight_event(day, 6), flight_event(day, 1, dep_delay=9)])
    # What Silver has read and what it has not lie in one file now.
    (bronze,) = everything_in_few_files(catalog, "bronze.flight_events")
    assert bronze.files_before > bronze.files_after
    silver, gold = run()
    assert (silver.partitions, gold.partitions) == ({day: 6}, {day: 1})
    for number in range(3):
        newer = datetime(2014, 1, 1 + number, tzinfo=UTC)
        append(catalog, "flight_events", [flight_event(day, 1, _ingested_at=newer, dep_delay=number)])
        runner.run_live(FLIGHTS)
    runner.run_live(CARRIERS)
    stored = [rows(catalog, model) for model in (FLIGHTS, CARRIERS)]
    upstreams = {model: runner.manifest[model].depends_on for model in (FLIGHTS, CARRIERS)}
    _, compacted, _ = everything_in_few_files(catalog, "bronze.flight_events", FLIGHTS, CARRIERS)
    assert compacted.delete_files > 0
    assert [rows(catalog, model) for model in (FLIGHTS, CARRIERS)] == stored
    assert all(not task.delete_files for task in load_table(catalog, FLIGHTS).scan().plan_files())
    assert behind(catalog, upstreams) == {}
    assert [each.note for each in run()] == ["up to date", "up to date"]
    append(catalog, "flight_events", [flight_event(day, 7)])
    silver, gold = run()
    assert (silver.partitions, silver.note) == ({day: 7}, "")
    assert of_day(catalog, CARRIERS, day)[0]["flights"] == 7


def test_a_run_that_merges_during_a_compaction_of_its_table_is_neither_lost_nor_undone(
    runner: Runner, catalog: Catalog, day: date
) -> None:
    others = day + timedelta(days=1)
    append(catalog, "flight_events", [flight_event(when, number) for when in (day, others) for number in (1, 2)])
    runner.run_live(FLIGHTS)
    append(catalog, "flight_events", [flight_event(day, 1, _ingested_at=datetime(2014, 1, 1, tzinfo=UTC), dep_delay=9)])
    rivals = iter([FLIGHTS])

    def late() -> None:
        if model := next(rivals, None):
            runner.run_live(model)

    clustering, thresholds = Clustering((Key("event_time"),)), Thresholds(everything=True)
    done = compact(load_table(catalog, FLIGHTS), clustering, thresholds, before_commit=late)
    assert done.skipped == (f"flight_date={day}: another writer has deleted or changed rows of it",)
    assert done.files_after >= 1
    assert [row["dep_delay"] for row in of_day(catalog, FLIGHTS, day)] == [9, 2]
    cursor = read_cursor(load_table(catalog, FLIGHTS))
    assert cursor is not None
    assert cursor.upstream == {"bronze.flight_events": head(catalog, "bronze.flight_events")}
