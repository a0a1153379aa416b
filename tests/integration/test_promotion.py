"""Promotions and rollbacks of models, and two developers at once, on a real lake."""

from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog

from freshdata.environments.plan import plan_environment
from freshdata.environments.promote import promote, rollback
from freshdata.environments.records import read_environment
from freshdata.errors import DeploymentError
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.settings import Settings
from freshdata.transform.manifest import load_manifest
from freshdata.transform.runner import open_runner
from freshdata.transform.versions import read_versions
from tests.bronze import append, flight_event, rows
from tests.developers import (
    CARRIERS,
    DAY,
    FLIGHTS,
    ROUTES,
    add_worst,
    checkout,
    edit,
    filled,
    heads,
    own_tables,
    run_all,
)

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
    assert moved(before, heads(catalog)) == {CARRIERS}
    assert read_environment(production, "column").state == "promoted"
    with pytest.raises(DeploymentError, match="its models are production's"):
        promote(production, "column")

    append(catalog, "flight_events", [flight_event(DAY, 20)])
    run_all(production)
    assert worst(catalog)[0] == 20
    mine = {name: load_table(catalog, name).current_snapshot() for name in own_tables(catalog, "column")}
    undone = rollback(production)
    assert undone.restored == (CARRIERS,)
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
    assert undone.restored == (FLIGHTS, "gold.delay_by_weather", ROUTES)
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


def test_a_model_that_others_need_does_not_go_back(production: Settings, catalog: Catalog) -> None:
    plan_environment(production, "mine")
    edit(
        production,
        "models/silver/flight_events.sql",
        ("  dep_delay, --", "  dep_delay, -- Departure delay.\n  2 * dep_delay AS twice, --"),
    )
    edit(production, "models/gold/carrier_day.sql", ("END) AS dep_delay", "END) AS dep_delay, MAX(twice) AS twice"))
    edit(production, "models/gold/carrier_day.sql", ("AVG(dep_delay)", "AVG(twice)"))
    tests = production.working_models_dir / "tests" / "test_carrier_day.yaml"
    tests.write_text(tests.read_text().replace("arr_delay: null}", "twice: 4, arr_delay: null}"))
    plan = plan_environment(production, "mine")
    reasons = " ".join(plan.environment.reasons)
    assert "unit tests" in reasons
