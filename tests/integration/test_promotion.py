"""Promotions and rollbacks of models, and two developers at once, on a real lake."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from dagster import DagsterInstance
from pyiceberg.catalog import Catalog

from freshdata.environments.plan import plan_environment
from freshdata.environments.promote import PRODUCTION, follow_files, promote, rollback
from freshdata.environments.records import drop_environment, locked, read_environment, read_environments
from freshdata.errors import DeploymentError, TransformError
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.lake.query import run_query
from freshdata.settings import PROJECT, Settings
from freshdata.transform.manifest import load_manifest
from freshdata.transform.runner import open_runner
from freshdata.transform.versions import read_versions
from freshdata_assets.defs.resources import TURN
from tests.bronze import append, flight_event, rows
from tests.developers import (
    CARRIERS,
    DAY,
    FLIGHTS,
    MONTHS,
    PUNCTUALITY,
    ROUTES,
    SHARE,
    add_worst,
    checkout,
    edit,
    filled,
    heads,
    own_tables,
    run_all,
)
from tests.streams import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def production(tmp_path: Path) -> Settings:
    return filled(checkout(tmp_path / "production", tmp_path / "home"))


@pytest.fixture
def catalog(production: Settings) -> Catalog:
    return open_catalog(production)


def worst(catalog: Catalog) -> list[int | None]:
    return [row["worst"] for row in rows(catalog, CARRIERS)]


def moved(before: dict[str, int | None], after: dict[str, int | None]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def double_delays(settings: Settings) -> None:
    """Change Silver's rows, and its column's name, on which Gold depends."""
    edit(settings, "models/silver/flight_events.sql", ("  dep_delay, --", "  2 * dep_delay AS dep_delay, --"))
    edit(settings, "tests/test_flight_events.yaml", ("dep_delay: 4, _offset: 3", "dep_delay: 8, _offset: 3"))


def test_production_follows_what_was_promoted_and_goes_back(production: Settings, catalog: Catalog) -> None:
    run_all(production)
    before, original = heads(catalog), rows(catalog, CARRIERS)
    add_worst(production)
    plan_environment(production, "column")
    # The files are not production's any more, nor is an environment: runs go on with the models deployed before.
    run_all(production)
    assert heads(catalog) == before
    edit(production, "models/gold/dim_plane.sql", ("'Planes.'", "'Aeroplanes.'"))
    with pytest.raises(DeploymentError, match="files have changed since the plan"):
        promote(production, "column")
    edit(production, "models/gold/dim_plane.sql", ("'Aeroplanes.'", "'Planes.'"))
    done = promote(production, "column")
    assert done.failures == {}
    assert worst(catalog) == [9, 3, 3]
    assert moved(before, heads(catalog)) == {CARRIERS, MONTHS}
    assert read_environment(production, "column").state == "promoted"
    with pytest.raises(DeploymentError, match="its models are production's"):
        promote(production, "column")

    append(catalog, "flight_events", [flight_event(DAY, 20)])
    run_all(production)
    assert worst(catalog)[0] == 20
    mine = {name: load_table(catalog, name).current_snapshot() for name in own_tables(catalog, "column")}
    undone = rollback(production)
    assert undone.restored == (CARRIERS, MONTHS)
    # The rows of before, and the news that came in since.
    (first, *others), (then, *unchanged) = rows(catalog, CARRIERS), original
    assert (first["flights"], then["flights"], others) == (6, 5, unchanged)
    assert load_table(catalog, CARRIERS).schema().column_names == list(load_manifest(production)[CARRIERS].columns)
    assert {name: load_table(catalog, name).current_snapshot() for name in own_tables(catalog, "column")} == mine
    with pytest.raises(DeploymentError, match="nothing was promoted"):
        rollback(production)
    assert promote(production, "column").failures == {}
    assert worst(catalog) == [20, 3, 3]


def test_one_model_goes_back_and_what_is_downstream_follows(production: Settings, catalog: Catalog) -> None:
    run_all(production)
    plan_environment(production, "mine")
    original = {model: rows(catalog, model) for model in (FLIGHTS, CARRIERS, ROUTES)}
    double_delays(production)
    assert plan_environment(production, "mine").environment.state == "ready"
    promote(production, "mine")
    add_worst(production)
    plan_environment(production, "mine")
    promote(production, "mine")
    assert worst(catalog) == [18, 6, 6]
    dimension = load_table(catalog, "gold.dim_carrier").current_snapshot()
    undone = rollback(production, FLIGHTS)
    assert undone.failures == {}
    # Gold's carriers were made by other code then, and are rebuilt; the other tables have their old snapshots back.
    assert set(undone.restored) == {FLIGHTS, MONTHS, "gold.delay_by_weather", ROUTES}
    assert rows(catalog, FLIGHTS) == original[FLIGHTS]
    assert rows(catalog, ROUTES) == original[ROUTES]
    assert worst(catalog) == [9, 3, 3]
    assert load_table(catalog, "gold.dim_carrier").current_snapshot() == dimension
    # Everything else of the promoted models is kept, the unit tests of the model go back with it.
    with open_runner(production) as runner:
        assert runner._context.test().wasSuccessful()
    with pytest.raises(DeploymentError, match="back at its first version"):
        rollback(production, FLIGHTS)
    rollback(production, CARRIERS)
    assert rows(catalog, CARRIERS) == original[CARRIERS]
    assert [version.how for version in read_versions(production)][-2:] == ["rolled back", "rolled back"]


def test_a_serving_view_goes_the_way_of_its_gold(production: Settings, catalog: Catalog) -> None:
    def asked(view: str) -> list[dict[str, Any]]:
        return run_query(production, f"FROM {view} ORDER BY flights DESC").select(["flights", "worst"]).to_pylist()

    days = [{"flights": flights, "worst": worst} for flights, worst in ((5, 9), (3, 3), (3, 3))]
    run_all(production)
    add_worst(production)
    edit(
        production,
        "models/serving/carrier_punctuality.sql",
        ("  d.flights, --", "  d.worst, -- Worst.\n  d.flights, --"),
    )
    edit(
        production,
        "tests/test_serving.yaml",
        ("tenant_id: UA, flights: 4, ", "tenant_id: UA, flights: 4, worst: 8, "),
        ("flights: 4, cancelled_share", "flights: 4, worst: 8, cancelled_share"),
        ("flights: 2, cancelled_share", "flights: 2, worst: null, cancelled_share"),
        ("flights: 1, cancelled_share", "flights: 1, worst: null, cancelled_share"),
    )
    plan = plan_environment(production, "mine")
    assert plan.environment.state == "ready", plan.environment.reasons
    assert plan.environment.changes == {CARRIERS: "changed", MONTHS: "downstream", PUNCTUALITY: "changed"}
    # The environment's is over the environment's own Gold; production's is as it was.
    assert asked(f"mine__{PUNCTUALITY}") == days
    before = run_query(production, f"FROM {PUNCTUALITY} ORDER BY ALL")
    assert "worst" not in before.column_names

    done = promote(production, "mine")
    assert (done.failures, [run.model for run in done.runs]) == ({}, [CARRIERS, MONTHS])
    assert asked(PUNCTUALITY) == days
    assert rollback(production, PUNCTUALITY).runs == ()
    assert run_query(production, f"FROM {PUNCTUALITY} ORDER BY ALL") == before
    assert worst(catalog) == [9, 3, 3]
    rollback(production)  # The rollback itself.
    assert asked(PUNCTUALITY) == days
    rollback(production)
    assert run_query(production, f"FROM {PUNCTUALITY} ORDER BY ALL") == before
    assert "worst" not in load_table(catalog, CARRIERS).schema().column_names


def test_a_model_that_others_need_does_not_go_back(production: Settings, catalog: Catalog) -> None:
    plan_environment(production, "mine")
    edit(
        production, "models/silver/flight_events.sql", ("  dep_delay, --", "  dep_delay, -- Delay.\n  'x' AS mark, --")
    )
    edit(production, "models/gold/carrier_day.sql", (SHARE, "  MAX(mark)::TEXT AS mark, -- Mark.\n" + SHARE))
    edit(
        production,
        "models/gold/carrier_day.sql",
        ("    sched_dep_time,\n    MAX", "    sched_dep_time,\n    MAX(mark) AS mark,\n    MAX"),
    )
    tests = production.working_models_dir / "tests" / "test_carrier_day.yaml"
    tests.write_text(
        tests.read_text()
        .replace("event_type:", "mark: x, event_type:")
        .replace("on_time_share:", "mark: x, on_time_share:")
    )
    plan = plan_environment(production, "mine")
    assert plan.environment.state == "ready", plan.environment.reasons
    promote(production, "mine")
    before = heads(catalog)
    with pytest.raises(TransformError, match="mark"):
        rollback(production, FLIGHTS)
    assert heads(catalog) == before
    assert {row["mark"] for row in rows(catalog, CARRIERS)} == {"x"}
    assert len(read_versions(production)) == 2


def test_two_people_work_side_by_side(
    production: Settings, catalog: Catalog, tmp_path: Path, environment: Callable[[Settings], dict[str, str]]
) -> None:
    ann, bob = (checkout(tmp_path / name, production.home) for name in ("ann", "bob"))
    add_worst(ann)
    edit(
        bob,
        "models/gold/route_day.sql",
        ("  MAX(distance)::INT AS distance -- Distance in miles.", "  MAX(distance)::DOUBLE AS distance -- Miles."),
    )
    before = heads(catalog)

    def start(settings: Settings, *arguments: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "freshdata.cli", *arguments]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(line, env=environment(settings) | {"COLUMNS": "150"}, **pipes)

    def run(settings: Settings, *arguments: str) -> tuple[int | None, str, str]:
        with start(settings, *arguments) as process:
            output, errors = process.communicate(timeout=280)
        return process.returncode, output, errors

    plans = [start(ann, "plan", "ann", "--json"), start(bob, "plan", "bob", "--json")]
    told = [process.communicate(timeout=280) for process in plans]
    assert [process.returncode for process in plans] == [0, 0], told
    columns, types = (json.loads(output) for output, _ in told)
    assert [change["model"] for change in columns["changes"]] == [CARRIERS, MONTHS, PUNCTUALITY]
    assert [change["breaking"] for change in types["changes"]] == [["column distance changes from INT to DOUBLE"], []]
    assert columns["diffs"][0]["added_columns"] == {"worst": "INTEGER"}
    assert own_tables(catalog, "ann") == {f"ann__{CARRIERS}", f"ann__{MONTHS}"}
    assert own_tables(catalog, "bob") == {f"bob__{ROUTES}"}
    assert heads(catalog) == before
    assert {one.name: one.state for one in read_environments(production)} == {"ann": "ready", "bob": "ready"}

    theirs = load_table(catalog, f"bob__{ROUTES}").current_snapshot()
    code, output, errors = run(ann, "promote", "ann")
    assert (code, errors) == (0, ""), output
    assert "ann is production now" in output
    assert moved(before, heads(catalog)) == {CARRIERS, MONTHS}
    assert load_table(catalog, f"bob__{ROUTES}").current_snapshot() == theirs
    code, _, errors = run(bob, "promote", "bob")
    assert code == 1
    assert "production has moved on since the plan" in " ".join(errors.split())

    add_worst(bob)  # What Bob's version control would do: take in what Ann promoted.
    code, output, errors = run(bob, "plan", "bob")
    assert (code, errors) == (0, ""), output
    assert "bob is ready" in output
    assert CARRIERS not in output
    assert promote(bob, "bob").failures == {}
    table = load_table(catalog, ROUTES)
    assert str(table.schema().find_type("distance")) == "double"
    assert {row["distance"] for row in rows(catalog, ROUTES)} == {1400.0}
    rollback(bob, ROUTES)
    assert {row["distance"] for row in rows(catalog, ROUTES)} == {1400}
    assert str(load_table(catalog, ROUTES).schema().find_type("distance")) == "int"
    assert worst(catalog) == [3, 3, 3]

    assert set(drop_environment(ann, catalog, "ann")) == {f"ann__{CARRIERS}", f"ann__{MONTHS}"}
    assert not own_tables(catalog, "ann")
    assert not list((production.home / "warehouse").glob("ann__*/*"))
    assert [one.name for one in read_environments(production)] == ["bob"]
    follow_files(production)
    assert production.models_dir == production.working_models_dir


def test_a_promotion_and_runs_wait_for_one_another(
    production: Settings, catalog: Catalog, environment: Callable[[Settings], dict[str, str]]
) -> None:
    run_all(production)
    add_worst(production)
    plan_environment(production, "column")
    before, state = heads(catalog), production.home / "sqlmesh" / "state.duckdb"
    production.dagster_home.mkdir()
    shutil.copyfile(PROJECT / "dagster.yaml", production.dagster_home / "dagster.yaml")

    def start(*arguments: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "freshdata.cli", *arguments, "--json"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(line, env=environment(production), **pipes)

    def held() -> bool:
        try:
            duckdb.connect(str(state)).close()
        except duckdb.IOException:
            return True
        return False

    def promoting() -> bool:
        try:
            with locked(production, PRODUCTION):
                return False
        except DeploymentError:
            return True

    days = ("--from", str(DAY), "--to", str(DAY))
    first = start("backfill", CARRIERS, *days)
    wait_for(lambda: held() or first.poll() is not None, "the first run")
    assert first.poll() is None, first.communicate()
    first.send_signal(signal.SIGSTOP)
    waiting = [start("backfill", ROUTES, *days), start("promote", "column")]
    with DagsterInstance.from_config(str(production.dagster_home)) as instance:
        log = instance.event_log_storage
        wait_for(lambda: log.get_concurrency_info(TURN).pending_step_count == 1, "the second run")
    wait_for(promoting, "the promotion")
    assert heads(catalog) == before
    first.send_signal(signal.SIGCONT)
    told = [process.communicate(timeout=280) for process in (first, *waiting)]
    assert [process.returncode for process in (first, *waiting)] == [0, 0, 0], told
    assert [version.how for version in read_versions(production)][-1] == "promoted"
    assert worst(catalog) == [9, 3, 3]
    assert {CARRIERS, ROUTES} <= moved(before, heads(catalog))
