"""Commit a batch's files and its Kafka offsets as one snapshot: the heart of exactly-once.

A commit asserts that the table's offset of each partition is exactly where its batch began. If it is not, another owner
got there first and the batch is dropped: a worker that was presumed dead can never write. PyIceberg's own retry would
append blindly, so it is switched off (table property), and every retry here refreshes and checks the fence again.
An ambiguous answer (an error after the catalog did commit) is resolved the same way: refresh and look for this
commit's id.

A commit never waits for maintenance, and maintenance never takes a file from under it: see
:mod:`freshdata.lake.orphans` for the part that :data:`LONGEST_COMMIT` has in that.
"""

import time
import uuid
from collections.abc import Callable
from datetime import timedelta

from pyiceberg.manifest import DataFile, ManifestFile
from pyiceberg.table import Table

from freshdata.errors import ClusterMismatchError, FencedError, FreshDataError, LakeError
from freshdata.lake.progress import (
    PROGRESS_PROPERTY,
    Progress,
    ancestors,
    read_progress,
    summary_property,
)
from freshdata.lake.snapshots import SnapshotWriter

COMMIT_ID_PROPERTY = "freshdata.commit-id"
# A worker that was stopped for longer than this between writing a batch's files and committing them may find that
# maintenance has removed them.
LONGEST_COMMIT = timedelta(hours=1)
ATTEMPTS = 20
FIRST_DELAY_SECONDS = 0.02
LONGEST_DELAY_SECONDS = 2.0


def commit_batch(
    table: Table,
    files: list[DataFile],
    begin: dict[int, int],
    batch: Progress,
    *,
    properties: Callable[[Progress], dict[str, str]] = lambda _: {},
    written_at: float | None = None,
    before_commit: Callable[[], None] = lambda: None,
) -> Progress:
    """Append files and advance the offsets in one snapshot, or raise without a trace.

    Args:
        table: The table; refreshed in place.
        files: Files of :func:`~freshdata.lake.files.write_data_files`.
        begin: Kafka partition to the offset at which the batch began; a partition is not checked when the table has
            never seen it.
        batch: What the batch consumed: for each partition its next offset and its counts.
        properties: Further snapshot summary properties, from the progress after the commit.
        written_at: When the writing of the files began, in seconds since the epoch; now when None.
        before_commit: Called just before each attempt (fault injection in tests).

    Returns:
        The table's progress after the commit.

    Raises:
        FencedError: another writer has moved a partition's offset.
        ClusterMismatchError: the table's offsets belong to another Kafka cluster.
        LakeError: the catalog kept failing, or the files were written too long ago.
    """
    written_at = written_at or time.time()
    commit_id = uuid.uuid4().hex
    delay = FIRST_DELAY_SECONDS
    failure: Exception | None = None
    writer: SnapshotWriter | None = None
    manifests: list[ManifestFile] = []
    for _ in range(ATTEMPTS):
        try:
            table.refresh()
            if failure is not None and _committed(table, commit_id):
                return _progress(table, batch)
            merged = _fenced(table, begin, batch).merged(batch.partitions)
            _check_age(table, written_at)
            before_commit()
            writer = writer or SnapshotWriter(table)
            manifests = manifests or ([writer.added(files)] if files else [])
            summary = {PROGRESS_PROPERTY: merged.to_json(), COMMIT_ID_PROPERTY: commit_id} | properties(merged)
            writer.append(manifests, files, summary)
        except FreshDataError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the catalog answered, only the table tells what happened.
            failure = error
        else:
            return merged
        time.sleep(delay)
        delay = min(delay * 2, LONGEST_DELAY_SECONDS)
    raise LakeError(
        ".".join(table.name()),
        f"the catalog refused a commit {ATTEMPTS} times, last with: {failure}.",
        remedy="Check that the catalog is reachable; the batch is read again from Kafka.",
    ) from failure


def check_cluster(table: Table, cluster_id: str) -> None:
    """Refuse offsets of another Kafka cluster.

    Raises:
        ClusterMismatchError: the table's offsets belong to another cluster.
    """
    recorded = read_progress(table)
    if recorded is not None and recorded.cluster_id != cluster_id:
        raise ClusterMismatchError(".".join(table.name()), recorded.cluster_id, cluster_id)


def _fenced(table: Table, begin: dict[int, int], batch: Progress) -> Progress:
    check_cluster(table, batch.cluster_id)
    recorded = _progress(table, batch)
    for partition, expected in begin.items():
        found = recorded.partitions.get(partition)
        if found is not None and found.offset != expected:
            raise FencedError(".".join(table.name()), partition, expected, found.offset)
    return recorded


def _check_age(table: Table, written_at: float) -> None:
    age = time.time() - written_at
    if age > LONGEST_COMMIT.total_seconds():
        raise LakeError(
            ".".join(table.name()),
            f"a batch was to be committed {age:.0f} s after its files were written; they may have been removed by now.",
            remedy="Start the worker again: the batch is read again from Kafka.",
        )


def _progress(table: Table, batch: Progress) -> Progress:
    return read_progress(table) or Progress(batch.cluster_id, batch.topic)


def _committed(table: Table, commit_id: str) -> bool:
    return any(summary_property(snapshot, COMMIT_ID_PROPERTY) == commit_id for snapshot in ancestors(table))
