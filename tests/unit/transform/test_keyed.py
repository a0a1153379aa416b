"""Keys are looked up in the files that hold them: a merge without reading the rows gives what a merge gives."""

import random
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform

from freshdata.lake.catalog import ensure_table, open_catalog
from freshdata.lake.clustering import Clustering
from freshdata.lake.compaction import compact
from freshdata.lake.health import Thresholds
from freshdata.settings import Settings
from freshdata.transform.keyed import KeyIndex, Merging, merge_rows, row_counts

SCHEMA = pa.schema(
    [
        pa.field("day", pa.date32()),
        pa.field("id", pa.string()),
        pa.field("version", pa.int64()),
        pa.field("v", pa.int64()),
    ]
)
DAYS = [date(2013, 1, 1) + timedelta(days=number) for number in range(3)]
MERGING = Merging("day", ("day", "id"), ("version",))
Stored = dict[tuple[date, str], dict[str, Any]]


@pytest.fixture
def table(instance: Settings) -> Table:
    return ensure_table(open_catalog(instance), "silver.sample", SCHEMA, partition_by={"day": IdentityTransform()})


@pytest.fixture
def index(tmp_path: Path) -> Iterator[KeyIndex]:
    with duckdb.connect() as connection:
        yield KeyIndex(tmp_path / "keys", connection)


def batch(*rows: tuple[date, str, int, int]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema=SCHEMA)


def stored(table: Table) -> list[dict[str, Any]]:
    table.refresh()
    return sorted(table.scan().to_arrow().to_pylist(), key=lambda row: (row["day"], row["id"]))


def merge(table: Table, rows: pa.Table, index: KeyIndex) -> pa.Table | None:
    table.refresh()
    return merge_rows(table, rows, MERGING, index, {"by": "test"})


@pytest.mark.parametrize("seed", range(3))
def test_random_merges_leave_the_newest_version_of_each_key_once(table: Table, index: KeyIndex, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a seeded test
    right: Stored = {}
    for version in range(1, 25):
        keys = {(chance.choice(DAYS), f"k{chance.randrange(400)}") for _ in range(chance.randint(1, 30))}
        if version == 1:
            keys |= {(day, f"k{number}") for day in DAYS for number in range(300)}
        rows = batch(*((day, key, version, chance.randrange(1000)) for day, key in sorted(keys)))
        assert merge(table, rows, index) is not None
        right |= {(row["day"], row["id"]): row for row in rows.to_pylist()}
        if chance.random() < 0.2:
            compact(table, Clustering(), Thresholds())
    assert stored(table) == sorted(right.values(), key=lambda row: (row["day"], row["id"]))
    counts = row_counts(table, "day")
    assert counts == {day: sum(key[0] == day for key in right) for day in DAYS}


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (batch((DAYS[0], "a", 5, 0)), "as old as what is there"),
        (batch((DAYS[0], "a", 4, 0)), "older"),
        (
            pa.concat_tables([batch((DAYS[0], f"n{number}", 9, 0)) for number in range(9)]),
            "so many that reading is as fast",
        ),
        (batch((DAYS[0], "b", None, 0)), "of no version"),  # type: ignore[arg-type]
        (batch((None, "b", 9, 0)), "of no day"),  # type: ignore[arg-type]
    ],
)
def test_rows_that_only_a_merge_can_judge_are_left_to_it(
    table: Table, index: KeyIndex, rows: pa.Table, why: str
) -> None:
    merge(table, batch(*((DAYS[0], key, 5, 1) for key in "abcdefgh")), index)
    before = stored(table)
    assert merge(table, rows, index) is None, why
    assert stored(table) == before


def test_a_merge_that_another_writer_outran_is_refused_whole(table: Table, index: KeyIndex) -> None:
    merge(table, batch(*((DAYS[0], key, 1, 1) for key in "abcdefgh")), index)
    table.refresh()
    other = open_catalog_again(table)
    merge(other, batch((DAYS[0], "a", 2, 2)), index)
    with pytest.raises(CommitFailedException):
        merge_rows(table, batch((DAYS[0], "a", 3, 3)), MERGING, index, {})
    assert stored(other)[0] == {"day": DAYS[0], "id": "a", "version": 2, "v": 2}
    assert merge(table, batch((DAYS[0], "a", 3, 3)), index) is not None
    assert [row["v"] for row in stored(table)] == [3, *[1] * 7]


def test_no_two_keys_read_the_same(index: KeyIndex) -> None:
    parts = [("a\x1fb", "c"), ("a", "b\x1fc"), ("a1:b", "c"), ("a", "b1:c"), (None, "c"), ("\x1e", "c"), ("", "c")]
    rows = pa.Table.from_pylist([{"shop": shop, "id": key} for shop, key in parts])
    assert len(set(index.hashes(rows, ("shop", "id"))[0].tolist())) == len(parts)


def open_catalog_again(table: Table) -> Table:
    return table.catalog.load_table(table.name())


def test_a_lost_or_foreign_index_is_made_again(table: Table, tmp_path: Path) -> None:
    with duckdb.connect() as connection:
        merge(table, batch(*((DAYS[0], key, 1, 1) for key in "abcdefgh")), KeyIndex(tmp_path / "one", connection))
        merge(table, batch((DAYS[0], "a", 2, 2)), KeyIndex(tmp_path / "two", connection))
        for path in (tmp_path / "two").iterdir():
            path.unlink()
        merge(table, batch((DAYS[0], "a", 3, 3)), KeyIndex(tmp_path / "three", connection))
    assert [row["v"] for row in stored(table)] == [3, *[1] * 7]


def test_a_merge_is_one_snapshot_with_its_properties_and_an_append_where_nothing_went(
    table: Table, index: KeyIndex
) -> None:
    merge(table, batch(*((DAYS[0], key, 1, 1) for key in "abcdefgh")), index)
    merge(table, batch((DAYS[1], "a", 1, 1)), index)
    merge(table, batch((DAYS[0], "a", 2, 2)), index)
    table.refresh()
    told = [(one.summary.operation.value, one.summary["by"], one.summary["total-records"]) for one in table.snapshots()]  # type: ignore[union-attr]
    assert told == [("append", "test", "8"), ("append", "test", "9"), ("overwrite", "test", "10")]
    assert row_counts(table, "day") == {DAYS[0]: 8, DAYS[1]: 1}
