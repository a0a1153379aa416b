"""A layer is rebuilt from the one before: in place by partition, for one tenant, and in a shadow that is swapped."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pyiceberg.catalog import Catalog

from freshdata.clock import instance_clock
from freshdata.errors import TransformError
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.settings import Settings
from freshdata.transform.runner import Runner, open_runner
from tests.bronze import append, flight_event, head, observation, rows

pytestmark = pytest.mark.integration

FLIGHTS, CARRIERS, ROUTES = "silver.flight_events", "gold.carrier_day", "gold.route_day"
DAY = date(2013, 1, 1)
DAYS = [DAY + timedelta(days=number) for number in range(3)]
DAILY = [FLIGHTS, "silver.weather", CARRIERS, ROUTES, "gold.delay_by_weather"]


@pytest.fixture
def catalog(instance: Settings) -> Catalog:
    return open_catalog(instance)


@pytest.fixture
def filled(instance: Settings, catalog: Catalog) -> None:
    for day in DAYS:
        events = [flight_event(day, number, tenant_id=tenant) for number, tenant in ((1, "UA"), (2, "AA"), (3, "UA"))]
        append(catalog, "flight_events", events)
        append(catalog, "weather", [observation(day)])
    with open_runner(instance) as runner:
        for model in runner.manifest:
            runner.run_live(model)


@pytest.fixture
def runner(instance: Settings, filled: None) -> Iterator[Runner]:
    with open_runner(instance) as runner:
        yield runner


def all_rows(catalog: Catalog) -> dict[str, list[dict[str, Any]]]:
    return {model: rows(catalog, model) for model in DAILY}


def damage(catalog: Catalog, model: str, where: str) -> None:
    load_table(catalog, model).delete(where)


def test_one_tenants_rows_are_rebuilt_and_nobody_elses(runner: Runner, catalog: Catalog) -> None:
    right = all_rows(catalog)
    damage(catalog, FLIGHTS, f"flight_date = '{DAY}'")
    damage(catalog, CARRIERS, f"flight_date = '{DAY}'")
    runner.run_partitions(FLIGHTS, DAY, DAYS[-1], tenant="UA")
    mine = [row for row in right[FLIGHTS] if row["tenant_id"] == "UA" or row["flight_date"] != DAY]
    assert rows(catalog, FLIGHTS) == mine
    runner.run_partitions(FLIGHTS, DAY, DAY, tenant="AA")
    runner.run_partitions(CARRIERS, DAY, DAY, tenant="AA")
    runner.run_partitions(CARRIERS, DAY, DAY, tenant="UA")
    # Its rows are made from several tenants': the days are rebuilt whole.
    runner.run_partitions(ROUTES, DAY, DAY, tenant="UA")
    assert all_rows(catalog) == right


def test_a_damaged_table_is_rebuilt_and_swapped_in_one_snapshot(runner: Runner, catalog: Catalog) -> None:
    right = all_rows(catalog)
    damage(catalog, FLIGHTS, f"flight_date = '{DAYS[1]}'")
    before = load_table(catalog, FLIGHTS)
    rebuilt = runner.rebuild(FLIGHTS)
    after = load_table(catalog, FLIGHTS)
    assert (rebuilt.rows, rebuilt.gained, rebuilt.lost) == (9, 3, 0)
    assert rebuilt.snapshot_id == head(catalog, FLIGHTS)
    assert len(after.snapshots()) == len(before.snapshots()) + 1
    assert rows(catalog, FLIGHTS) == right[FLIGHTS]
    assert not runner.pending(FLIGHTS).behind
    assert "rebuilt" in runner.run_live(CARRIERS).note or runner.run_live(CARRIERS).note == "up to date"
    assert all_rows(catalog) == right
    assert not catalog.table_exists(f"{FLIGHTS}__rebuild")


def test_a_rebuild_of_some_days_leaves_the_others_files_alone(runner: Runner, catalog: Catalog) -> None:
    right = all_rows(catalog)
    append(catalog, "flight_events", [flight_event(DAYS[2], 9)])
    damage(catalog, FLIGHTS, f"flight_date = '{DAYS[0]}'")
    others = {
        task.file.file_path for task in load_table(catalog, FLIGHTS).scan("flight_date > '2013-01-01'").plan_files()
    }
    rebuilt = runner.rebuild(FLIGHTS, (DAYS[0], DAYS[0]))
    assert rebuilt.days == (DAYS[0], DAYS[0])
    assert rows(catalog, FLIGHTS) == right[FLIGHTS]
    now = {task.file.file_path for task in load_table(catalog, FLIGHTS).scan("flight_date > '2013-01-01'").plan_files()}
    assert now == others
    # It has not seen the news of another day: the next live run does.
    assert runner.run_live(FLIGHTS).partitions == {DAYS[2]: 4}


def test_an_equal_table_is_left_as_it_is(runner: Runner, catalog: Catalog) -> None:
    before = {model: head(catalog, model) for model in DAILY}
    for model in DAILY:
        rebuilt = runner.rebuild(model)
        assert (rebuilt.gained, rebuilt.lost, rebuilt.snapshot_id) == (0, 0, None)
    assert {model: head(catalog, model) for model in DAILY} == before


def test_rows_that_upstream_lacks_are_not_given_up_in_silence(runner: Runner, catalog: Catalog) -> None:
    load_table(catalog, "bronze.flight_events").delete(f"flight_date = '{DAY}'")
    before = rows(catalog, FLIGHTS)
    with pytest.raises(TransformError, match=r"3 of its rows .* 2013-01-01, .*--allow-missing"):
        runner.rebuild(FLIGHTS)
    assert rows(catalog, FLIGHTS) == before
    assert runner.rebuild(FLIGHTS, allow_missing=True).lost == 3
    assert len(rows(catalog, FLIGHTS)) == 6


def test_rows_that_a_blocking_audit_refuses_are_not_swapped_in(runner: Runner, catalog: Catalog) -> None:
    append(catalog, "flight_events", [flight_event(DAY, 8, event_type="exploded")])
    before = head(catalog, FLIGHTS)
    with pytest.raises(TransformError, match=r"accepted_values \(1 rows\)"):
        runner.rebuild(FLIGHTS)
    assert head(catalog, FLIGHTS) == before
    assert not catalog.table_exists(f"{FLIGHTS}__rebuild")


def test_a_corrected_event_changes_a_row_and_loses_none(runner: Runner, catalog: Catalog) -> None:
    append(
        catalog, "flight_events", [flight_event(DAY, 1, dep_delay=77, _ingested_at=datetime(2014, 1, 1, tzinfo=UTC))]
    )
    rebuilt = runner.rebuild(FLIGHTS)
    assert (rebuilt.gained, rebuilt.lost) == (1, 1)
    assert not runner.pending(FLIGHTS).behind


@pytest.fixture
def backfill(
    instance: Settings, filled: None, environment: Callable[[Settings], dict[str, str]]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    instance_clock(instance.home).set(start=DAY, now=datetime(2013, 1, 4, 5, tzinfo=UTC))

    def execute(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "freshdata.cli", "backfill", *arguments]
        return subprocess.run(command, env=environment(instance), capture_output=True, text=True, check=False)

    return execute


def test_a_backfill_gives_equal_tables_and_goes_on_where_it_stopped(
    catalog: Catalog, backfill: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    right = all_rows(catalog)
    damage(catalog, FLIGHTS, f"flight_date >= '{DAYS[1]}'")
    damage(catalog, CARRIERS, f"flight_date = '{DAYS[2]}'")
    # A rule that one day breaks stops that day's run; the others are done, and are not done again.
    append(catalog, "flight_events", [flight_event(DAYS[2], 8, event_type="exploded")])
    days = ("--to", DAYS[2].isoformat(), "--chunk", "1", "--json")
    first = backfill(*days)
    assert first.returncode == 1, first.stderr
    outcomes = json.loads(first.stdout)
    assert [outcome["first"] for outcome in outcomes if outcome["problem"]] == ["2013-01-03"]
    assert "accepted_values" in first.stderr
    load_table(catalog, "bronze.flight_events").delete("event_type = 'exploded'")
    second = backfill(*days)
    assert second.returncode == 0, second.stderr
    assert [outcome["first"] for outcome in json.loads(second.stdout)] == ["2013-01-03"]
    assert all_rows(catalog) == right


def test_a_backfill_of_a_model_takes_what_is_downstream_with_it(
    catalog: Catalog, backfill: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    right = all_rows(catalog)
    for model in (FLIGHTS, CARRIERS):
        damage(catalog, model, f"flight_date = '{DAY}' and tenant_id = 'UA'")
    done = backfill(FLIGHTS, "--from", "2013-01-01", "--to", "2013-01-02", "--tenant", "UA")
    assert done.returncode == 0, done.stderr
    assert "silver.weather" not in done.stdout
    assert all_rows(catalog) == right
    wrong = backfill("gold.nothing")
    assert wrong.returncode == 1
    assert "Use one of" in wrong.stderr
    assert "Traceback" not in wrong.stderr
