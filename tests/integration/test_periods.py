"""Models whose rows sum up several days stay incremental: whole months, and windows that look back."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest
from pyiceberg.catalog import Catalog

from freshdata.lake.catalog import load_table, open_catalog
from freshdata.lake.query import connect
from freshdata.settings import Settings
from freshdata.transform.runner import Runner, open_runner
from tests.bronze import append, flight_event, rows
from tests.developers import checkout
from tests.runs import follow

pytestmark = pytest.mark.integration

MONTHS, WINDOW = "gold.carrier_month", "gold.carrier_three_days"
JANUARY, FEBRUARY = date(2013, 1, 1), date(2013, 2, 1)
MODEL = """
MODEL (
  name gold.carrier_three_days,
  description 'Flights of each carrier on a day and the two before.',
  kind CUSTOM (
    materialization 'overwrite_changed_partitions',
    materialization_properties (date_column = flight_date, window_days = 3)
  ),
  partitioned_by (flight_date),
  grain (flight_date, tenant_id),
  audits (not_null(columns := (flight_date, tenant_id)))
);

SELECT
  today.flight_date, -- Last of the days.
  today.tenant_id, -- Carrier.
  SUM(earlier.flights)::BIGINT AS flights -- Scheduled flights.
FROM gold.carrier_day AS today
JOIN gold.carrier_day AS earlier
  ON earlier.tenant_id = today.tenant_id
  AND earlier.flight_date BETWEEN today.flight_date - INTERVAL '2' DAY AND today.flight_date
WHERE
  today.flight_date BETWEEN @start_date AND @end_date
GROUP BY
  today.flight_date,
  today.tenant_id
"""
UNIT_TEST = """
test_window:
  model: gold.carrier_three_days
  vars: {start: 2013-01-03, end: 2013-01-03}
  inputs:
    gold.carrier_day:
      rows:
        - {flight_date: 2013-01-01, tenant_id: UA, flights: 1}
        - {flight_date: 2013-01-03, tenant_id: UA, flights: 2}
  outputs:
    query:
      rows:
        - {flight_date: 2013-01-03, tenant_id: UA, flights: 3}
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = checkout(tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("home"))
    (settings.working_models_dir / "models/gold/carrier_three_days.sql").write_text(MODEL)
    (settings.working_models_dir / "tests/test_carrier_three_days.yaml").write_text(UNIT_TEST)
    return settings


@pytest.fixture(scope="module")
def runner(settings: Settings) -> Iterator[Runner]:
    """Two months, each with flights on a few days."""
    catalog = open_catalog(settings)
    events = [
        flight_event(start + timedelta(days=number), flight)
        for start in (JANUARY, FEBRUARY)
        for number in (0, 1, 2, 9, 27)
        for flight in (1, 2)
    ]
    append(catalog, "flight_events", events)
    with open_runner(settings) as runner:
        follow(runner)
        yield runner


def counts(catalog: Catalog, model: str) -> dict[date, int]:
    return {row.get("flight_month") or row["flight_date"]: row["flights"] for row in rows(catalog, model)}


def files(catalog: Catalog, model: str, day: date) -> set[str]:
    table = load_table(catalog, model)
    column = table.spec().fields[0].name
    return {task.file.file_path for task in table.scan(row_filter=f"{column} == '{day}'").plan_files()}


def assert_as_made_whole(settings: Settings, runner: Runner, catalog: Catalog) -> None:
    with connect(settings) as connection:
        for model in (MONTHS, WINDOW):
            whole: list[dict[str, Any]] = connection.execute(runner.render_full(model)).to_arrow_table().to_pylist()
            assert sorted(map(repr, rows(catalog, model))) == sorted(map(repr, whole))


def test_a_late_event_costs_its_month_and_the_days_that_look_back_on_it(
    settings: Settings, runner: Runner, catalog: Catalog
) -> None:
    before, untouched = counts(catalog, MONTHS), files(catalog, MONTHS, FEBRUARY)
    late = JANUARY + timedelta(days=9)
    append(catalog, "flight_events", [flight_event(late, 3)])
    runs = follow(runner)
    assert runs[MONTHS].partitions == {JANUARY: 1}
    assert counts(catalog, MONTHS) == before | {JANUARY: before[JANUARY] + 1}
    assert files(catalog, MONTHS, FEBRUARY) == untouched
    assert set(runs[WINDOW].partitions) == {late + timedelta(days=number) for number in range(3)}
    assert_as_made_whole(settings, runner, catalog)


def test_a_window_reaches_over_the_end_of_a_month(settings: Settings, runner: Runner, catalog: Catalog) -> None:
    last = FEBRUARY - timedelta(days=1)
    append(catalog, "flight_events", [flight_event(last, 1)])
    runs = follow(runner)
    assert set(runs[WINDOW].partitions) == {last, FEBRUARY, FEBRUARY + timedelta(days=1)}
    assert counts(catalog, WINDOW)[FEBRUARY] == 3
    assert set(runs[MONTHS].partitions) == {JANUARY}
    assert_as_made_whole(settings, runner, catalog)


def test_one_day_of_a_month_is_rebuilt_as_the_whole_month(settings: Settings, runner: Runner, catalog: Catalog) -> None:
    right = rows(catalog, MONTHS)
    load_table(catalog, MONTHS).delete(f"flight_month = '{JANUARY}'")
    day = JANUARY + timedelta(days=14)
    assert runner.run_partitions(MONTHS, day, day).partitions == {JANUARY: 1}
    assert rows(catalog, MONTHS) == right
    assert_as_made_whole(settings, runner, catalog)


def test_a_rebuild_from_the_middle_of_a_month_takes_it_whole(runner: Runner, catalog: Catalog) -> None:
    right = rows(catalog, MONTHS)
    load_table(catalog, MONTHS).delete(f"flight_month = '{FEBRUARY}'")
    rebuilt = runner.rebuild(MONTHS, (FEBRUARY + timedelta(days=9), FEBRUARY + timedelta(days=10)))
    assert (rebuilt.days, rebuilt.gained, rebuilt.lost) == ((FEBRUARY, date(2013, 2, 28)), 1, 0)
    assert runner.rebuild(MONTHS).snapshot_id is None
    assert rows(catalog, MONTHS) == right
