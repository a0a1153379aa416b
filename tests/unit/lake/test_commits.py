"""The fence: what a commit refuses, what it merges, and how an ambiguous answer is resolved."""

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException

from freshdata.errors import ClusterMismatchError, FencedError, LakeError
from freshdata.lake.catalog import ensure_stream_tables, open_catalog
from freshdata.lake.commits import commit_batch
from freshdata.lake.files import write_data_files
from freshdata.lake.progress import PartitionProgress, Progress, read_progress


@pytest.fixture
def table(instance, contracts):
    return ensure_stream_tables(open_catalog(instance), contracts["flight_events"], contracts)[1]


def batch(partition, offset, *, cluster="c1", **counts):
    return Progress(cluster, "t", {partition: PartitionProgress(offset, **counts)})


def test_offsets_merge_and_counts_add_up(table):
    commit_batch(table, [], {0: 0}, batch(0, 5, consumed=5, rejected=5, max_event_time=7))
    commit_batch(table, [], {1: 0}, batch(1, 3, consumed=3, rejected=3))
    progress = commit_batch(table, [], {0: 5}, batch(0, 9, consumed=4, rejected=4, max_event_time=6))
    assert progress == read_progress(table)
    assert progress.partitions[0] == PartitionProgress(9, 7, consumed=9, rejected=9)
    assert progress.partitions[1].offset == 3
    assert progress.total().consumed == 12


def test_a_zombie_is_fenced(table, instance):
    zombie = open_catalog(instance).load_table("quarantine.flight_events")
    commit_batch(table, [], {0: 0}, batch(0, 5))
    with pytest.raises(FencedError) as error:
        commit_batch(zombie, [], {0: 0}, batch(0, 4))
    assert (error.value.partition, error.value.expected, error.value.found) == (0, 0, 5)
    assert len(zombie.refresh().snapshots()) == 1


def test_another_kafka_cluster_is_refused(table):
    commit_batch(table, [], {0: 0}, batch(0, 5))
    with pytest.raises(ClusterMismatchError, match="c2"):
        commit_batch(table, [], {0: 5}, batch(0, 6, cluster="c2"))


def test_a_conflicting_commit_is_retried_behind_the_fence(table, instance):
    other = open_catalog(instance).load_table("quarantine.flight_events")
    rivals = iter([True])

    def rival():
        if next(rivals, False):
            commit_batch(other, [], {1: 0}, batch(1, 2, consumed=2))

    progress = commit_batch(table, [], {0: 0}, batch(0, 5, consumed=5), before_commit=rival)
    assert {number: done.offset for number, done in progress.partitions.items()} == {0: 5, 1: 2}


def test_a_rival_on_the_same_partition_wins_once(table, instance):
    other = open_catalog(instance).load_table("quarantine.flight_events")
    rivals = iter([True])

    def rival():
        if next(rivals, False):
            commit_batch(other, [], {0: 0}, batch(0, 5, consumed=5))

    with pytest.raises(FencedError):
        commit_batch(table, [], {0: 0}, batch(0, 5, consumed=5), before_commit=rival)
    assert read_progress(table.refresh()).partitions[0].consumed == 5


def test_a_commit_whose_answer_was_lost_is_not_repeated(table, monkeypatch):
    real = table.catalog.commit_table
    lost = iter([True])

    def commit_then_fail(*arguments):
        answer = real(*arguments)
        if next(lost, False):
            raise ConnectionError("the answer was lost")
        return answer

    monkeypatch.setattr(table.catalog, "commit_table", commit_then_fail)
    progress = commit_batch(table, [], {0: 0}, batch(0, 5, consumed=5))
    assert progress.partitions[0].consumed == 5
    assert len(table.refresh().snapshots()) == 1


def test_a_catalog_that_cannot_be_read_for_a_moment_costs_no_batch(table, monkeypatch):
    real = table.catalog.load_table
    broken = iter([True])

    def load(*arguments):
        if next(broken, False):
            raise ConnectionError("the catalog restarts")
        return real(*arguments)

    monkeypatch.setattr(table.catalog, "load_table", load)
    assert commit_batch(table, [], {0: 0}, batch(0, 5, consumed=5)).partitions[0].consumed == 5
    assert len(table.refresh().snapshots()) == 1


def test_the_files_of_a_retried_commit_are_in_the_table_once(table, instance):
    other = open_catalog(instance).load_table("quarantine.flight_events")
    rivals = iter([True, True])
    row = {name: b"" if name == "payload" else 1 for name in ("partition", "offset", "payload")} | {
        "topic": "t", "reason": "r", "contract_version": "1",
        "ingested_at": datetime(2013, 1, 1, tzinfo=UTC), "ingestion_date": date(2013, 1, 1),
    }  # fmt: skip
    files = write_data_files(table, pa.Table.from_pylist([row], schema=table.schema().as_arrow()))

    def rival():
        if next(rivals, False):
            commit_batch(
                other,
                [],
                {1: read_progress(other).partitions[1].offset if other.snapshots() else 0},
                batch(1, len(other.snapshots()) + 1),
            )

    commit_batch(table, files, {0: 0}, batch(0, 1, consumed=1), before_commit=rival)
    assert table.scan().to_arrow().num_rows == 1
    assert len(table.snapshots()) == 3


def test_a_catalog_that_keeps_refusing_is_an_error_with_a_remedy(table, monkeypatch):
    def refuse(*_):
        raise CommitFailedException("no")

    monkeypatch.setattr(table.catalog, "commit_table", refuse)
    monkeypatch.setattr("freshdata.lake.commits.LONGEST_DELAY_SECONDS", 0.0)
    monkeypatch.setattr("freshdata.lake.commits.FIRST_DELAY_SECONDS", 0.0)
    with pytest.raises(LakeError, match="refused a commit"):
        commit_batch(table, [], {0: 0}, batch(0, 5))


def test_a_foreign_snapshot_does_not_hide_the_offsets(table):
    commit_batch(table, [], {0: 0}, batch(0, 5))
    with table.transaction() as transaction, transaction.update_snapshot().fast_append():
        pass  # Another writer's snapshot, a compaction for instance, carries no progress.
    assert read_progress(table.refresh()).partitions[0].offset == 5


def test_a_table_that_lost_its_offsets_stops_the_worker(table):
    with table.transaction() as transaction, transaction.update_snapshot().fast_append():
        pass
    with pytest.raises(LakeError, match="no snapshot with Kafka offsets"):
        read_progress(table.refresh())
