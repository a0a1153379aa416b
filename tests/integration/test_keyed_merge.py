"""Live merges that look keys up instead of reading the days they belong to, on real tables."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table.snapshots import Operation

from freshdata.lake.catalog import load_table
from freshdata.lake.query import connect
from freshdata.settings import Settings
from freshdata.transform.evaluation import _judges_rows
from freshdata.transform.runner import Runner
from tests.bronze import append, flight_event, rows

pytestmark = pytest.mark.integration

FLIGHTS = "silver.flight_events"
DAY = date(2013, 5, 1)


def version(day: date, number: int, minute: int, **fields: Any) -> dict[str, Any]:
    return flight_event(
        day, number, _ingested_at=datetime(2013, 6, 1, tzinfo=UTC) + timedelta(minutes=minute), **fields
    )


def operation(catalog: Catalog) -> tuple[Operation, int]:
    """What the last merge did, and how many rows it replaced by position."""
    head = load_table(catalog, FLIGHTS).current_snapshot()
    assert head is not None
    assert head.summary is not None
    return head.summary.operation, int(head.summary.additional_properties.get("added-position-deletes", 0))


def test_newer_versions_replace_rows_by_position_in_one_snapshot(runner: Runner, catalog: Catalog) -> None:
    day = DAY + timedelta(days=10)
    append(catalog, "flight_events", [version(day, number, 0) for number in range(1, 50)])
    runner.run_live(FLIGHTS)
    assert operation(catalog) == (Operation.APPEND, 0)
    before = len(load_table(catalog, FLIGHTS).snapshots())
    append(catalog, "flight_events", [version(day, 3, 1), version(day, 3, 2, dep_delay=77), version(day, 60, 2)])
    run = runner.run_live(FLIGHTS)
    assert operation(catalog) == (Operation.OVERWRITE, 1)
    assert len(load_table(catalog, FLIGHTS).snapshots()) == before + 1
    assert run.partitions == {day: 50}
    stored = {row["flight"]: row["dep_delay"] for row in rows(catalog, FLIGHTS) if row["flight_date"] == day}
    assert (stored[3], stored[60]) == (77, 60)


def test_audits_judge_the_rows_that_a_merge_wrote(runner: Runner, catalog: Catalog) -> None:
    def failing(number: int) -> int:
        append(catalog, "flight_events", [version(day, number, number, origin="EWR", dest="EWR")])
        return {audit.name: audit.count for audit in runner.run_live(FLIGHTS).audits}["flight_leads_elsewhere"]

    day = DAY + timedelta(days=20)
    append(catalog, "flight_events", [version(day, number, 0) for number in range(100, 150)])
    runner.run_live(FLIGHTS)
    assert [failing(1), failing(2)] == [1, 1]
    assert {audit.name: audit.count for audit in runner.audit(FLIGHTS)}["flight_leads_elsewhere"] == 2


@pytest.mark.parametrize(
    ("audit", "arguments", "expected"),
    [
        ("not_null", "(event_id)", True),
        ("unique_combination_of_columns", "(event_id, flight_date, origin)", True),
        ("unique_combination_of_columns", "(event_id,)", False),
        ("unique_values", "(event_id,)", False),
        ("number_of_rows", "(event_id,)", False),
    ],
)
def test_audits_that_count_or_compare_look_at_whole_days(audit: str, arguments: str, *, expected: bool) -> None:
    from sqlglot import parse_one
    from sqlmesh.core.audit.builtin import BUILT_IN_AUDITS

    columns = {"columns": parse_one(arguments)}
    assert _judges_rows(BUILT_IN_AUDITS[audit], columns, {"event_id", "flight_date"}) is expected


def test_delete_files_do_not_pile_up_and_those_of_other_days_stay(
    settings: Settings, runner: Runner, catalog: Catalog
) -> None:
    day, other = DAY + timedelta(days=30), DAY + timedelta(days=31)
    append(catalog, "flight_events", [version(each, number, 0) for each in (day, other) for number in range(1, 200)])
    runner.run_live(FLIGHTS)
    append(catalog, "flight_events", [version(other, 7, 1, dep_delay=1_000)])
    runner.run_live(FLIGHTS)
    for turn in range(1, 11):
        changed = [version(day, number, turn, dep_delay=turn) for number in range(turn, turn + 10)]
        append(catalog, "flight_events", changed)
        assert runner.run_live(FLIGHTS).partitions == {day: 199}
    table = load_table(catalog, FLIGHTS)
    scans = list(table.scan(row_filter=f"flight_date == '{day}'").plan_files())
    files = {file.file_path: file for scan in scans for file in scan.delete_files}
    assert len(files) < 5
    assert sum(file.record_count for file in files.values()) == 100
    head = table.current_snapshot()
    assert head is not None
    assert head.summary is not None
    everything = table.inspect.delete_files()
    assert head.summary.additional_properties["total-delete-files"] == str(len(everything))
    assert int(head.summary.additional_properties["total-position-deletes"]) == sum(
        everything["record_count"].to_pylist()
    )
    expected = {number: number for number in range(1, 200)}
    for turn in range(1, 11):
        expected |= dict.fromkeys(range(turn, turn + 10), turn)
    query = f"SELECT flight, dep_delay FROM {FLIGHTS} WHERE flight_date = ?"
    with connect(settings) as connection:
        assert dict(connection.execute(query, [day]).fetchall()) == expected
        assert dict(connection.execute(query, [other]).fetchall())[7] == 1_000
    stored = [row for row in rows(catalog, FLIGHTS) if row["flight_date"] == day]
    assert {row["flight"]: row["dep_delay"] for row in stored} == expected
