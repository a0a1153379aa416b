"""How a table stands, and what of that is worth a compaction: measured from its manifests alone."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyiceberg.manifest import FileFormat
from pyiceberg.table import Table

from freshdata.lake.inventory import Files, Inventory, LiveFile, Partition, may_mean


@dataclass(frozen=True)
class Thresholds:
    """From where on a table needs a compaction, and how it is compacted.

    Attributes:
        target_bytes: Size of a well-filled data file.
        small_share: A file below this share of it is a small one.
        small_files: A partition is compacted when it has so many small files; one that is larger than all smaller ones
            together does not count, and waits: so a row is rewritten a few times, not with every compaction.
        delete_files: A partition is compacted when it has so many delete files.
        deleted_share: A partition is compacted when they delete so large a share of its rows.
        group_bytes: So much of a partition is sorted at a time; more of it makes several groups. Also, groups of
            several partitions are committed together until they are as large.
        most_bytes: At most about so much is rewritten in one go; the rest is still needed, and done the next time. None
            sets no limit.
        everything: Whether all files are rewritten, needed or not: after the clustering has changed.
        manifests: So many manifests to be merged are worth a run that does nothing else.
        snapshots: So many snapshots to be expired are.
    """

    target_bytes: int = 128 * 1024 * 1024
    small_share: float = 0.75
    small_files: int = 10
    delete_files: int = 5
    deleted_share: float = 0.1
    group_bytes: int = 512 * 1024 * 1024
    most_bytes: int | None = None
    everything: bool = False
    manifests: int = 50
    snapshots: int = 50

    def is_small(self, file: LiveFile) -> bool:
        """Whether a data file is a small one."""
        return bool(file.file.file_size_in_bytes < self.small_share * self.target_bytes)


@dataclass(frozen=True)
class PartitionHealth:
    """How a partition stands that needs a compaction.

    Attributes:
        partition: Its name, or an empty string for a table without partitions.
        files: Data files.
        small_files: Those of them that are small.
        delete_files: Delete files.
        bytes: Size of the data files.
    """

    partition: str
    files: int
    small_files: int
    delete_files: int
    bytes: int


@dataclass(frozen=True)
class TableHealth:
    """How a table stands.

    Attributes:
        table: The table's name.
        rows: Rows in its data files, those that delete files take away included.
        files: Data files.
        bytes: Size of the data files.
        small_files: Those of them that are small.
        delete_files: Delete files.
        dangling: Those of them that mean no data file any more.
        partitions: Partitions.
        needy: The partitions that need a compaction, and how they stand.
        manifests: Manifests.
        snapshots: Snapshots.
        oldest: Age of the oldest snapshot, in seconds.
    """

    table: str
    rows: int
    files: int
    bytes: int
    small_files: int
    delete_files: int
    dangling: int
    partitions: int
    needy: tuple[PartitionHealth, ...]
    manifests: int
    snapshots: int
    oldest: float


@dataclass(frozen=True)
class FileGroup:
    """Data files of one partition that are rewritten together.

    Attributes:
        partition: The partition.
        inputs: The files.
    """

    partition: Partition
    inputs: tuple[LiveFile, ...]

    @property
    def bytes(self) -> int:
        """Size of the files."""
        return sum(file.file.file_size_in_bytes for file in self.inputs)


def measure(table: Table, inventory: Inventory, thresholds: Thresholds, dangling: int) -> TableHealth:
    """How a table stands.

    Args:
        table: The table.
        inventory: Its files.
        thresholds: What is small, and what is needy.
        dangling: Number of its delete files that mean no data file any more.
    """
    parts = inventory.partitions.values()
    data = inventory.data
    chosen = {group.partition for group in file_groups(table, inventory, thresholds)}
    oldest = min((snapshot.timestamp_ms for snapshot in table.snapshots()), default=None)
    return TableHealth(
        table=".".join(table.name()),
        rows=sum(file.file.record_count for file in data),
        files=len(data),
        bytes=_size(data),
        small_files=sum(thresholds.is_small(file) for file in data),
        delete_files=sum(len(files.deletes) for files in parts),
        dangling=dangling,
        partitions=len(parts),
        needy=tuple(
            PartitionHealth(
                partition=partition_name(table, partition),
                files=len(files.data),
                small_files=sum(thresholds.is_small(file) for file in files.data),
                delete_files=len(files.deletes),
                bytes=_size(files.data),
            )
            for partition, files in inventory.partitions.items()
            if partition in chosen
        ),
        manifests=len(inventory.manifests),
        snapshots=len(table.snapshots()),
        oldest=0.0 if oldest is None else time.time() - oldest / 1000,
    )


def file_groups(table: Table, inventory: Inventory, thresholds: Thresholds) -> list[FileGroup]:
    """The files that need rewriting: few large groups rather than many small ones.

    Args:
        table: The table.
        inventory: Its files.
        thresholds: What is needed.
    """
    # Version 3 keeps deletes in another form, and equality deletes are applied by other engines alone.
    if table.format_version != 2 or inventory.equality:
        return []
    return [
        FileGroup(partition, inputs)
        for partition, files in inventory.partitions.items()
        # Files of a former partition spec stay as they are: their rows belong to several partitions of today's.
        if partition[0] == table.spec().spec_id
        for inputs in _cut(_chosen(files, thresholds), thresholds)
    ]


def partition_name(table: Table, partition: Partition) -> str:
    """A partition's name, such as ``ingestion_date=2013-01-01/tenant_id=UA``."""
    spec_id, values = partition
    name: Any = table.specs()[spec_id].partition_to_path(values, table.schema())
    return str(name)


def _chosen(files: Files, thresholds: Thresholds) -> list[LiveFile]:
    """The files of a partition that need rewriting, in the order in which they came in."""
    data = [file for file in files.data if file.file.file_format == FileFormat.PARQUET]
    chosen = {file.path for file in data} if thresholds.everything else set()
    small = sorted((file for file in data if thresholds.is_small(file)), key=lambda file: file.file.file_size_in_bytes)
    total = _size(small)
    while small and 2 * small[-1].file.file_size_in_bytes > total:
        total -= small.pop().file.file_size_in_bytes
    if len(small) >= thresholds.small_files:
        chosen |= {file.path for file in small}
    deleted = sum(file.file.record_count for file in files.deletes)
    share = thresholds.deleted_share * sum(file.file.record_count for file in data)
    if len(files.deletes) >= thresholds.delete_files or deleted > share:
        chosen |= {file.path for file in data if any(may_mean(delete, file) for delete in files.deletes)}
    return sorted((file for file in data if file.path in chosen), key=lambda file: file.sequence_number)


def _cut(files: list[LiveFile], thresholds: Thresholds) -> Iterator[tuple[LiveFile, ...]]:
    group: list[LiveFile] = []
    total = 0
    for file in files:
        total += file.file.file_size_in_bytes
        if group and total > thresholds.group_bytes:
            yield tuple(group)
            group, total = [], file.file.file_size_in_bytes
        group.append(file)
    if group:
        yield tuple(group)


def _size(files: list[LiveFile]) -> int:
    return sum(file.file.file_size_in_bytes for file in files)
