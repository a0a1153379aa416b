"""Compaction beside others: nobody who writes meanwhile loses anything, and nothing comes back."""

import os
import subprocess
import sys

import pyarrow as pa
import pytest
from pyiceberg.manifest import ManifestContent

from freshdata.lake.catalog import open_catalog
from freshdata.lake.compaction import compact
from freshdata.lake.health import Thresholds
from freshdata.lake.maintenance import FANOUT, maintain, merge_manifests
from freshdata.lake.progress import read_progress
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
    merge,
    on_disk,
    rows,
)


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
from tests.compaction import DAYS, NAME, commit, merge
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
from tests.compaction import BY_KEY, NAME, NOW
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
