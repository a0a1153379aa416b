"""Compaction on real tables: the rows stay, the files are few, and nobody who writes meanwhile loses anything."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFileContent, ManifestContent, ManifestEntry, ManifestEntryStatus
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.transforms import IdentityTransform

from freshdata.errors import LakeError
from freshdata.lake.catalog import ensure_table, open_catalog
from freshdata.lake.changes import appended_since, new_rows
from freshdata.lake.clustering import Clustering, Key, Sorter
from freshdata.lake.commits import commit_batch
from freshdata.lake.compaction import compact
from freshdata.lake.cursors import Cursor, behind, read_cursor, upstream_heads
from freshdata.lake.files import write_data_files
from freshdata.lake.health import Thresholds
from freshdata.lake.maintenance import FANOUT, Retention, maintain, merge_manifests
from freshdata.lake.progress import PartitionProgress, Progress, read_progress
from freshdata.lake.query import connect
from freshdata.lake.snapshots import SnapshotWriter
from freshdata.lake.upkeep import keep_up, plan_upkeep
from freshdata.settings import Settings

NAME = "silver.sample"
DAYS = (date(2013, 1, 1), date(2013, 1, 2))
SCHEMA = pa.schema([pa.field("day", pa.date32()), pa.field("key", pa.int64()), pa.field("value", pa.string())])
BY_KEY = Clustering((Key("key"),))
NOW = Thresholds(small_files=2, delete_files=1)
MERGE = """
MERGE INTO lake.silver.sample AS t USING (SELECT CAST(? AS DATE) AS day, unnest(?) AS key, ? AS value) AS n
ON t.day = n.day AND t.key = n.key
WHEN MATCHED THEN UPDATE SET value = n.value
WHEN NOT MATCHED THEN INSERT VALUES (n.day, n.key, n.value)
"""


@pytest.fixture
def catalog(instance: Settings) -> Catalog:
    return open_catalog(instance)


@pytest.fixture
def table(catalog: Catalog) -> Table:
    return ensure_table(catalog, NAME, SCHEMA, partition_by={"day": IdentityTransform()})


@pytest.fixture
def duck(instance: Settings, table: Table) -> Iterator:
    with connect(instance) as connection:
        yield connection


def commit(table: Table, *keys: int, day: date = DAYS[0], value: str = "a") -> int:
    """Commit rows as a worker does; returns the snapshot."""
    table.refresh()
    recorded = read_progress(table) if table.current_snapshot() else None
    begin = recorded.partitions[0].offset if recorded else 0
    rows = pa.Table.from_pylist([{"day": day, "key": key, "value": value} for key in keys], schema=SCHEMA)
    batch = Progress("cluster", "topic", {0: PartitionProgress(begin + len(keys), accepted=len(keys))})
    commit_batch(table, write_data_files(table, rows), {0: begin}, batch)
    return table.current_snapshot().snapshot_id


def fill(table: Table, commits: int = 5) -> None:
    """Two days of five rows a commit, in no order of the keys."""
    for number in range(commits):
        for day in DAYS:
            commit(table, *(number + commits * place for place in (4, 2, 0, 3, 1)), day=day)


def merge(duck, day: date, keys: list[int], value: str) -> None:
    duck.execute(MERGE, [day, keys, value])


def rows(table: Table) -> list[tuple]:
    return sorted(tuple(row.values()) for row in table.refresh().scan().to_arrow().to_pylist())


def duck_rows(duck) -> list[tuple]:
    return sorted(duck.execute("FROM lake.silver.sample").fetchall())


def files(table: Table, content: ManifestContent = ManifestContent.DATA) -> list:
    head = table.refresh().current_snapshot()
    return [
        entry
        for manifest in head.manifests(table.io)
        if manifest.content == content
        for entry in manifest.fetch_manifest_entry(table.io)
    ]


def on_disk(table: Table) -> set[Path]:
    return set(Path(table.location().removeprefix("file://")).rglob("*.parquet"))


def local(entry) -> str:
    return entry.data_file.file_path.removeprefix("file://")


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


def test_an_append_between_plan_and_commit_is_kept(instance, table):
    fill(table)
    rival, rivals = open_catalog(instance).load_table(NAME), iter([1000, 1001])

    def late() -> None:
        if key := next(rivals, None):
            commit(rival, key)

    before = rows(table)
    done = compact(table, BY_KEY, NOW, before_commit=late)
    assert (done.files_before, done.skipped) == (10, ())
    assert rows(table) == sorted([*before, (DAYS[0], 1000, "a"), (DAYS[0], 1001, "a")])
    assert read_progress(table).partitions[0].offset == 52


def test_a_merge_between_plan_and_commit_wins_its_partition_and_no_other(table, duck):
    fill(table)
    rivals = iter([True])

    def late() -> None:
        if next(rivals, False):
            merge(duck, DAYS[0], [3, 300], "merged")

    done = compact(table, BY_KEY, NOW, before_commit=late)
    assert (done.files_before, done.files_after) == (5, 1)
    assert done.skipped == (f"day={DAYS[0]}: another writer has deleted or changed rows of it",)
    merged = [(DAYS[0], 3, "merged"), (DAYS[0], 300, "merged")]
    left = [(day, key, "a") for day in DAYS for key in range(25) if (day, key) != (DAYS[0], 3)]
    assert rows(table) == duck_rows(duck) == sorted([*left, *merged])
    assert compact(table, BY_KEY, NOW).skipped == ()
    assert rows(table) == duck_rows(duck) == sorted([*left, *merged])


def test_a_merge_that_only_adds_rows_is_no_conflict(table, duck):
    fill(table)
    rivals = iter([True])

    def late() -> None:
        if next(rivals, False):
            merge(duck, DAYS[0], [300], "added")

    assert compact(table, BY_KEY, NOW, before_commit=late).skipped == ()
    assert (DAYS[0], 300, "added") in rows(table)
    assert len(rows(table)) == 51


@pytest.mark.parametrize("how", ["overwrite", "rollback", "undelete"])
def test_files_that_another_writer_has_replaced_are_left(instance, table, duck, how):
    fill(table)
    merge(duck, DAYS[0], [3], "merged")
    history = [entry.snapshot_id for entry in table.refresh().history()]
    rival, rivals = open_catalog(instance).load_table(NAME), iter([True])

    def late() -> None:
        if not next(rivals, False):
            return
        rival.refresh()
        if how == "overwrite":
            fresh = pa.Table.from_pylist([{"day": DAYS[0], "key": 1, "value": "new"}], schema=SCHEMA)
            rival.overwrite(fresh, overwrite_filter=f"day = '{DAYS[0]}'")
        else:
            # Before all of it; or before the merge, whose deletes are undone while the files they meant stay.
            to = 0 if how == "rollback" else 9
            rival.manage_snapshots().rollback_to_snapshot(history[to]).commit()

    done = compact(table, BY_KEY, NOW, before_commit=late)
    assert done.skipped
    assert rows(table) == rows(rival)
    assert (DAYS[0], 3, "merged") not in rows(table)


WRITER = """
import sys
from freshdata.lake.catalog import open_catalog
from freshdata.lake.query import connect
from freshdata.settings import load_settings
from freshdata.transform.engines.duckdb import lost
from freshdata.transform.retry import retry
from tests.unit.lake.test_compaction import DAYS, NAME, commit, merge
settings = load_settings()
table = open_catalog(settings).load_table(NAME)
with connect(settings) as duck:
    print("ready", flush=True)
    for number in range(8):
        commit(table, 1000 + number, day=DAYS[number % 2])
        retry(lambda: merge(duck, DAYS[number % 2], [number, 1000 + number], f"m{number}"), NAME, lost)
"""


def test_compactions_beside_a_process_that_appends_and_merges_lose_and_undo_nothing(table, instance):
    fill(table)
    own = {**os.environ, "FRESHDATA_HOME": str(instance.home)}
    writer = subprocess.Popen([sys.executable, "-c", WRITER], env=own, stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "ready\n"
    files_before = 0
    while writer.poll() is None:
        files_before += compact(table, BY_KEY, NOW).files_before
    assert writer.wait() == 0
    assert files_before
    compact(table, BY_KEY, Thresholds(everything=True))
    merged = {(DAYS[number % 2], key): f"m{number}" for number in range(8) for key in (number, 1000 + number)}
    expected = dict.fromkeys(((day, key) for day in DAYS for key in range(25)), "a") | merged
    assert rows(table) == sorted((day, key, value) for (day, key), value in expected.items())
    assert read_progress(table).partitions[0].offset == 58
    assert len(files(table)) == 2
    assert files(table, ManifestContent.DELETES) == []


KILLED = """
import os, signal
from freshdata.lake.catalog import open_catalog
from freshdata.lake.compaction import compact
from freshdata.settings import load_settings
from tests.unit.lake.test_compaction import BY_KEY, NAME, NOW
table = open_catalog(load_settings()).load_table(NAME)
compact(table, BY_KEY, NOW, before_commit=lambda: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_compaction_killed_before_its_commit_leaves_the_table_whole_and_its_files_are_removed(
    catalog, table, instance
):
    fill(table)
    before, live = rows(table), on_disk(table)
    own = {**os.environ, "FRESHDATA_HOME": str(instance.home)}
    child = subprocess.run([sys.executable, "-c", KILLED], env=own, check=False)
    assert child.returncode == -9
    left = on_disk(table) - live
    assert len(left) == 2
    assert rows(table) == before
    # Once they are old, and the table has a head that is younger by the longest commit.
    for path in left:
        os.utime(path, (0, 0))
    maintain(catalog, NAME)
    assert on_disk(table) == live
    assert compact(table, BY_KEY, NOW).files_before == 10
    assert rows(table) == before


def test_what_was_rewritten_is_removed_from_disk_when_its_snapshots_have_expired(catalog, table):
    fill(table)
    before = on_disk(table)
    compact(table, BY_KEY, NOW)
    for path in before:
        os.utime(path, (0, 0))
    maintain(catalog, NAME, Retention(keep=1, young=timedelta(0)))
    assert len(on_disk(table)) == 2
    assert len(rows(table)) == 50


def both_days(table: Table, *keys: int) -> None:
    """One commit, and so one manifest, with files of both days."""
    records = [{"day": day, "key": key, "value": "a"} for day in DAYS for key in keys]
    table.refresh()
    table.append(pa.Table.from_pylist(records, schema=SCHEMA))


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


def test_manifests_that_are_merged_between_plan_and_commit_do_not_bring_files_back(instance, table):
    for number in range(FANOUT):
        both_days(table, number)
    before = rows(table)
    rival, rivals = open_catalog(instance).load_table(NAME), iter([True])

    def late() -> None:
        if next(rivals, False):
            assert merge_manifests(rival) == FANOUT

    assert compact(table, BY_KEY, NOW, before_commit=late).skipped == ()
    assert rows(table) == before
    assert len(files(table)) == 2


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
