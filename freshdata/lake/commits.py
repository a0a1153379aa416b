"""Commit a batch's files and its Kafka offsets as one snapshot: the heart of exactly-once.

A commit asserts that the table's offset of each partition is exactly where its batch began. If it is not, another owner
got there first and the batch is dropped: a worker that was presumed dead can never write. PyIceberg's own retry would
append blindly, so it is switched off (table property), and every retry here refreshes and checks the fence again.
An ambiguous answer (an error after the catalog did commit) is resolved the same way: refresh and look for this
commit's id.
"""

import time
import uuid
from collections.abc import Callable

import pyarrow as pa
from pyiceberg.io.pyarrow import _dataframe_to_data_files
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from freshdata.errors import ClusterMismatchError, FencedError, LakeError
from freshdata.lake.progress import (
    PROGRESS_PROPERTY,
    Progress,
    ancestors,
    read_progress,
    summary_property,
)

COMMIT_ID_PROPERTY = "freshdata.commit-id"
ATTEMPTS = 20
FIRST_DELAY_SECONDS = 0.02
LONGEST_DELAY_SECONDS = 2.0


def write_data_files(table: Table, rows: pa.Table) -> list[DataFile]:
    """Write rows as the table's data files, without committing them.

    Args:
        table: The table; the files follow its partition spec.
        rows: Rows with the table's columns, sorted as they shall be stored.
    """
    if rows.num_rows == 0:
        return []
    return list(_dataframe_to_data_files(table_metadata=table.metadata, df=rows, io=table.io))


def commit_batch(
    table: Table,
    files: list[DataFile],
    begin: dict[int, int],
    batch: Progress,
    *,
    properties: dict[str, str] | None = None,
    before_commit: Callable[[], None] = lambda: None,
) -> Progress:
    """Append files and advance the offsets in one snapshot, or raise without a trace.

    Args:
        table: The table; refreshed in place.
        files: Files of :func:`write_data_files`.
        begin: Kafka partition to the offset at which the batch began; a partition is not checked when the table has
            never seen it.
        batch: What the batch consumed: for each partition its next offset and its counts.
        properties: Further snapshot summary properties.
        before_commit: Called just before each attempt (fault injection in tests).

    Returns:
        The table's progress after the commit.

    Raises:
        FencedError: another writer has moved a partition's offset.
        ClusterMismatchError: the table's offsets belong to another Kafka cluster.
        LakeError: the catalog kept refusing.
    """
    commit_id = uuid.uuid4().hex
    delay = FIRST_DELAY_SECONDS
    failure: Exception | None = None
    for _ in range(ATTEMPTS):
        table.refresh()
        if failure is not None and _committed(table, commit_id):
            return _progress(table, batch)
        merged = _fenced(table, begin, batch).merged(batch.partitions)
        before_commit()
        try:
            with table.transaction() as transaction:
                summary = {PROGRESS_PROPERTY: merged.to_json(), COMMIT_ID_PROPERTY: commit_id} | (properties or {})
                with transaction.update_snapshot(snapshot_properties=summary).fast_append() as append:
                    for file in files:
                        append.append_data_file(file)
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


def _progress(table: Table, batch: Progress) -> Progress:
    return read_progress(table) or Progress(batch.cluster_id, batch.topic)


def _committed(table: Table, commit_id: str) -> bool:
    return any(summary_property(snapshot, COMMIT_ID_PROPERTY) == commit_id for snapshot in ancestors(table))
