"""Maintenance makes metadata small and the folder clean, and neither a reader nor a writer loses anything by it."""

import os
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.transforms import IdentityTransform

from freshdata.errors import LakeError
from freshdata.lake.catalog import ensure_table, open_catalog
from freshdata.lake.changes import added_partitions, appends_only, is_ancestor, new_rows, touched_dates
from freshdata.lake.commits import LONGEST_COMMIT, commit_batch
from freshdata.lake.cursors import Cursor, read_cursor
from freshdata.lake.files import write_data_files
from freshdata.lake.maintenance import FANOUT, Retention, expire_snapshots, maintain, merge_manifests
from freshdata.lake.orphans import remove_orphans
from freshdata.lake.progress import PartitionProgress, Progress, ancestors, read_progress
from freshdata.lake.replace import fork_table, take_over

NAME = "bronze.sample"
SCHEMA = pa.schema([pa.field("day", pa.date32()), pa.field("key", pa.string())])
DAYS = (date(2013, 1, 1), date(2013, 1, 2))
AT_ONCE = Retention(keep=3, young=timedelta(0), cursor_age=timedelta(hours=1))


@pytest.fixture
def table(catalog: Catalog) -> Table:
    return ensure_table(catalog, NAME, SCHEMA, partition_by={"day": IdentityTransform()})


def commit(table: Table, *keys: str, partition: int = 0) -> int:
    """Commit rows as a worker does; returns the snapshot."""
    table.refresh()
    recorded = read_progress(table)
    done = recorded.partitions.get(partition) if recorded else None
    begin = done.offset if done else 0
    rows = pa.Table.from_pylist([{"day": DAYS[len(key) % 2], "key": key} for key in keys], schema=SCHEMA)
    batch = Progress("cluster", "topic", {partition: PartitionProgress(begin + len(keys), accepted=len(keys))})
    commit_batch(table, write_data_files(table, rows), {partition: begin}, batch)
    return head(table)


def head(table: Table) -> int:
    snapshot = table.current_snapshot()
    assert snapshot is not None
    return snapshot.snapshot_id


def keys(table: Table) -> list[str]:
    return sorted(table.refresh().scan().to_arrow()["key"].to_pylist())


def news(table: Table, after: int) -> list[str]:
    return sorted(new_rows(table.refresh(), after).read_all()["key"].to_pylist())


def manifests(table: Table) -> int:
    snapshot = table.refresh().current_snapshot()
    return len(snapshot.manifests(table.io)) if snapshot else 0


def follow(catalog: Catalog, snapshot_id: int, name: str = "silver.follower") -> None:
    """A downstream table whose cursor names a snapshot."""
    with ensure_table(catalog, name, SCHEMA).transaction() as transaction:
        transaction.append(SCHEMA.empty_table(), snapshot_properties=Cursor({NAME: snapshot_id}, "v1").properties())


def files(table: Table) -> set[Path]:
    root = Path(table.location().removeprefix("file://"))
    return {path for path in root.rglob("*") if path.is_file()}


def age(paths: set[Path], seconds: float) -> None:
    for path in paths:
        os.utime(path, (time.time() - seconds,) * 2)


def test_many_commits_leave_few_snapshots_and_manifests(catalog, table):
    for number in range(25):
        commit(table, f"k{number}")
    done = maintain(catalog, NAME, AT_ONCE)
    assert (done.merged, done.expired, done.snapshots) == (25, 23, 3)
    assert done.manifests == manifests(table) == 1
    assert keys(table) == sorted(f"k{number}" for number in range(25))
    assert read_progress(table.refresh()).partitions[0] == PartitionProgress(25, accepted=25)


def test_without_need_nothing_is_done(catalog, table):
    assert maintain(catalog, NAME).snapshots == 0
    for number in range(3):
        commit(table, f"k{number}")
    before = head(table)
    done = maintain(catalog, NAME)
    assert (done.expired, done.merged, done.orphans, done.snapshots) == (0, 0, 0, 3)
    assert head(table.refresh()) == before


def test_worker_goes_on_behind_a_merge_with_its_offsets(table):
    for number in range(FANOUT):
        commit(table, f"k{number}")
    assert merge_manifests(table) == FANOUT
    snapshot = table.current_snapshot()
    assert snapshot.summary.operation == Operation.REPLACE
    assert snapshot.summary.additional_properties["total-records"] == str(FANOUT)
    commit(table, "next")
    assert read_progress(table).partitions[0].offset == FANOUT + 1


@pytest.mark.parametrize("seen", [2, FANOUT - 1])
def test_cursor_from_before_a_merge_reads_just_the_new_rows(table, seen):
    snapshots = [commit(table, f"k{number}") for number in range(FANOUT)]
    merge_manifests(table)
    expected = [f"k{number}" for number in range(seen + 1, FANOUT)]
    assert news(table, snapshots[seen]) == expected
    assert appends_only(table, snapshots[seen])
    commit(table, "later")
    assert news(table, snapshots[seen]) == sorted([*expected, "later"])
    assert sum(change.rows for change in added_partitions(table, snapshots[seen])) == len(expected) + 1


def test_cursor_at_a_merge_reads_just_the_new_rows(table):
    for number in range(FANOUT):
        commit(table, f"k{number}")
    merge_manifests(table)
    seen = head(table)
    assert (added_partitions(table, seen), touched_dates(table, "day", seen)) == ([], set())
    commit(table, "a", "bb")
    assert news(table, seen) == ["a", "bb"]
    assert touched_dates(table, "day", seen) == set(DAYS)


def test_rows_deleted_before_a_merge_stay_deleted(table):
    for number in range(FANOUT):
        commit(table, f"k{number}", f"kk{number}")
    table.delete("key = 'k3'")
    merge_manifests(table)
    assert "k3" not in keys(table)
    assert len(keys(table)) == 2 * FANOUT - 1


def test_files_keep_the_place_in_history_that_they_had(table):
    added = [commit(table, f"k{number}") for number in range(FANOUT)]
    merge_manifests(table)
    [manifest] = table.current_snapshot().manifests(table.io)
    entries = manifest.fetch_manifest_entry(table.io)
    assert sorted(entry.sequence_number for entry in entries) == list(range(1, FANOUT + 1))
    assert {entry.snapshot_id for entry in entries} == set(added)


def test_a_commit_during_a_merge_is_kept(table, instance, monkeypatch):
    for number in range(FANOUT):
        commit(table, f"k{number}")
    rival, real = open_catalog(instance).load_table(NAME), table.catalog.commit_table
    rivals = iter(["r1", "r2"])

    def late(*arguments):
        if key := next(rivals, None):
            commit(rival, key)
        return real(*arguments)

    monkeypatch.setattr(table.catalog, "commit_table", late)
    assert merge_manifests(table) == FANOUT
    assert keys(table) == sorted([*(f"k{number}" for number in range(FANOUT)), "r1", "r2"])
    assert read_progress(table).partitions[0].offset == FANOUT + 2


def test_a_rewrite_during_a_merge_wins(table, instance, monkeypatch):
    for number in range(FANOUT):
        commit(table, f"k{number}")
    rival, real = open_catalog(instance).load_table(NAME), table.catalog.commit_table
    rivals = iter([True])

    def late(*arguments):
        if next(rivals, False):
            rival.delete("key = 'k3'")
        return real(*arguments)

    monkeypatch.setattr(table.catalog, "commit_table", late)
    assert merge_manifests(table) == 0
    assert "k3" not in keys(table)


def test_what_downstream_has_not_read_is_kept(catalog, table):
    snapshots = [commit(table, f"k{number}") for number in range(12)]
    follow(catalog, snapshots[4])
    maintain(catalog, NAME, AT_ONCE)
    assert is_ancestor(table.refresh(), snapshots[4])
    assert not is_ancestor(table, snapshots[3])
    assert news(table, snapshots[4]) == sorted(f"k{number}" for number in range(5, 12))


def test_a_follower_that_waits_too_long_holds_nothing(catalog, table):
    snapshots = [commit(table, f"k{number}") for number in range(12)]
    follow(catalog, snapshots[4])
    done = maintain(catalog, NAME, Retention(keep=3, young=timedelta(0), cursor_age=timedelta(0)))
    assert done.snapshots == 3
    assert news(table, snapshots[4]) == keys(table)  # It reads everything, once.


def test_a_follower_that_lost_its_place_is_given_time_to_find_it_again(catalog, table):
    snapshots = [commit(table, f"k{number}") for number in range(12)]
    assert maintain(catalog, NAME, AT_ONCE).snapshots == 3
    follow(catalog, snapshots[0])  # Its first run took so long that what it had read up to is gone.
    more = [commit(table, f"m{number}") for number in range(12)]
    assert maintain(catalog, NAME, AT_ONCE).expired == 0
    follow(catalog, more[-1])
    assert maintain(catalog, NAME, AT_ONCE).snapshots == 3


def test_young_snapshots_are_kept(catalog, table):
    for number in range(12):
        commit(table, f"k{number}")
    assert maintain(catalog, NAME, Retention(keep=3, young=timedelta(hours=1))).expired == 0


def test_tags_and_branches_are_kept(catalog, table):
    snapshots = [commit(table, f"k{number}") for number in range(12)]
    table.manage_snapshots().create_tag(snapshots[1], "audit").create_branch(snapshots[3], "trial").commit()
    maintain(catalog, NAME, AT_ONCE)
    assert table.refresh().scan(snapshot_id=snapshots[1]).to_arrow().num_rows == 2
    assert {snapshot.snapshot_id for snapshot in ancestors(table, of=snapshots[3])} == set(snapshots[:4])
    assert not is_ancestor(table, snapshots[5])


def test_offsets_and_cursors_behind_foreign_snapshots_are_kept(catalog, table):
    commit(table, "k")
    for number in range(9):
        table.append(pa.Table.from_pylist([{"day": DAYS[0], "key": f"foreign{number}"}], schema=SCHEMA))
    maintain(catalog, NAME, AT_ONCE)
    assert read_progress(table.refresh()).partitions[0].offset == 1


def test_a_silver_tables_cursor_survives_its_own_maintenance(catalog, table):
    seen = commit(table, "k")
    for _ in range(FANOUT):
        with ensure_table(catalog, "silver.follower", SCHEMA).transaction() as transaction:
            rows = pa.Table.from_pylist([{"day": DAYS[0], "key": "k"}], schema=SCHEMA)
            transaction.append(rows, snapshot_properties=Cursor({NAME: seen}, "v1").properties())
    silver = catalog.load_table("silver.follower")
    assert maintain(catalog, "silver.follower", AT_ONCE).merged == FANOUT
    assert read_cursor(silver.refresh()) == Cursor({NAME: seen}, "v1")


def test_a_rollback_between_plan_and_expiry_is_not_undone(table, instance, monkeypatch):
    snapshots = [commit(table, f"k{number}") for number in range(12)]
    rival, real = open_catalog(instance).load_table(NAME), table.catalog.commit_table
    rivals = iter([True])

    def late(*arguments):
        if next(rivals, False):
            rival.refresh().manage_snapshots().rollback_to_snapshot(snapshots[2]).commit()
        return real(*arguments)

    monkeypatch.setattr(table.catalog, "commit_table", late)
    expire_snapshots(table, {}, AT_ONCE)
    assert keys(table) == ["k0", "k1", "k2"]
    assert head(table) == snapshots[2]


def test_files_of_failed_commits_and_expired_snapshots_are_removed_and_no_live_one(catalog, table):
    for number in range(12):
        commit(table, f"k{number}")
    rows = pa.Table.from_pylist([{"day": DAYS[0], "key": "lost"}], schema=SCHEMA)
    [lost] = write_data_files(table, rows)  # A worker that dies here leaves it behind.
    age(files(table), 9000)
    live = keys(table)
    maintain(catalog, NAME, AT_ONCE, orphans=False)
    mine = Path(table.location().removeprefix("file://")) / "notes.txt"
    mine.write_text("not Iceberg's")
    age({mine}, 9000)
    before = files(table)
    done = maintain(catalog, NAME, AT_ONCE)
    removed = before - files(table)
    assert Path(lost.file_path.removeprefix("file://")) in removed
    assert [path.suffix for path in removed].count(".parquet") == 1
    # The manifest lists of the expired snapshots, and manifests that only they named.
    assert sum(path.name.startswith("snap-") for path in removed) >= 9
    assert done.orphans == len(removed)
    assert mine.exists()
    assert keys(table) == live
    for snapshot in table.snapshots():
        assert table.scan(snapshot_id=snapshot.snapshot_id).to_arrow().num_rows


def test_young_files_are_left(catalog, table):
    commit(table, "k")
    write_data_files(table, pa.Table.from_pylist([{"day": DAYS[0], "key": "in flight"}], schema=SCHEMA))
    assert maintain(catalog, NAME, AT_ONCE).orphans == 0


def test_old_files_are_left_while_a_commit_on_this_head_could_still_bring_them_in(catalog, table):
    commit(table, "k")
    [file] = write_data_files(table, pa.Table.from_pylist([{"day": DAYS[0], "key": "in flight"}], schema=SCHEMA))
    path = Path(file.file_path.removeprefix("file://"))
    age({path}, LONGEST_COMMIT.total_seconds() - 60)
    assert maintain(catalog, NAME, Retention(orphan_age=timedelta(0))).orphans == 0
    batch = Progress("cluster", "topic", {0: PartitionProgress(2, accepted=1)})
    commit_batch(table, [file], {0: 1}, batch)
    assert keys(table) == ["in flight", "k"]


def test_a_batch_that_was_held_too_long_is_not_committed(table):
    commit(table, "k")
    written = time.time()
    held = write_data_files(table, pa.Table.from_pylist([{"day": DAYS[0], "key": "held"}], schema=SCHEMA))
    batch = Progress("cluster", "topic", {0: PartitionProgress(2, accepted=1)})
    with pytest.raises(LakeError, match="after its files were written"):
        commit_batch(table, held, {0: 1}, batch, written_at=written - LONGEST_COMMIT.total_seconds() - 1)
    assert keys(table) == ["k"]


def test_files_that_another_table_has_taken_over_are_left(catalog, table):
    commit(table, "a")
    other = ensure_table(catalog, "bronze.other", SCHEMA, partition_by={"day": IdentityTransform()})
    taken = write_data_files(table, pa.Table.from_pylist([{"day": DAYS[0], "key": "taken"}], schema=SCHEMA))
    commit_batch(other, taken, {}, Progress("cluster", "topic", {0: PartitionProgress(1)}))
    age(files(table), 9000)
    maintain(catalog, NAME, AT_ONCE)
    assert keys(other) == ["taken"]


def test_files_that_change_hands_during_a_sweep_are_left(catalog, table, monkeypatch):
    commit(table, "a")
    rebuilt = fork_table(catalog, table, "bronze.rebuilt", {})
    rebuilt.append(pa.Table.from_pylist([{"day": DAYS[0], "key": "rebuilt"}], schema=SCHEMA))
    age(files(table), 9000)
    commit(table, "b")
    real, rivals = catalog.list_namespaces, iter([True])

    def late():
        if next(rivals, False):
            take_over(catalog.load_table(NAME), rebuilt, {})
            catalog.drop_table("bronze.rebuilt")
        return real()

    monkeypatch.setattr(catalog, "list_namespaces", late)
    remove_orphans(catalog, table, timedelta(0))
    assert keys(table) == ["rebuilt"]


RACE = """
import sys
from freshdata.lake.catalog import open_catalog
from freshdata.settings import load_settings
from tests.unit.lake.test_maintenance import NAME, commit
table = open_catalog(load_settings()).load_table(NAME)
print("ready", flush=True)
sys.stdin.readline()
for number in range(25):
    commit(table, f"k{number:02}")
"""


def test_a_worker_that_commits_meanwhile_loses_nothing(catalog, table, instance):
    own = {**os.environ, "FRESHDATA_HOME": str(instance.home)}
    worker = subprocess.Popen(
        [sys.executable, "-c", RACE], env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout.readline() == "ready\n"
    seen, read, merged = commit(table, "first", partition=1), ["first"], 0
    worker.stdin.write("\n")
    worker.stdin.flush()
    while worker.poll() is None:
        merged += maintain(catalog, NAME, AT_ONCE).merged
        until = head(table.refresh())
        assert is_ancestor(table, seen)
        if until != seen:
            read += new_rows(table, seen, until=until).read_all()["key"].to_pylist()
        seen = until
        follow(catalog, seen)
    read += news(table, seen) if head(table.refresh()) != seen else []
    assert worker.wait() == 0
    expected = ["first", *(f"k{number:02}" for number in range(25))]
    assert merged
    assert keys(table) == expected
    assert sorted(read) == expected
    assert {number: done.offset for number, done in read_progress(table).partitions.items()} == {0: 25, 1: 1}
