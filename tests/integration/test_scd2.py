"""Dimensions of type 2: the intervals that all versions of a key make, whatever the order in which they show up."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count, pairwise
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
from freshdata.transform.runner import Runner
from tests.bronze import rows
from tests.changes import change, land, shop

pytestmark = pytest.mark.integration

DIMENSION = "gold.dim_order"
MODEL = """
MODEL (
  name gold.dim_order,
  kind CUSTOM (
    materialization 'scd2',
    materialization_properties (
      unique_key = order_id, valid_from = valid_from, version = lsn, deleted = (op IN ('d'))
    )
  ),
  grain (order_id, valid_from),
  audits (
    unique_combination_of_columns(columns := (order_id, valid_from)),
    unique_values(columns := (order_id), condition := is_current)
  )
);
SELECT order_id, op, state, lsn, event_time AS valid_from
FROM bronze.orders
"""
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
numbers = count()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return shop(tmp_path_factory.mktemp("shop"), {DIMENSION: MODEL})


def version(key: str, lsn: int, at: int, state: str | None) -> dict[str, Any]:
    """A version that is valid from an hour on; without a state it is a delete."""
    op = "d" if state is None else "u"
    return change(key, lsn, op, date(2026, 3, 1), event_time=BEGIN + timedelta(hours=at), state=state)


def stored(catalog: Catalog, keys: set[str]) -> list[tuple[Any, ...]]:
    columns = ("order_id", "state", "lsn", "valid_from", "valid_to", "is_current")
    found = [tuple(row[name] for name in columns) for row in rows(catalog, DIMENSION) if row["order_id"] in keys]
    return sorted(found, key=repr)


def rendered(runner: Runner, settings: Settings) -> list[dict[str, Any]]:
    """The rows that a full rebuild makes, by which `freshdata verify` judges."""
    with connect(settings) as connection:
        return sorted(connection.execute(runner.render_full(DIMENSION)).to_arrow_table().to_pylist(), key=repr)


def intervals(versions: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What the table must hold after some versions, in whatever order they came."""
    found = []
    for key in {item["order_id"] for item in versions}:
        counted = {
            item["event_time"]: item for item in sorted(versions, key=lambda v: v["lsn"]) if item["order_id"] == key
        }
        kept: list[dict[str, Any]] = []
        for _, item in sorted(counted.items()):
            if not kept or item["state"] != kept[-1]["state"]:
                kept.append(item)
        ends = [after["event_time"] for _, after in pairwise(kept)]
        for item, end in zip(kept, [*ends, None], strict=True):
            if item["state"] is not None:
                found.append((key, item["state"], item["lsn"], item["event_time"], end, end is None))
    return sorted(found, key=repr)


@dataclass(frozen=True)
class Scenario:
    """Versions of two keys, in the order that they were made.

    Attributes:
        steps: Key, hour of the begin and state of each; no state is a delete.
        order: Shuffles the order in which they show up; None keeps it.
        batches: In how many commits they show up.
    """

    steps: list[tuple[int, int, str | None]]
    order: Random | None = None
    batches: int = 4


scenarios = st.builds(
    Scenario,
    steps=st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 5), st.sampled_from(["new", "paid", None])),
        min_size=2,
        max_size=10,
    ),
    order=st.randoms(use_true_random=False),
    batches=st.integers(1, 4),
)
SPLIT_AND_REINSERTED = Scenario(
    [(0, 0, "new"), (0, 4, "paid"), (0, 2, "sent"), (1, 0, "new"), (1, 3, None), (1, 5, "new"), (1, 4, None)]
)


@examples(
    max_examples=6, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(scenario=scenarios)
@example(scenario=SPLIT_AND_REINSERTED)
def test_live_runs_make_what_a_full_rebuild_makes_whatever_the_order(
    runner: Runner, catalog: Catalog, settings: Settings, scenario: Scenario
) -> None:
    name, batches = next(numbers), scenario.batches
    told = [version(f"k{name}-{key}", lsn, at, state) for lsn, (key, at, state) in enumerate(scenario.steps)]
    keys = {item["order_id"] for item in told}
    if scenario.order is not None:
        scenario.order.shuffle(told)
    for number in range(batches):
        visible = told[: len(told) * (number + 1) // batches]
        land(settings, visible[len(told) * number // batches :])
        assert all(audit.passed for audit in runner.run_live(DIMENSION).audits)
        assert stored(catalog, keys) == intervals(visible)
    assert rendered(runner, settings) == rows(catalog, DIMENSION)
    assert runner.rebuild(DIMENSION).snapshot_id is None  # Nothing differs, so nothing is swapped.


def test_a_live_run_rewrites_only_the_keys_that_have_news(runner: Runner, catalog: Catalog, settings: Settings) -> None:
    one, other = f"k{next(numbers)}", f"k{next(numbers)}"
    land(settings, [version(one, 1, 0, "new"), version(other, 1, 0, "new")])
    runner.run_full(DIMENSION)
    files = {task.file.file_path for task in load_table(catalog, DIMENSION).scan().plan_files()}
    late = version(one, 2, 1, "paid")
    land(settings, [late])
    run = runner.run_live(DIMENSION)
    assert (run.note, run.mode) == ("", "live")
    assert files < {task.file.file_path for task in load_table(catalog, DIMENSION).scan().plan_files()}
    assert stored(catalog, {one, other}) == intervals([version(one, 1, 0, "new"), late, version(other, 1, 0, "new")])
    head = load_table(catalog, DIMENSION).current_snapshot()
    assert runner.run_live(DIMENSION).note == "up to date"
    assert load_table(catalog, DIMENSION).current_snapshot() == head


def test_versions_that_are_gone_upstream_are_forgotten(runner: Runner, catalog: Catalog, settings: Settings) -> None:
    key = f"k{next(numbers)}"
    kept = version(key, 1, 0, "new")
    land(settings, [kept, version(key, 2, 1, "paid")])
    runner.run_live(DIMENSION)
    load_table(catalog, "bronze.orders").delete(f"order_id = '{key}' and lsn = 2")
    assert "everything is rebuilt" in runner.run_live(DIMENSION).note
    assert stored(catalog, {key}) == intervals([kept])
