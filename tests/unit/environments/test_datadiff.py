"""How differences between production's and an environment's rows are counted."""

from collections.abc import Iterator
from datetime import date

import duckdb
import pytest

from freshdata.environments.datadiff import DataDiff, compare_rows


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        for side in ("production", "lake"):
            connection.execute(f"ATTACH ':memory:' AS {side}; CREATE SCHEMA {side}.gold")
        yield connection


def compared(
    connection: duckdb.DuckDBPyConnection, production: str, environment: str, *grain: str, **days: object
) -> DataDiff:
    connection.execute(f"CREATE TABLE production.gold.t AS {production}")
    connection.execute(f"CREATE TABLE lake.gold.t AS {environment}")
    return compare_rows(connection, "gold.t", grain, **days)  # type: ignore[arg-type]


def test_equal_rows_in_another_order_are_the_same(connection: duckdb.DuckDBPyConnection) -> None:
    diff = compared(
        connection,
        "FROM (VALUES (1, 'a', 0.1::DOUBLE + 0.2::DOUBLE), (NULL, 'b', NULL)) t(key, name, share)",
        "FROM (VALUES (NULL, 'b', NULL), (1, 'a', 0.3::DOUBLE)) t(key, name, share)",
        "key",
    )
    assert diff.same
    assert diff.key == ("key",)


def test_sums_that_differ_in_their_last_digits_are_equal(connection: duckdb.DuckDBPyConnection) -> None:
    rows = "SELECT 1 AS key, {}::DOUBLE AS total"
    assert compared(connection, rows.format("1e9"), rows.format("1e9 + 1e-7"), "key").same


def test_rows_are_paired_by_key(connection: duckdb.DuckDBPyConnection) -> None:
    diff = compared(
        connection,
        "FROM (VALUES (1, 'a', 1.0::DOUBLE, 7), (2, 'b', 2, 7), (3, 'c', NULL, 7)) t(key, name, total, gone)",
        "FROM (VALUES (1, 'a', 1.5::DOUBLE, true), (3, 'C', 3, true), (4, 'd', 4, true)) t(key, name, total, new)",
        "key",
    )
    assert (diff.production_rows, diff.environment_rows, diff.only_production, diff.only_environment) == (3, 3, 1, 1)
    assert (diff.added_columns, diff.removed_columns) == ({"new": "BOOLEAN"}, {"gone": "INTEGER"})
    assert (diff.changed_rows, diff.changed_values) == (2, {"name": 1, "total": 2})
    assert (diff.production_sample, diff.environment_sample) == (({"key": 2},), ({"key": 4},))
    told = {(value.key["key"], value.column): (value.production, value.environment) for value in diff.values}
    assert told == {(3, "name"): ("c", "C"), (1, "total"): (1.0, 1.5), (3, "total"): (None, 3.0)}


@pytest.mark.parametrize(
    ("grain", "note"), [((), "names no grain"), (("key",), "2 rows repeat the key"), (("other",), "not both other")]
)
def test_rows_that_cannot_be_paired_are_compared_whole(
    connection: duckdb.DuckDBPyConnection, grain: tuple[str, ...], note: str
) -> None:
    diff = compared(
        connection,
        "FROM (VALUES (1, 'a'), (1, 'a'), (2, 'b')) t(key, name)",
        "FROM (VALUES (1, 'a'), (2, 'c'), (2, 'b')) t(key, name)",
        *grain,
    )
    assert note in diff.note
    assert (diff.only_production, diff.only_environment, diff.changed_rows) == (1, 1, 0)
    assert diff.production_sample == ({"key": 1, "name": "a"},)
    assert diff.environment_sample == ({"key": 2, "name": "c"},)


def test_only_the_days_of_the_plan_are_compared(connection: duckdb.DuckDBPyConnection) -> None:
    rows = "FROM (VALUES (DATE '2013-01-01', {}), (DATE '2013-01-02', 2)) t(day, total)"
    second = date(2013, 1, 2)
    diff = compared(connection, rows.format(1), rows.format(9), "day", day="day", days=(second, second))
    assert diff.same
    assert (diff.production_rows, diff.environment_rows) == (1, 1)


def test_a_column_of_another_type_is_compared_by_its_value(connection: duckdb.DuckDBPyConnection) -> None:
    diff = compared(
        connection,
        "FROM (VALUES (1, 5, 5), (2, 6, 6)) t(key, wide, text)",
        "FROM (VALUES (1, 5::DOUBLE, '5'), (2, 6, 'six')) t(key, wide, text)",
        "key",
    )
    assert diff.retyped_columns == {"wide": ("INTEGER", "DOUBLE"), "text": ("INTEGER", "VARCHAR")}
    assert diff.changed_values == {"text": 1}
