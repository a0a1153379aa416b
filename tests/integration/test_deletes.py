"""Deletes and changes in Silver: whatever the order in which they show up and are worked off, one outcome."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import count
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pyiceberg.catalog import Catalog

from freshdata.lake.catalog import load_table
from freshdata.lake.query import connect
from freshdata.settings import Settings
from freshdata.transform.engines.duckdb import DuckDBLakeAdapter
from freshdata.transform.runner import Runner
from tests.bronze import rows
from tests.changes import change, land, shop

pytestmark = pytest.mark.integration

MOVING, DATED, SOFT, DAILY = "silver.orders", "silver.orders_dated", "silver.orders_soft", "gold.order_day"
DAYS = [date(2026, 3, 1) + timedelta(days=number) for number in range(3)]
MODEL = """
MODEL (
  name {name},
  kind CUSTOM (
    materialization 'merge_by_key',
    materialization_properties (
      date_column = order_date, unique_key = ({key}), version = lsn, deleted = {deleted}, delete_mode = {mode}
    )
  ),
  partitioned_by (order_date),
  grain ({key}),
  audits (unique_combination_of_columns(columns := ({key})))
);
SELECT order_id, order_date, lsn, op, state, op IN @orders_deletes AS _is_deleted
FROM bronze.orders
WHERE order_date BETWEEN @start_date AND @end_date
QUALIFY ROW_NUMBER() OVER (PARTITION BY {key} ORDER BY lsn DESC) = 1
"""
GOLD = """
MODEL (
  name gold.order_day,
  kind CUSTOM (
    materialization 'overwrite_changed_partitions', materialization_properties (date_column = order_date)
  ),
  partitioned_by (order_date),
  grain (order_date),
  audits (not_null(columns := (order_date, orders)))
);
SELECT order_date, COUNT(*)::BIGINT AS orders
FROM silver.orders
WHERE order_date BETWEEN @start_date AND @end_date
GROUP BY order_date
"""
KEYS = {MOVING: ("order_id",), DATED: ("order_date", "order_id"), SOFT: ("order_id",)}
numbers = count()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    contracted = {"deleted": "_is_deleted", "mode": "@orders_delete_mode"}
    return shop(
        tmp_path_factory.mktemp("shop"),
        {
            MOVING: MODEL.format(name=MOVING, key="order_id", **contracted),
            DATED: MODEL.format(name=DATED, key="order_date, order_id", deleted="(op = 'd')", mode="hard"),
            SOFT: MODEL.format(name=SOFT, key="order_id", deleted="_is_deleted", mode="soft"),
            DAILY: GOLD,
        },
    )


@pytest.fixture
def key() -> str:
    """A key that no other test uses; all share the days."""
    return f"k{next(numbers)}"


def follow(runner: Runner, models: Iterable[str] = (*KEYS, DAILY)) -> None:
    """Run models live, upstream first; no audit may fail."""
    for model in models:
        assert all(audit.passed for audit in runner.run_live(model).audits)


def stored(catalog: Catalog, model: str, keys: set[str]) -> list[dict[str, Any]]:
    return [row for row in rows(catalog, model) if row["order_id"] in keys]


def expected(model: str, changes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the table must hold after some changes, in whatever order they came."""
    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for item in sorted(changes, key=lambda item: item["lsn"]):
        newest[tuple(item[name] for name in KEYS[model])] = item
    columns = ("order_id", "order_date", "lsn", "op", "state")
    told = [{name: item[name] for name in columns} | {"_is_deleted": item["op"] == "d"} for item in newest.values()]
    return sorted((row for row in told if model == SOFT or not row["_is_deleted"]), key=repr)


def history(key: str, *steps: tuple[str, int], first: int = 1) -> list[dict[str, Any]]:
    """Changes of one key in their order: operation and day of each."""
    return [change(key, first + place, op, DAYS[day]) for place, (op, day) in enumerate(steps)]


def test_an_older_update_after_a_newer_delete_does_not_bring_the_row_back(
    runner: Runner, catalog: Catalog, settings: Settings, key: str
) -> None:
    insert, update, delete = history(key, ("c", 0), ("u", 0), ("d", 0))
    for step in (insert, delete, update):
        land(settings, [step])
        follow(runner)
    assert stored(catalog, MOVING, {key}) == stored(catalog, DATED, {key}) == []
    assert [(row["lsn"], row["_is_deleted"]) for row in stored(catalog, SOFT, {key})] == [(3, True)]
    land(settings, history(key, ("c", 0), first=4))
    follow(runner)
    for model in KEYS:
        assert [(row["lsn"], row["_is_deleted"]) for row in stored(catalog, model, {key})] == [(4, False)]


def test_a_row_that_moves_to_another_day_leaves_the_first_and_gold_follows(
    runner: Runner, catalog: Catalog, settings: Settings, key: str
) -> None:
    follow(runner)
    before = {row["order_date"]: row["orders"] for row in rows(catalog, DAILY)}
    insert, move, delete = history(key, ("c", 0), ("u", 1), ("d", 2))
    for step, gained in ((insert, {DAYS[0]: 1}), (move, {DAYS[1]: 1}), (delete, {})):
        land(settings, [step])
        follow(runner)
        assert stored(catalog, MOVING, {key}) == expected(MOVING, [] if step is delete else [step])
        after = {day: before.get(day, 0) + gained.get(day, 0) for day in DAYS}
        assert dict.fromkeys(DAYS, 0) | {row["order_date"]: row["orders"] for row in rows(catalog, DAILY)} == after


@dataclass(frozen=True)
class Scenario:
    """Changes of three keys at three days, in the order that they were made.

    Attributes:
        steps: Key, operation and day of each change.
        order: Shuffles the order in which they show up, and the days are run; None keeps both.
        batches: In how many commits they show up.
        by_partition: Whether each commit is worked off by runs of all days before a live run.
    """

    steps: list[tuple[int, str, int]]
    order: Random | None = None
    batches: int = 1
    by_partition: bool = False


scenarios = st.builds(
    Scenario,
    steps=st.lists(st.tuples(st.integers(0, 2), st.sampled_from("cuud"), st.integers(0, 2)), min_size=3, max_size=10),
    order=st.randoms(use_true_random=False),
    batches=st.integers(1, 2),
    by_partition=st.booleans(),
)
REINSERTED = Scenario([(0, "c", 0), (0, "d", 0), (0, "c", 1), (1, "c", 0), (1, "d", 0)])
MOVED_AND_BACK = Scenario(
    [(0, "c", 0), (0, "u", 1), (0, "u", 0), (1, "c", 2), (1, "d", 1)], batches=2, by_partition=True
)


@examples(
    max_examples=4, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(scenario=scenarios)
@example(scenario=REINSERTED)
@example(scenario=MOVED_AND_BACK)
def test_live_and_partition_runs_agree_whatever_the_order(
    runner: Runner, catalog: Catalog, settings: Settings, scenario: Scenario
) -> None:
    name, days, batches = next(numbers), list(DAYS), scenario.batches
    changes = [change(f"k{name}-{key}", lsn, op, DAYS[day]) for lsn, (key, op, day) in enumerate(scenario.steps)]
    keys = {item["order_id"] for item in changes}
    if scenario.order is not None:
        scenario.order.shuffle(changes)
        scenario.order.shuffle(days)
    for number in range(batches):
        visible = changes[: len(changes) * (number + 1) // batches]
        land(settings, visible[len(changes) * number // batches :])
        if scenario.by_partition:
            for model in KEYS:
                for day in days:
                    runner.run_partitions(model, day, day)
                assert stored(catalog, model, keys) == expected(model, visible), model
        follow(runner, KEYS)
        assert {model: stored(catalog, model, keys) for model in KEYS} == {
            model: expected(model, visible) for model in KEYS
        }
    for model in KEYS:
        with connect(settings) as connection:
            full = connection.execute(runner.render_full(model)).to_arrow_table().to_pylist()
        assert rows(catalog, model) == sorted(full, key=repr), model
        runner.run_partitions(model, DAYS[0], DAYS[-1])
        assert stored(catalog, model, keys) == expected(model, changes), model


def test_a_crash_after_the_deletes_are_remembered_is_repaired_by_the_next_run(
    runner: Runner, catalog: Catalog, settings: Settings, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert, delete = history(key, ("c", 0), ("d", 0))
    land(settings, [insert])
    follow(runner)
    land(settings, [delete])
    merge = DuckDBLakeAdapter.merge

    def killed(adapter: Any, table: Any, *args: Any, **kwargs: Any) -> None:
        if "__deletes" not in str(table):
            raise KeyboardInterrupt
        merge(adapter, table, *args, **kwargs)

    monkeypatch.setattr(DuckDBLakeAdapter, "merge", killed)
    with pytest.raises(KeyboardInterrupt):
        runner.run_live(MOVING)
    monkeypatch.undo()
    assert [row["lsn"] for row in stored(catalog, f"{MOVING}__deletes", {key})] == [2]
    assert [row["lsn"] for row in stored(catalog, MOVING, {key})] == [1]
    follow(runner)
    assert stored(catalog, MOVING, {key}) == []


def test_a_rebuilt_table_still_knows_what_was_deleted(
    runner: Runner, catalog: Catalog, settings: Settings, key: str
) -> None:
    insert, update, delete = history(key, ("c", 0), ("u", 1), ("d", 1))
    land(settings, [insert])
    follow(runner)
    land(settings, [delete])
    for model in (MOVING, DATED):
        runner.rebuild(model, allow_missing=True)
    assert stored(catalog, MOVING, {key}) == []
    land(settings, [update])
    follow(runner)
    assert stored(catalog, MOVING, {key}) == []
    assert stored(catalog, DATED, {key}) == expected(DATED, [insert, update, delete])


def test_merging_the_same_changes_again_makes_no_snapshot(
    runner: Runner, catalog: Catalog, settings: Settings, key: str
) -> None:
    changes = history(key, ("c", 0), ("u", 1)) + history(f"{key}-gone", ("c", 0), ("d", 2))
    land(settings, changes)
    follow(runner)
    deletes = load_table(catalog, f"{MOVING}__deletes").current_snapshot()
    files = {task.file.file_path for task in load_table(catalog, MOVING).scan().plan_files()}
    land(settings, changes)
    follow(runner)
    assert load_table(catalog, f"{MOVING}__deletes").current_snapshot() == deletes
    assert {task.file.file_path for task in load_table(catalog, MOVING).scan().plan_files()} == files
