"""What was added to a table since one of its snapshots: read from manifests, not from data files."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.table import DataScan, FileScanTask, IncrementalAppendScan, Table
from pyiceberg.table.snapshots import Operation, Snapshot
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import DateType, TimestampType, TimestamptzType

from freshdata.lake.cursors import Mark
from freshdata.lake.progress import ancestors, compacts, summary_property

EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class PartitionChange:
    """What happened to one partition of a table.

    Attributes:
        partition: Partition field name to value (dates as ``date``, times as ``datetime``).
        rows: Rows in the data files added; 0 when files were only taken away.
        files: Data files added.
    """

    partition: dict[str, Any]
    rows: int
    files: int


def is_ancestor(table: Table, snapshot_id: int) -> bool:
    """Whether a snapshot is the table's current one or an ancestor of it that has not expired."""
    return any(snapshot.snapshot_id == snapshot_id for snapshot in ancestors(table))


def added_partitions(table: Table, after: int | None) -> list[PartitionChange]:
    """The partitions touched after a snapshot, those that only lost rows included.

    Args:
        table: The table, refreshed.
        after: Snapshot id; None, or one that is no ancestor, means since ever.
    """
    touched: dict[tuple[tuple[str, Any], ...], tuple[int, int]] = {}
    for manifest, entry in _changed_entries(table, after):
        partition = tuple(partition_of(table, entry.data_file).items())
        rows, files = touched.get(partition, (0, 0))
        if manifest.content == ManifestContent.DATA and entry.status != ManifestEntryStatus.DELETED:
            rows, files = rows + entry.data_file.record_count, files + 1
        touched[partition] = (rows, files)
    return [PartitionChange(dict(partition), rows, files) for partition, (rows, files) in touched.items()]


def touched_dates(table: Table, column: str, after: int | None) -> set[date] | None:
    """The days or hours of a partition column that were touched after a snapshot.

    Args:
        table: The table, refreshed.
        column: Source column of an identity partition field.
        after: Snapshot id.

    Returns:
        The days or hours; None when it cannot be told, because the snapshot is None or no ancestor, or because rows
        changed in a table that is not partitioned by the column. Whoever gets None does everything.
    """
    if after is None or not is_ancestor(table, after):
        return None
    dates: set[date] = set()
    for change in added_partitions(table, after):
        value = change.partition.get(column)
        if not isinstance(value, date):
            return None
        dates.add(value)
    return dates


def new_rows(
    table: Table, after: int | None, columns: tuple[str, ...] | None = None, *, until: int | None = None
) -> pa.RecordBatchReader:
    """The rows appended after a snapshot, batch by batch.

    Args:
        table: The table, refreshed.
        after: Snapshot id; None, or one that is no ancestor, reads the whole table.
        columns: Columns to read; None reads all.
        until: The last snapshot to read; None reads up to the current one.
    """
    if (scan := _news(table, after, until, columns or ("*",))) is None:
        shape = table.schema().as_arrow()
        return shape.empty_table().select(columns or shape.names).to_reader()
    return scan.to_arrow_batch_reader()


def new_files(table: Table, after: int | None, until: int | None) -> list[DataFile]:
    """The data files that hold the rows of :func:`new_rows`."""
    scan = _news(table, after, until, ("*",))
    return [task.file for task in scan.plan_files()] if scan is not None else []


def _news(
    table: Table, after: int | None, until: int | None, columns: tuple[str, ...]
) -> DataScan | IncrementalAppendScan | None:
    head = table.current_snapshot()
    if after is not None and after == (until or (head.snapshot_id if head else None)):
        return None  # PyIceberg refuses an interval without a snapshot in it.
    if after is None or not is_ancestor(table, after):
        return table.scan(selected_fields=columns, snapshot_id=until)
    return table.incremental_append_scan(
        selected_fields=columns, from_snapshot_id_exclusive=after, to_snapshot_id_inclusive=until
    )


def appends_only(table: Table, after: int) -> bool:
    """Whether nothing but rows was added after a snapshot, an ancestor: then :func:`new_rows` is all that happened."""
    for snapshot in ancestors(table):
        if snapshot.snapshot_id == after:
            return True
        if not compacts(snapshot) and (snapshot.summary is None or snapshot.summary.operation is not Operation.APPEND):
            return False
    return False


def appended_since(table: Table, mark: Mark) -> list[DataFile] | None:
    """The data files added after a snapshot that has expired, by their sequence numbers.

    Args:
        table: The table, refreshed.
        mark: The snapshot's mark.

    Returns:
        The files; None when they are not all that has happened: then the rows in them are not the rows gained, or
        there are new delete files, or the table does not tell how many rows it has.
    """
    head = table.current_snapshot()
    records = summary_property(head, "total-records") if head else None
    if head is None or records is None:
        return None
    files = []
    for manifest in head.manifests(table.io):
        if manifest.sequence_number <= mark.sequence_number:
            continue
        for entry in manifest.fetch_manifest_entry(table.io):
            if entry.sequence_number is not None and entry.sequence_number <= mark.sequence_number:
                continue
            if manifest.content == ManifestContent.DELETES:
                return None
            files.append(entry.data_file)
    return files if sum(file.record_count for file in files) == int(records) - mark.records else None


def was_rolled_back(table: Table, mark: Mark) -> bool:
    """Whether a snapshot that is no ancestor of the current one was rolled back, not expired: an older one is left.

    Args:
        table: The table, refreshed.
        mark: The snapshot's mark.
    """
    return any((snapshot.sequence_number or 0) <= mark.sequence_number for snapshot in ancestors(table))


def intervals_in(values: pa.Array | pa.ChunkedArray) -> set[date]:
    """The days in a column of dates, or the hours in one of times."""
    if pa.types.is_timestamp(values.type):
        values = pc.floor_temporal(values, unit="hour")
    return set(pc.unique(values).to_pylist())


def intervals_in_files(table: Table, files: list[DataFile], column: str) -> set[date]:
    """The days or hours of a column in some of a table's data files; reads that one column."""
    tasks = [FileScanTask(file) for file in files]
    scan = ArrowScan(table.metadata, table.io, table.schema().select(column), AlwaysTrue())
    return intervals_in(scan.to_table(tasks)[column])


def _changed_entries(table: Table, after: int | None) -> Iterator[tuple[ManifestFile, ManifestEntry]]:
    head = table.current_snapshot()
    if head is None:
        return
    if after is None or not is_ancestor(table, after):
        for manifest in head.manifests(table.io):
            for entry in manifest.fetch_manifest_entry(table.io):
                yield manifest, entry
        return
    for snapshot in ancestors(table):
        if snapshot.snapshot_id == after:
            return
        if compacts(snapshot):
            continue
        yield from own_entries(table, snapshot)


def own_entries(table: Table, snapshot: Snapshot) -> Iterator[tuple[ManifestFile, ManifestEntry]]:
    """The files that a snapshot added or took away, each with the manifest that says so."""
    # A snapshot's own manifests also carry over entries of earlier ones; only what it added or took away is its doing.
    for manifest in snapshot.manifests(table.io):
        if manifest.added_snapshot_id != snapshot.snapshot_id:
            continue
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False):
            if entry.status != ManifestEntryStatus.EXISTING and entry.snapshot_id == snapshot.snapshot_id:
                yield manifest, entry


def partition_of(table: Table, file: DataFile) -> dict[str, Any]:
    """Partition field name to value of a file (dates as ``date``, times as ``datetime``)."""
    values: dict[str, Any] = {}
    for position, field in enumerate(table.specs()[file.spec_id].fields):
        value = file.partition[position]
        kind = table.schema().find_type(field.source_id)
        if isinstance(field.transform, IdentityTransform) and isinstance(value, int):
            if isinstance(kind, DateType):
                value = EPOCH + timedelta(days=value)
            elif isinstance(kind, TimestampType | TimestamptzType):
                value = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=value)
        values[field.name] = value
    return values
