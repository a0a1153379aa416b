"""Silver of a change stream: what the source's table holds now, whatever was left out, truncated or told twice."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from pyiceberg.catalog import Catalog

from freshdata.lake.catalog import load_table, open_catalog
from freshdata.lake.query import connect
from freshdata.settings import Settings
from freshdata.transform.runner import Runner, open_runner
from tests.bronze import rows
from tests.captures import BEGIN, HARD, HISTORY, SOFT, UNTOLD, change, customers_project, land

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return customers_project(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def runner(settings: Settings) -> Iterator[Runner]:
    with open_runner(settings) as opened:
        yield opened


@pytest.fixture
def catalog(settings: Settings) -> Catalog:
    return open_catalog(settings)


def follow(runner: Runner) -> None:
    for model in (HARD, SOFT, HISTORY):
        assert all(audit.passed for audit in runner.run_live(model).audits)


def current(catalog: Catalog, model: str, *keys: int) -> dict[int, tuple[Any, ...]]:
    found = {row["id"]: row for row in rows(catalog, model)}
    flag = ("_is_deleted",) if model == SOFT else ()
    return {key: tuple(found[key][name] for name in ("city", "note", *flag)) for key in keys if key in found}


def history(catalog: Catalog, key: int) -> list[tuple[Any, ...]]:
    """The intervals of a key, in seconds since the beginning."""
    found = [row for row in rows(catalog, HISTORY) if row["id"] == key]
    intervals = [(row["valid_from"], row["valid_to"], row["city"], row["note"]) for row in found]
    return sorted(
        tuple((at - BEGIN).seconds if at else None for at in interval[:2]) + interval[2:] for interval in intervals
    )


@pytest.mark.parametrize("rebuilt", [False, True])
def test_a_table_whose_flag_an_earlier_release_named_otherwise_goes_on(
    runner: Runner, catalog: Catalog, settings: Settings, *, rebuilt: bool
) -> None:
    land(settings, [change("c", 1, key, City="Rome") for key in (91, 92)])
    follow(runner)
    with load_table(catalog, SOFT).update_schema() as columns:
        columns.rename_column("_is_deleted", "_deleted")
    if rebuilt:
        assert runner.rebuild(SOFT).lost == 0
    land(settings, [change("d", 2, 92, City="Rome")])
    follow(runner)
    assert current(catalog, SOFT, 91, 92) == {91: ("Rome", None, False), 92: ("Rome", None, True)}
    land(settings, [change("d", 3, 91, City="Rome")])
    follow(runner)


def test_what_a_change_leaves_out_is_what_it_was(runner: Runner, catalog: Catalog, settings: Settings) -> None:
    land(settings, [change("r", 1, 1, City="Rome", note="long", credit="1.50"), change("r", 1, 2, City="Oslo")])
    follow(runner)
    assert rows(catalog, HARD)[0]["credit"] == Decimal("1.50")
    land(settings, [change("u", 2, 1, City="Pisa", note=UNTOLD)])
    follow(runner)
    land(settings, [change("u", 3, 1, City="Bari", note=UNTOLD), change("u", 4, 1, City="Como", note=UNTOLD)])
    follow(runner)
    assert current(catalog, HARD, 1, 2) == {1: ("Como", "long"), 2: ("Oslo", None)}
    land(settings, [change("u", 5, 1, City="Como", note=None), change("u", 6, 1, City="Como", note=UNTOLD)])
    follow(runner)
    assert current(catalog, HARD, 1) == {1: ("Como", None)}
    assert history(catalog, 1) == [
        (1, 2, "Rome", "long"),
        (2, 3, "Pisa", "long"),
        (3, 4, "Bari", "long"),
        (4, 5, "Como", "long"),
        (5, None, "Como", None),
    ]


def test_a_deleted_row_goes_or_stays_flagged_with_its_last_values(
    runner: Runner, catalog: Catalog, settings: Settings
) -> None:
    land(settings, [change("c", 11, 11, City="Rome", note="long")])
    follow(runner)
    land(settings, [change("d", 12, 11)])
    follow(runner)
    assert current(catalog, HARD, 11) == {}
    assert current(catalog, SOFT, 11) == {11: ("Rome", "long", True)}
    land(settings, [change("c", 13, 11, City="Kiel")])
    follow(runner)
    assert current(catalog, HARD, 11) == {11: ("Kiel", None)}
    assert current(catalog, SOFT, 11) == {11: ("Kiel", None, False)}
    assert history(catalog, 11) == [(11, 12, "Rome", "long"), (13, None, "Kiel", None)]


def test_a_transaction_that_was_under_way_during_the_snapshot_counts_after_it(
    runner: Runner, catalog: Catalog, settings: Settings
) -> None:
    # It has written its change before the place in the log that the snapshot names, and commits after it.
    land(
        settings, [change("r", 19, 15, City="Rome"), change("r", 19, 16, City="Oslo"), change("u", 18, 15, City="Pisa")]
    )
    follow(runner)
    assert current(catalog, HARD, 15, 16) == {15: ("Pisa", None), 16: ("Oslo", None)}
    # Nor is it before the snapshot's row in the history, though that was read after it was committed.
    assert (history(catalog, 15), history(catalog, 16)) == ([(18, None, "Pisa", None)], [(19, None, "Oslo", None)])
    land(settings, [change("u", 17, 16, City="Bonn")])
    follow(runner)
    assert current(catalog, HARD, 15, 16) == {15: ("Pisa", None), 16: ("Bonn", None)}
    assert history(catalog, 16) == [(17, None, "Bonn", None)]
    # A row read again, late, takes nothing of the time of what comes after it, nor of what it repeats.
    land(settings, [change("r", 20, 16, City="Bonn"), change("d", 18, 16), change("c", 19, 16, City="Bern")])
    follow(runner)
    assert current(catalog, HARD, 16) == {16: ("Bern", None)}
    assert history(catalog, 16) == [(17, 18, "Bonn", None), (19, None, "Bern", None)]


def test_a_truncation_empties_what_is_before_it(runner: Runner, catalog: Catalog, settings: Settings) -> None:
    land(settings, [change("c", 21, 21, City="Rome", note="a"), change("c", 21, 22, City="Oslo")])
    follow(runner)
    land(settings, [change("c", 22, 23, City="Bern"), change("t", 24), change("c", 25, 22, City="Bonn")])
    follow(runner)
    assert {row["id"] for row in rows(catalog, HARD)} == {22}
    assert current(catalog, SOFT, 21, 22, 23) == {
        21: ("Rome", "a", True),
        22: ("Bonn", None, False),
        23: ("Bern", None, True),
    }
    assert (history(catalog, 21), history(catalog, 22)) == (
        [(21, 24, "Rome", "a")],
        [(21, 24, "Oslo", None), (25, None, "Bonn", None)],
    )


def test_a_full_rebuild_makes_what_the_live_runs_made(runner: Runner, catalog: Catalog, settings: Settings) -> None:
    land(settings, [change("c", 31, 31, City="Rome", note="long"), change("u", 32, 31, City="Pisa", note=UNTOLD)])
    follow(runner)
    for model in (HARD, SOFT, HISTORY):
        live = rows(catalog, model)
        with connect(settings) as connection:
            full = connection.execute(runner.render_full(model)).to_arrow_table().to_pylist()
        assert sorted(full, key=repr) == live, model
        runner.run_full(model)
        assert rows(catalog, model) == live, model
        assert runner.rebuild(model).snapshot_id is None, model
    land(settings, [change("u", 33, 31, City="Bari", note=UNTOLD)])
    follow(runner)
    assert current(catalog, HARD, 31) == {31: ("Bari", "long")}
