"""Plans of environments on a real lake: each test changes models as a developer would."""

from datetime import timedelta
from pathlib import Path

import pytest

from freshdata.environments.plan import Plan, plan_environment
from freshdata.environments.promote import promote
from freshdata.errors import DeploymentError, TransformError
from freshdata.lake.catalog import open_catalog
from freshdata.settings import Settings
from tests.bronze import rows
from tests.developers import (
    CARRIERS,
    DAY,
    FLIGHTS,
    MONTHS,
    PUNCTUALITY,
    ROUTES,
    TRAFFIC,
    WEATHER,
    add_worst,
    checkout,
    edit,
    filled,
    heads,
    own_tables,
)

pytestmark = pytest.mark.integration


def kinds(plan: Plan) -> dict[str, str]:
    return {change.model: change.kind for change in plan.changes}


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Production with three days of flights, and an event that its Silver has not taken in yet."""
    folder = tmp_path_factory.mktemp("production")
    return filled(checkout(folder, folder / "home"))


@pytest.fixture
def developer(production: Settings, tmp_path: Path) -> Settings:
    return checkout(tmp_path / "work", production.home)


def test_a_changed_formula_shows_exactly_what_it_changes(developer: Settings) -> None:
    catalog = open_catalog(developer)
    before = heads(catalog)
    edit(
        developer,
        "models/silver/flight_events.sql",
        ("  dep_delay, --", "  dep_delay + dep_delay % 2 AS dep_delay, --"),
    )
    plan = plan_environment(developer, "formula")
    assert plan.environment.state == "ready", plan.environment.reasons
    below = dict.fromkeys((CARRIERS, MONTHS, WEATHER, ROUTES), "downstream")
    views = dict.fromkeys((PUNCTUALITY, TRAFFIC), "downstream")  # Of which nothing is built.
    assert kinds(plan) == {FLIGHTS: "changed"} | below | views
    assert "-  dep_delay, --" in plan.changes[0].diff
    assert plan.changes[0].asset == "silver/flight_events"
    assert own_tables(catalog, "formula") == {f"formula__{model}" for model in (FLIGHTS, *below)}
    assert heads(catalog) == before
    silver, carriers, *_ = plan.diffs
    # Of each day's delays 1, 2 and 3, the odd ones change; the event that production has not seen makes no difference.
    assert (silver.production_rows, silver.environment_rows, silver.changed_values) == (10, 10, {"dep_delay": 6})
    assert (silver.changed_rows, silver.only_production, silver.only_environment) == (6, 0, 0)
    assert [(value.production, value.environment) for value in silver.values[:2]] == [(1, 2), (3, 4)]
    assert (carriers.key, carriers.changed_values) == (("flight_date", "tenant_id"), {"mean_dep_delay_min": 3})
    assert carriers.values[0].key == {"flight_date": DAY, "tenant_id": "UA"}
    assert carriers.values[0].production == 2.0
    assert carriers.values[0].environment == pytest.approx(8 / 3)
    assert any(gate.name == f"contract rules on {FLIGHTS}" and gate.passed for gate in plan.gates)
    assert plan.notes == ()


def test_an_added_column_is_built_on_productions_silver(developer: Settings) -> None:
    add_worst(developer)
    plan = plan_environment(developer, "column", start=DAY + timedelta(days=1), end=DAY + timedelta(days=2))
    assert plan.environment.state == "ready", plan.environment.reasons
    assert kinds(plan) == {CARRIERS: "changed", MONTHS: "downstream", PUNCTUALITY: "downstream"}
    assert plan.changes[0].breaking == ()
    assert own_tables(open_catalog(developer), "column") == {f"column__{CARRIERS}", f"column__{MONTHS}"}
    assert plan.notes == (f"{MONTHS} has whole months: it was built from the plan's days of what is upstream",)
    diff = plan.diffs[0]
    assert (diff.added_columns, diff.removed_columns, diff.changed_rows) == ({"worst": "INTEGER"}, {}, 0)
    assert (diff.production_rows, diff.environment_rows) == (2, 2)
    built = rows(open_catalog(developer), f"column__{CARRIERS}")
    assert [(row["flight_date"], row["worst"]) for row in built] == [(DAY + timedelta(days=n), 3) for n in (1, 2)]


def test_a_breaking_change_is_called_one(developer: Settings) -> None:
    edit(
        developer,
        "models/gold/route_day.sql",
        ("  MAX(distance)::INT AS distance -- Distance in miles.", "  MAX(distance)::DOUBLE AS distance -- Miles."),
        ("  COUNT(arr_delay)::BIGINT AS arrivals, -- Flights whose arrival delay is known.\n", ""),
        ("arrivals, distance", "distance"),
        ("WHERE\n    flight_date", "WHERE\n    flight <> 3 AND flight_date"),
    )
    test = developer.working_models_dir / "tests" / "test_route_day.yaml"
    test.write_text(
        test.read_text().replace("arrivals: 2, ", "").replace("arrivals: 1, ", "").replace("arrivals: 0, ", "")
    )
    with pytest.raises(TransformError, match=f"{TRAFFIC}: reads what is not there: Unknown column: arrivals"):
        plan_environment(developer, "breaking")
    shares = ("mean_arr_delay_min", "on_time_share")
    weights = [(f"(r.{name} * r.arrivals) / NULLIF(SUM(r.arrivals), 0)", f"(r.{name})") for name in shares]
    edit(developer, "models/serving/route_traffic.sql", *weights)
    edit(
        developer,
        "tests/test_serving.yaml",
        ("arrivals: 3, ", ""),
        ("arrivals: 1, ", ""),
        ("cancelled: 5, arrivals: 0, ", "cancelled: 5, "),
        ("cancelled: 0, arrivals: 0, ", "cancelled: 0, "),
        ("mean_arr_delay_min: 7.0, on_time_share: 0.75", "mean_arr_delay_min: 8.0, on_time_share: 1.0"),
    )
    plan = plan_environment(developer, "breaking")
    assert plan.environment.state == "ready", plan.environment.reasons
    change, view = plan.changes
    assert (view.model, view.kind, view.breaking) == (TRAFFIC, "changed", ())
    assert change.breaking == ("column arrivals is removed", "column distance changes from INT to DOUBLE")
    (diff,) = plan.diffs
    assert diff.removed_columns == {"arrivals": "BIGINT"}
    assert diff.retyped_columns == {"distance": ("INTEGER", "DOUBLE")}
    assert diff.changed_values == {"flights": 3, "mean_dep_delay_min": 3}
    assert (diff.only_production, diff.only_environment) == (0, 0)


def test_an_added_and_a_removed_model(developer: Settings) -> None:
    folder = developer.working_models_dir
    text = (folder / "models/gold/dim_carrier.sql").read_text()
    (folder / "models/gold/dim_airline.sql").write_text(text.replace("gold.dim_carrier", "gold.dim_airline"))
    tests = folder / "tests" / "test_dimensions.yaml"
    tests.write_text(tests.read_text().replace("gold.dim_carrier", "gold.dim_airline"))
    for file in ("models/serving/carrier_punctuality.sql", "tests/test_serving.yaml"):
        edit(developer, file, ("gold.dim_carrier", "gold.dim_airline"))
    (folder / "models/gold/dim_carrier.sql").unlink()
    edit(developer, "models/gold/dim_plane.sql", ("'Planes.'", "'Aeroplanes.'"))
    plan = plan_environment(developer, "added")
    assert plan.environment.state == "ready", plan.environment.reasons
    described = {"gold.dim_plane": "described"}
    assert kinds(plan) == {
        "gold.dim_airline": "added", "gold.dim_carrier": "removed", PUNCTUALITY: "changed"
    } | described  # fmt: skip
    assert {gate.name for gate in plan.gates} >= {"audits of gold.dim_airline", "audits of gold.dim_plane"}
    assert plan.diffs == ()
    assert plan.tables == {"gold.dim_airline": ("added__gold.dim_airline", 0)}


def test_what_the_gates_refuse_is_not_promoted(developer: Settings) -> None:
    catalog = open_catalog(developer)
    before = heads(catalog)
    tests = developer.working_models_dir / "tests"
    (tests / "test_route_day.yaml").rename(developer.project / "elsewhere.yaml")
    edit(developer, "tests/test_carrier_day.yaml", ("flights: 6, cancelled: 1", "flights: 7, cancelled: 1"))
    untested = plan_environment(developer, "refused")
    reasons = " ".join(untested.environment.reasons)
    assert "gold.route_day breaks nomissingunittest" in reasons
    assert "test_counts_every_scheduled_flight_once" in reasons
    with pytest.raises(DeploymentError, match="nomissingunittest"):
        promote(developer, "refused")

    (developer.project / "elsewhere.yaml").rename(tests / "test_route_day.yaml")
    edit(developer, "tests/test_carrier_day.yaml", ("flights: 7, cancelled: 1", "flights: 6, cancelled: 1"))
    edit(
        developer,
        "models/silver/flight_events.sql",
        ("  event_type, -- What", "  CASE WHEN dep_delay = 3 THEN 'lost' ELSE event_type END AS event_type, -- What"),
        ("  origin, -- Or", "  CASE WHEN dep_delay = 2 THEN NULL ELSE origin END AS origin, -- Or"),
    )
    wrong = plan_environment(developer, "refused")
    reasons = " ".join(wrong.environment.reasons)
    assert f"audits of {FLIGHTS}: accepted_values refuses 3 rows" in reasons
    assert f"contract rules on {FLIGHTS}: " in reasons
    with pytest.raises(DeploymentError, match="accepted_values refuses 3 rows"):
        promote(developer, "refused")
    assert heads(catalog) == before
