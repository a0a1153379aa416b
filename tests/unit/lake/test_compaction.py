"""Compaction on real tables: the rows stay, and the files are few."""

import os
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.manifest import DataFileContent, ManifestContent, ManifestEntry, ManifestEntryStatus
from pyiceberg.table.snapshots import Operation

from freshdata.errors import LakeError
from freshdata.lake.catalog import ensure_table
from freshdata.lake.changes import appended_since, new_rows
from freshdata.lake.clustering import Sorter
from freshdata.lake.compaction import compact
from freshdata.lake.cursors import Cursor, behind, read_cursor, upstream_heads
from freshdata.lake.health import Thresholds
from freshdata.lake.maintenance import Retention, maintain
from freshdata.lake.progress import read_progress
from freshdata.lake.snapshots import SnapshotWriter
from freshdata.lake.upkeep import keep_up, plan_upkeep
from tests.compaction import (
    BY_KEY,
    DAYS,
    NAME,
    NOW,
    SCHEMA,
    both_days,
    commit,
    duck_rows,
    files,
    fill,
    local,
    merge,
    on_disk,
    rows,
)


def test_many_small_files_become_one_a_partition_with_the_same_rows_in_order(table):
    fill(table)
    before = rows(table)
    done = compact(table, BY_KEY, NOW)
    assert (done.files_before, done.files_after, done.snapshots, done.skipped) == (10, 2, 1, ())
    assert rows(table) == before
    for entry in files(table):
        assert pq.read_table(local(entry))["key"].to_pylist() == sorted(range(25))
    summary = table.current_snapshot().summary
    assert summary.operation is Operation.REPLACE
    assert [summary[f"total-{what}"] for what in ("data-files", "records", "delete-files")] == ["2", "50", "0"]
    assert compact(table, BY_KEY, NOW).snapshots == 0


def test_without_need_nothing_is_rewritten(table):
    fill(table, 4)
    head = table.current_snapshot().snapshot_id
    assert compact(table, BY_KEY, Thresholds(small_files=5)).files_before == 0
    assert table.refresh().current_snapshot().snapshot_id == head


def test_a_file_that_is_larger_than_all_smaller_ones_together_waits(table):
    commit(table, *range(20_000))
    large = files(table)[0].data_file.file_path
    for number in range(3):
        commit(table, 100_000 + number)
    assert compact(table, BY_KEY, replace(NOW, small_files=3)).files_before == 3
    assert large in {entry.data_file.file_path for entry in files(table)}
    assert compact(table, BY_KEY, Thresholds(everything=True)).files_before == 2
    assert len(files(table)) == 1


def test_large_partitions_become_several_files_that_do_not_overlap(table, monkeypatch):
    monkeypatch.setattr("freshdata.lake.compaction.ROW_GROUP_ROWS", 1000)
    for number in range(4):
        commit(table, *range(number, 40_000, 4))
    size = sum(entry.data_file.file_size_in_bytes for entry in files(table))
    done = compact(table, BY_KEY, replace(NOW, small_share=2, target_bytes=size // 4))
    ranges = sorted(key_range(local(entry)) for entry in files(table))
    assert done.files_after == len(ranges) == 4
    assert all(before[1] < after[0] for before, after in pairwise(ranges))
    assert {pq.ParquetFile(local(entry)).metadata.row_group(0).num_rows for entry in files(table)} == {1000}
    assert [row[1] for row in rows(table)] == list(range(40_000))


def key_range(path: str) -> tuple[int, int]:
    keys = pq.read_table(path)["key"].to_pylist()
    return min(keys), max(keys)


def test_merged_rows_stay_and_their_delete_files_go(table, duck):
    fill(table)
    for round_ in range(3):
        merge(duck, DAYS[0], [round_, 7, 100 + round_], f"m{round_}")
    before, deletes = rows(table), len(files(table, ManifestContent.DELETES))
    assert deletes >= 3
    assert len(before) == 53
    done = compact(table, BY_KEY, NOW)
    assert done.delete_files == deletes
    assert (len(files(table)), files(table, ManifestContent.DELETES)) == (2, [])
    assert all(not task.delete_files for task in table.scan().plan_files())
    assert rows(table) == duck_rows(duck) == before
    # What DuckDB does next counts for the new files.
    merge(duck, DAYS[0], [7, 500], "later")
    expected = sorted(
        [row for row in before if row[:2] != (DAYS[0], 7)] + [(DAYS[0], key, "later") for key in (7, 500)]
    )
    assert rows(table) == duck_rows(duck) == expected
    compact(table, BY_KEY, NOW)
    assert rows(table) == duck_rows(duck) == expected
    assert files(table, ManifestContent.DELETES) == []


def test_only_the_files_that_delete_files_mean_are_rewritten_for_them(table, duck):
    commit(table, *range(10_000))
    untouched = files(table)[0].data_file.file_path
    commit(table, 20_000, 20_001)
    merge(duck, DAYS[0], [20_000], "b")
    size = files(table)[0].data_file.file_size_in_bytes
    done = compact(table, BY_KEY, replace(NOW, target_bytes=max(size, 4096)))
    assert done.delete_files == 1
    assert untouched in {entry.data_file.file_path for entry in files(table)}


def test_few_delete_files_that_delete_many_rows_are_reason_enough(table, duck):
    commit(table, *range(100))
    merge(duck, DAYS[0], list(range(9)), "b")
    assert compact(table, BY_KEY, Thresholds()).files_before == 0
    merge(duck, DAYS[0], list(range(20, 23)), "c")
    before = rows(table)
    assert compact(table, BY_KEY, Thresholds()).delete_files == 2
    assert rows(table) == before


def test_delete_files_that_an_overwrite_left_behind_go_without_a_rewrite(catalog, table, duck):
    fill(table, 1)
    merge(duck, DAYS[0], [0], "b")
    fresh = pa.Table.from_pylist([{"day": DAYS[0], "key": 1, "value": "new"}], schema=SCHEMA)
    table.refresh().overwrite(fresh, overwrite_filter=f"day = '{DAYS[0]}'")
    assert len(files(table, ManifestContent.DELETES)) == 1
    assert plan_upkeep(catalog, NAME).remove == 1
    before = rows(table)
    done = compact(table, BY_KEY)
    assert (done.files_before, done.delete_files) == (0, 1)
    assert files(table, ManifestContent.DELETES) == []
    assert rows(table) == before


def test_a_partition_whose_rows_are_all_deleted_ends_without_files(table, duck):
    commit(table, 1, 2)
    commit(table, 3, day=DAYS[1])
    duck.execute(f"DELETE FROM lake.silver.sample WHERE day = DATE '{DAYS[0]}'")
    done = compact(table, BY_KEY, NOW)
    assert (done.files_before, done.files_after, done.delete_files) == (1, 0, 1)
    assert rows(table) == duck_rows(duck) == [(DAYS[1], 3, "a")]


def test_followers_see_no_news_and_the_offsets_go_on(catalog, table):
    fill(table)
    seen = Cursor.at(upstream_heads(catalog, [NAME]), "v1")
    follower = ensure_table(catalog, "gold.follower", SCHEMA)
    with follower.transaction() as transaction:
        transaction.append(SCHEMA.empty_table(), snapshot_properties=seen.properties())
    upstreams = {"gold.follower": (NAME,)}
    compact(table, BY_KEY, NOW)
    assert behind(catalog, upstreams) == {}
    assert Cursor.at(upstream_heads(catalog, [NAME], seen), "v1") == seen
    assert read_progress(table.refresh()).partitions[0].offset == 50
    assert appended_since(table, seen.marks[NAME]) == []  # Nor when the snapshot has expired.
    snapshot = commit(table, 77)
    assert behind(catalog, upstreams) == {"gold.follower": {NAME: snapshot}}
    assert new_rows(table, seen.upstream[NAME]).read_all()["key"].to_pylist() == [77]
    assert [file.record_count for file in appended_since(table, seen.marks[NAME])] == [1]


def test_rows_that_a_follower_has_not_read_are_read_once_behind_a_compaction(table):
    seen = commit(table, 0)
    fill(table)
    compact(table, BY_KEY, NOW)
    commit(table, 99)
    keys = new_rows(table.refresh(), seen).read_all()["key"].to_pylist()
    assert sorted(keys) == sorted([*range(25), *range(25), 99])


def test_a_cursor_before_a_compaction_is_kept_however_long_ago_that_was(catalog, table):
    seen = commit(table, 1)
    follower = ensure_table(catalog, "gold.follower", SCHEMA)
    with follower.transaction() as transaction:
        transaction.append(SCHEMA.empty_table(), snapshot_properties=Cursor({NAME: seen}, "v1").properties())
    for _ in range(4):
        compact(table, BY_KEY, Thresholds(everything=True))
    at_once = Retention(keep=1, young=timedelta(0), cursor_age=timedelta(0))
    maintain(catalog, NAME, at_once)
    assert new_rows(table.refresh(), seen).read_all().num_rows == 0
    assert behind(catalog, {"gold.follower": (NAME,)}) == {}


def test_the_cursor_of_the_table_itself_goes_on(catalog, table):
    for number in range(3):
        with table.transaction() as transaction:
            row = pa.Table.from_pylist([{"day": DAYS[0], "key": number, "value": "a"}], schema=SCHEMA)
            transaction.append(row, snapshot_properties=Cursor({"bronze.x": number}, "v1").properties())
    compact(table, BY_KEY, NOW)
    assert read_cursor(table.refresh()) == Cursor({"bronze.x": 2}, "v1")


def test_what_was_rewritten_is_removed_from_disk_when_its_snapshots_have_expired(catalog, table):
    fill(table)
    before = on_disk(table)
    compact(table, BY_KEY, NOW)
    for path in before:
        os.utime(path, (0, 0))
    maintain(catalog, NAME, Retention(keep=1, young=timedelta(0)))
    assert len(on_disk(table)) == 2
    assert len(rows(table)) == 50


def test_a_compaction_in_several_commits_moves_each_file_once(table):
    for number in range(4):
        both_days(table, number, 10 + number)
    before = rows(table)
    done = compact(table, BY_KEY, replace(NOW, group_bytes=1, small_files=1, everything=True))
    assert (done.files_before, done.snapshots, done.skipped) == (8, 8, ())
    assert rows(table) == before
    done = compact(table, BY_KEY, replace(NOW, group_bytes=4000))
    assert (done.files_before, done.files_after, done.snapshots) == (8, 2, 2)
    assert rows(table) == before
    assert table.current_snapshot().summary["total-records"] == "16"


def test_files_with_other_rows_than_before_are_not_committed(table, monkeypatch):
    fill(table)
    before = rows(table)
    real = Sorter.sort
    monkeypatch.setattr(Sorter, "sort", lambda *arguments: (batch.slice(1) for batch in real(*arguments)))
    with pytest.raises(LakeError, match="24 rows were written in place of 25"):
        compact(table, BY_KEY, NOW)
    assert rows(table) == before


def test_a_limit_leaves_the_rest_for_the_next_time(table):
    fill(table)
    limited = replace(NOW, most_bytes=1)
    assert [compact(table, BY_KEY, limited).files_before for _ in range(3)] == [5, 5, 0]


def test_a_table_with_equality_deletes_of_another_engine_is_left_alone(table):
    fill(table)
    writer = SnapshotWriter(table)
    file = files(table)[0].data_file
    file[0] = DataFileContent.EQUALITY_DELETES  # Only its entry counts here.
    entry = ManifestEntry.from_args(
        status=ManifestEntryStatus.ADDED, snapshot_id=writer.snapshot_id, sequence_number=None, data_file=file
    )
    added = writer.manifest(0, [entry], content=ManifestContent.DELETES)
    writer.replace([*table.current_snapshot().manifests(table.io), added], {})
    assert compact(table, BY_KEY, NOW).files_before == 0


def test_what_is_needed_is_planned_and_done(catalog, table, duck):
    fill(table, 10)
    merge(duck, DAYS[1], [3, 4, 5, 6, 7], "b")
    plan = plan_upkeep(catalog, NAME)
    assert plan.health.delete_files >= 5
    assert {part.partition for part in plan.health.needy} == {f"day={day}" for day in DAYS}
    assert plan.reasons[0] == f"rewrite {plan.rewrite} files of 2 partitions"
    done = keep_up(catalog, NAME, {})
    assert done.compacted.files_before == plan.rewrite
    after = plan_upkeep(catalog, NAME)
    assert after.health.manifests < plan.health.manifests
    assert (after.rewrite, after.remove, after.health.files) == (0, 0, done.compacted.files_after)
