"""One story of a lake, told to any engine: what came after DuckDB had built it."""

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog

from freshdata.contracts import load_contracts
from freshdata.lake.catalog import ensure_table, open_catalog
from freshdata.settings import PROJECT, Settings
from freshdata.transform.runner import Runner, open_runner
from tests import captures
from tests.bronze import append, flight_event, observation, rows
from tests.captures import HARD, HISTORY, SOFT, UNTOLD, customers_project
from tests.changes import change, land, shop

DAY, NEXT, LAST = (date(2013, 1, 1) + timedelta(days=number) for number in range(3))
TENANTS = ("UA", "AA", "B6")
# Microseconds, which not every engine's default timestamp has.
LATER = datetime(2013, 2, 1, 12, 0, 0, 123457, tzinfo=UTC)


def build(settings: Settings) -> None:
    """Two days of flights and weather and the lookups, taken to Gold by DuckDB."""
    catalog = open_catalog(settings)
    append(catalog, "flight_events", [event for day in (DAY, NEXT) for event in flights(day)])
    append(catalog, "weather", [observation(day, precip=precip) for day, precip in ((DAY, 0.2), (NEXT, 0.0))])
    fill_lookups(catalog, "United")
    with open_runner(settings) as runner:
        for model in runner.manifest:
            runner.run_live(model)


def proceed(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Continue the lake with the instance's engine, in every way there is; every model's rows in the end."""
    catalog = open_catalog(settings)
    with open_runner(settings) as runner:
        # News of an old day and a new one, a later version, and a lookup that changed.
        landed = [
            flight_event(DAY, number, "arrived", arr_delay=number * 7, _ingested_at=LATER) for number in (1, 2, 4)
        ]
        cancelled = flight_event(LAST, 9, "cancelled", tenant_id="AA")
        append(catalog, "flight_events", [*landed, cancelled, flight_event(DAY, 3, dep_delay=99, _ingested_at=LATER)])
        append(catalog, "weather", [observation(LAST, visib=1.0)])
        fill_lookups(catalog, "United Air Lines")
        follow(runner)
        for model in ("silver.flight_events", "gold.carrier_day", "gold.delay_by_weather"):
            runner.run_partitions(model, DAY, NEXT)
        runner.run_partitions("silver.flight_events", NEXT, NEXT, tenant="UA")
        # Late rows, one of them older than the version that is there.
        late = [flight_event(DAY, 30, "arrived"), flight_event(DAY, 3, dep_delay=1)]
        append(catalog, "flight_events", late)
        follow(runner)
        assert not any(runner.pending(model).behind for model in runner.manifest)
        assert not any(runner.run_live(model).audits for model in runner.manifest)
        return {model: rows(catalog, model) for model in runner.manifest}


def flights(day: date) -> list[dict[str, Any]]:
    """A day's departures of three carriers."""
    return [flight_event(day, number, tenant_id=TENANTS[number % 3], origin=("EWR", "JFK")[number % 2])
            for number in range(1, 13)]  # fmt: skip


def fill_lookups(catalog: Catalog, name: str) -> None:
    """One row in each lookup table."""
    for contract in load_contracts(PROJECT / "contracts").values():
        if contract.kind == "lookup":
            schema = contract.arrow_schema
            row = {field.name: name if pa.types.is_string(field.type) else 4 for field in schema}
            table = ensure_table(catalog, contract.table, schema)
            write = table.overwrite if table.current_snapshot() else table.append
            write(pa.Table.from_pylist([row], schema=schema))


def follow(runner: Runner) -> None:
    """Run every model live, upstream first; no audit may object."""
    for model in runner.manifest:
        assert all(audit.passed for audit in runner.run_live(model).audits), model


def assert_equal(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Equal rows; means and percentiles up to the last bits."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            if isinstance(value, float) and one[name] is not None:
                assert math.isclose(one[name], value, rel_tol=1e-12), (name, one, other)
            else:
                assert one[name] == value, (name, one, other)


ORDERS = """
MODEL (
  name silver.orders,
  kind CUSTOM (
    materialization 'merge_by_key',
    materialization_properties (date_column = order_date, unique_key = order_id, version = lsn, deleted = (op = 'd'))
  ),
  partitioned_by (order_date),
  grain (order_id),
  audits (unique_values(columns := (order_id)))
);
SELECT order_id, order_date, lsn, op, state
FROM bronze.orders
WHERE order_date BETWEEN @start_date AND @end_date
QUALIFY ROW_NUMBER() OVER (PARTITION BY order_id ORDER BY lsn DESC) = 1
"""
DIMENSION = """
MODEL (
  name gold.dim_order,
  kind CUSTOM (
    materialization 'scd2',
    materialization_properties (unique_key = order_id, valid_from = valid_from, version = lsn, deleted = (op IN ('d')))
  ),
  grain (order_id, valid_from),
  audits (unique_combination_of_columns(columns := (order_id, valid_from)))
);
SELECT order_id, op, state, lsn, event_time AS valid_from
FROM bronze.orders
"""


def trade(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Orders that are made, move to another day and are deleted, in and out of order; every table's rows in the end.

    DuckDB takes in the first of them, the instance's engine the rest.
    """
    catalog = open_catalog(settings)
    begin = datetime(2026, 3, 1, 0, 0, 0, 7, tzinfo=UTC)
    days = [date(2026, 3, 1) + timedelta(days=number) for number in range(3)]

    def step(key: str, lsn: int, op: str, day: int) -> dict[str, Any]:
        return change(key, lsn, op, days[day], event_time=begin + timedelta(hours=lsn))

    land(settings, [step("a", 1, "c", 0), step("b", 2, "c", 0), step("c", 3, "c", 1)])
    with open_runner(settings.model_copy(update={"engine": "duckdb"})) as runner:
        follow(runner)
    with open_runner(settings) as runner:
        # A move, a delete before the update that it follows, and a new order.
        for landed in ([step("a", 6, "u", 2), step("b", 8, "d", 0), step("d", 9, "c", 0)], [step("b", 7, "u", 1)]):
            land(settings, landed)
            follow(runner)
        runner.run_partitions("silver.orders", days[0], days[1])
        runner.rebuild("gold.dim_order")
        assert not any(runner.pending(model).behind for model in runner.manifest)
        tables = ("silver.orders", "silver.orders__deletes", "gold.dim_order")
        return {table: rows(catalog, table) for table in tables}


def assert_trades_alike(folder: Path, other: Callable[[Settings], Settings]) -> None:
    """What DuckDB makes of the orders, another engine makes of them."""
    models = {"silver.orders": ORDERS, "gold.dim_order": DIMENSION}
    expected, found = trade(shop(folder / "duckdb", models)), trade(other(shop(folder / "other", models)))
    for table in expected:
        assert_equal(found[table], expected[table])
    assert [(row["order_id"], row["lsn"]) for row in expected["silver.orders"]] == [("a", 6), ("c", 3), ("d", 9)]
    assert len(expected["gold.dim_order"]) == 6


def capture(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Changes of a database's table, in all ways that they come; the rows of each table before and after a truncation.

    DuckDB takes in the first of them, the instance's engine the rest.
    """
    told, catalog = captures.change, open_catalog(settings)
    captures.land(settings, [
        told("r", 1, 1, City="Rome", note="long", credit="1.50", visits=1), told("r", 1, 2, City="Oslo", note="old"),
        told("c", 2, 3, City="Bern", note="kept", credit="-0.01"),
    ])  # fmt: skip
    with open_runner(settings.model_copy(update={"engine": "duckdb"})) as runner:
        follow(runner)
    found: dict[str, list[dict[str, Any]]] = {}
    with open_runner(settings) as runner:
        # Values left out, deletes, a change of a key, what was deleted made again; then a truncation between others.
        first = [
            told("u", 3, 1, City="Pisa", note=UNTOLD), told("d", 4, 2), told("d", 5, 3), told("c", 5, 4, City="Bern"),
            told("u", 6, 1, City="Bari", note=UNTOLD, visits=2), told("c", 7, 2, City="Kiel"),
        ]  # fmt: skip
        then = [
            told("c", 9, 5, City="Genf"), told("t", 10), told("c", 11, 6, City="Metz", note="big"),
            told("c", 12, 1, City="Rome"), told("u", 13, 6, City="Metz", note=UNTOLD, credit="2.00"), told("d", 14, 1),
        ]  # fmt: skip
        for step, changes in (("untruncated", first), ("truncated", then)):
            captures.land(settings, changes)
            follow(runner)
            found |= {f"{step} {table}": rows(catalog, table) for table in (HARD, f"{HARD}__deletes", SOFT, HISTORY)}
        assert not any(runner.pending(model).behind for model in runner.manifest)
        runner.run_full(SOFT)
        return found | {SOFT: rows(catalog, SOFT)}


def assert_captures_alike(folder: Path, other: Callable[[Settings], Settings]) -> None:
    """What DuckDB makes of a captured table's changes, another engine makes of them."""
    projects = [customers_project(folder / name) for name in ("duckdb", "other")]
    for settings in projects:
        contract = settings.contracts_dir / "customers.odcs.yaml"
        # Spark does not read Iceberg tables with such a column.
        lines = [line for line in contract.read_text().splitlines() if "physicalType: time}" not in line]
        contract.write_text("\n".join(lines))
    expected, found = capture(projects[0]), capture(other(projects[1]))
    for table in expected:
        assert_equal(found[table], expected[table])
    assert [(row["id"], row["city"], row["note"]) for row in expected[f"truncated {HARD}"]] == [(6, "Metz", "big")]
    assert [(row["id"], row["note"]) for row in expected[f"untruncated {HARD}"]] == [(1, "long"), (2, None), (4, None)]
    assert [row["id"] for row in expected[SOFT] if not row["_is_deleted"]] == [6]
    assert len(expected[SOFT]) == 6
    assert len(expected[f"truncated {HISTORY}"]) == 10
