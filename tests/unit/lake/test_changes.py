"""What was added to a table is told from its metadata."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform

from freshdata.lake.catalog import ensure_table
from freshdata.lake.changes import (
    PartitionChange,
    added_partitions,
    appended_since,
    appends_only,
    intervals_in_files,
    is_ancestor,
    new_rows,
    touched_dates,
    was_rolled_back,
)
from freshdata.lake.cursors import Cursor, Mark

SCHEMA = pa.schema([pa.field("day", pa.date32()), pa.field("key", pa.string())])
FIRST, SECOND, THIRD = date(2013, 1, 1), date(2013, 1, 2), date(2013, 1, 3)


@pytest.fixture
def table(catalog: Catalog) -> Table:
    return ensure_table(catalog, "silver.sample", SCHEMA, partition_by={"day": IdentityTransform()})


def append(table: Table, *rows: tuple[date, str]) -> int:
    table.append(pa.Table.from_pylist([{"day": day, "key": key} for day, key in rows], schema=SCHEMA))
    return current(table)


def current(table: Table) -> int:
    snapshot = table.current_snapshot()
    assert snapshot is not None
    return snapshot.snapshot_id


def keys(reader: pa.RecordBatchReader) -> list[Any]:
    return sorted(reader.read_all().column("key").to_pylist())


def test_only_partitions_added_after_the_snapshot_are_told(table: Table) -> None:
    seen = append(table, (FIRST, "a"), (FIRST, "b"))
    append(table, (SECOND, "c"), (SECOND, "d"))
    append(table, (SECOND, "e"), (THIRD, "f"))
    changes = sorted(added_partitions(table, seen), key=lambda change: change.partition["day"])
    assert changes == [PartitionChange({"day": SECOND}, 3, 2), PartitionChange({"day": THIRD}, 1, 1)]
    assert touched_dates(table, "day", seen) == {SECOND, THIRD}
    assert touched_dates(table, "day", current(table)) == set()


def test_a_day_that_only_lost_rows_counts_as_touched(table: Table) -> None:
    seen = append(table, (FIRST, "a"), (SECOND, "b"))
    table.delete("day = '2013-01-02'")
    assert added_partitions(table, seen) == [PartitionChange({"day": SECOND}, 0, 0)]
    assert touched_dates(table, "day", seen) == {SECOND}


def test_rewritten_rows_of_a_day_count_as_touched(table: Table) -> None:
    seen = append(table, (FIRST, "a"), (SECOND, "b"))
    table.overwrite(pa.Table.from_pylist([{"day": SECOND, "key": "c"}], schema=SCHEMA), "day = '2013-01-02'")
    assert touched_dates(table, "day", seen) == {SECOND}


@pytest.mark.parametrize("after", [None, 1])
def test_without_a_known_snapshot_everything_is_new(table: Table, after: int | None) -> None:
    append(table, (FIRST, "a"))
    append(table, (SECOND, "b"))
    assert touched_dates(table, "day", after) is None
    assert len(added_partitions(table, after)) == 2
    assert keys(new_rows(table, after)) == ["a", "b"]


def test_a_table_without_rows_has_no_news(table: Table) -> None:
    assert added_partitions(table, None) == []
    assert new_rows(table, None).read_all().num_rows == 0


def test_only_rows_appended_after_the_snapshot_are_read(table: Table) -> None:
    seen = append(table, (FIRST, "a"))
    until = append(table, (FIRST, "b"), (SECOND, "c"))
    append(table, (THIRD, "d"))
    assert keys(new_rows(table, seen)) == ["b", "c", "d"]
    assert keys(new_rows(table, seen, until=until)) == ["b", "c"]
    assert new_rows(table, seen, ("day",)).read_all().column_names == ["day"]


def test_a_rolled_back_snapshot_is_no_ancestor(table: Table) -> None:
    kept = append(table, (FIRST, "a"))
    undone = append(table, (SECOND, "b"))
    table.manage_snapshots().rollback_to_snapshot(kept).commit()
    append(table, (THIRD, "c"))
    assert not is_ancestor(table, undone)
    assert touched_dates(table, "day", undone) is None
    assert keys(new_rows(table, undone)) == ["a", "c"]


def test_a_table_without_days_cannot_tell_them(catalog: Catalog) -> None:
    table = ensure_table(catalog, "lookup.sample", SCHEMA)
    seen = append(table, (FIRST, "a"))
    assert touched_dates(table, "day", seen) == set()
    append(table, (SECOND, "b"))
    assert touched_dates(table, "day", seen) is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [(lambda table: append(table, (SECOND, "b")), True), (lambda table: table.delete("key = 'a'"), False)],
)
def test_deleted_rows_are_not_mistaken_for_appends(
    table: Table, change: Callable[[Table], Any], *, expected: bool
) -> None:
    seen = append(table, (FIRST, "a"), (FIRST, "z"))
    change(table)
    assert appends_only(table, seen) is expected


def mark(table: Table) -> Mark:
    head = table.current_snapshot()
    assert head is not None
    return Cursor.at({"t": head}, "code").marks["t"]


def test_rows_gained_since_an_expired_snapshot_are_known_by_their_files(table: Table) -> None:
    append(table, (FIRST, "a"))
    seen = mark(table)
    assert appended_since(table, seen) == []
    append(table, (SECOND, "b"), (THIRD, "c"))
    append(table, (SECOND, "d"))
    files = appended_since(table, seen)
    assert files is not None
    assert sum(file.record_count for file in files) == 3
    assert intervals_in_files(table, files, "day") == {SECOND, THIRD}


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.delete("key = 'a'"),
        lambda table: table.overwrite(table.scan().to_arrow().slice(0, 1)),
        lambda table: (table.delete("key = 'a'"), append(table, (THIRD, "c"))),
    ],
)
def test_what_was_more_than_appended_since_an_expired_snapshot_cannot_be_told(
    table: Table, change: Callable[[Table], Any]
) -> None:
    append(table, (FIRST, "a"), (FIRST, "z"))
    seen = mark(table)
    change(table)
    assert appended_since(table, seen) is None


def test_rows_read_again_after_a_roll_back_are_not_taken_for_all_news(table: Table) -> None:
    kept = append(table, (FIRST, "a"))
    append(table, (SECOND, "b"))
    seen = mark(table)
    table.manage_snapshots().rollback_to_snapshot(kept).commit()
    append(table, (SECOND, "b"), (THIRD, "c"))
    assert appended_since(table, seen) is None


def test_rows_of_the_same_number_that_were_rolled_back_are_not_taken_for_no_change(table: Table) -> None:
    kept = append(table, (FIRST, "a"))
    table.overwrite(pa.Table.from_pylist([{"day": FIRST, "key": "b"}], schema=table.schema().as_arrow()))
    seen = mark(table)
    table.manage_snapshots().rollback_to_snapshot(kept).commit()
    assert appended_since(table, seen) == []
    assert was_rolled_back(table, seen)
    append(table, (SECOND, "c"))
    assert was_rolled_back(table, seen)
