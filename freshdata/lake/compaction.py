"""Rewrite a table's small files, and those whose rows were deleted, as few, well-filled, clustered ones.

The rows stay the same, so the snapshot is one of operation REPLACE: it carries the Kafka offsets or the cursor of its
parent, and whoever follows the table sees no news in it.

It is safe beside any number of writers. The files are written first, which takes long; then, at each attempt to commit
them, the table is looked at anew. A group of files is given up when one of them is gone, or when other delete files
mean it than those that were applied: then another writer has changed rows of it. Whatever else was committed meanwhile
stays as it is. A delete file means data files by their paths, so none can take rows from a new file by mistake.

A new file gets the highest sequence number of the files it was made from, not one of its own: what was there before a
mark (see :mod:`freshdata.lake.cursors`) still counts as having been there, and an equality delete that another engine
commits later still means the rows.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table

from freshdata.errors import LakeError
from freshdata.lake.clustering import Clustering, Sorter, ZOrder, open_sorter
from freshdata.lake.commits import LONGEST_COMMIT
from freshdata.lake.files import ROW_GROUP_ROWS, DataFileWriter, file_schema
from freshdata.lake.health import FileGroup, Thresholds, file_groups, partition_name
from freshdata.lake.inventory import Files, Inventory, LiveFile, Reader
from freshdata.lake.maintenance import ATTEMPTS, carried_state
from freshdata.lake.snapshots import SnapshotWriter, carried


@dataclass(frozen=True)
class Compacted:
    """What a compaction did to a table.

    Attributes:
        files_before: Data files that were rewritten.
        files_after: Data files they became.
        bytes_before: Size of the former.
        bytes_after: Size of the latter.
        delete_files: Delete files that the table no longer has.
        snapshots: Snapshots made.
        skipped: Groups of files that were left as they are, each with the reason.
        seconds: Time taken.
    """

    files_before: int = 0
    files_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    delete_files: int = 0
    snapshots: int = 0
    skipped: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Rewritten:
    """A group of files, what became of it, and path of each of its files to the delete files that were applied."""

    group: FileGroup
    outputs: list[DataFile]
    applied: dict[str, frozenset[str]]


def compact(
    table: Table,
    clustering: Clustering,
    thresholds: Thresholds | None = None,
    *,
    on_progress: Callable[[int], None] = lambda _: None,
    before_commit: Callable[[], None] = lambda: None,
) -> Compacted:
    """Rewrite the files of a table that need it, and take away the delete files that mean none any more.

    Args:
        table: The table; refreshed in place.
        clustering: The order of the rows in the new files.
        thresholds: What is needed; the default :class:`~freshdata.lake.health.Thresholds` when None.
        on_progress: Called with the bytes of each group of files that has been rewritten.
        before_commit: Called just before each attempt to commit (fault injection in tests).
    """
    started, chosen = time.perf_counter(), thresholds or Thresholds()
    table.refresh()
    compaction = Compaction(table, clustering, chosen, before_commit)
    inventory = compaction.reader.inventory()
    if groups := file_groups(table, inventory, chosen):
        with open_sorter() as sorter:
            for batch in _batches(groups, chosen):
                began, rewritten = time.time(), []
                for group in batch:
                    rewritten.append(compaction.rewrite(group, inventory, sorter))
                    on_progress(group.bytes)
                compaction.commit(rewritten, began)
                inventory = compaction.reader.inventory()
    if compaction.reader.dangling(inventory):
        compaction.commit([], time.time())
    return replace(compaction.done, seconds=time.perf_counter() - started)


def _batches(groups: Iterable[FileGroup], thresholds: Thresholds) -> Iterator[list[FileGroup]]:
    """The groups that are committed together."""
    batch: list[FileGroup] = []
    total = size = 0
    for group in groups:
        if thresholds.most_bytes is not None and total and total + group.bytes > thresholds.most_bytes:
            break
        if batch and size + group.bytes > thresholds.group_bytes:
            yield batch
            batch, size = [], 0
        batch.append(group)
        total, size = total + group.bytes, size + group.bytes
    if batch:
        yield batch


class Compaction:
    """One compaction of a table; keeps account of what it has done."""

    def __init__(
        self, table: Table, clustering: Clustering, thresholds: Thresholds, before_commit: Callable[[], None]
    ) -> None:
        self.table = table
        self.clustering = clustering
        self.thresholds = thresholds
        self.before_commit = before_commit
        self.reader = Reader(table)
        self.done = Compacted()

    def rewrite(self, group: FileGroup, inventory: Inventory, sorter: Sorter) -> Rewritten:
        """Write a group's rows as new files, without committing them."""
        deletes = inventory.partitions.get(group.partition, Files()).deletes
        means = {file.path: self.reader.deletes_of(file, deletes) for file in group.inputs}
        everything = self.thresholds.everything
        inputs = tuple(
            file
            for file in group.inputs
            # Only now is it known which files the delete files mean.
            if means[file.path] or self.thresholds.is_small(file) or everything
        )
        alone = len(inputs) == 1 and not (means[inputs[0].path] or everything)
        # One file would become what it is; and the partition spec may have changed since the plan.
        if alone or group.partition[0] != self.table.spec().spec_id:
            inputs = ()
        group = replace(group, inputs=inputs)
        applied = {file.path: frozenset(means[file.path]) for file in inputs}
        positions = {file.path: list(means[file.path].values()) for file in inputs}
        outputs = list(self._write(group, positions, sorter))
        self._check(group, positions, outputs)
        return Rewritten(group, outputs, applied)

    def _check(self, group: FileGroup, positions: dict[str, list[pa.ChunkedArray]], outputs: list[DataFile]) -> None:
        """Refuse new files that do not hold as many rows as those they were made from: the last line of defence."""
        deleted = sum(
            len(pa.chunked_array([chunk for part in parts for chunk in part.chunks], pa.int64()).unique())
            for parts in positions.values()
        )
        expected = sum(file.file.record_count for file in group.inputs) - deleted
        written = sum(file.record_count for file in outputs)
        if written != expected:
            raise LakeError(
                ".".join(self.table.name()),
                f"{written} rows were written in place of {expected}; nothing was committed.",
                remedy="The table is as it was. Please report this.",
            )

    def _write(
        self, group: FileGroup, positions: dict[str, list[pa.ChunkedArray]], sorter: Sorter
    ) -> Iterator[DataFile]:
        clustering, schema = self.clustering, file_schema(self.table)
        if not group.inputs:
            return
        total = sum(file.file.record_count for file in group.inputs)
        rows = self.rows(group, positions, self.table.schema())
        batches: Iterable[pa.RecordBatch] = rows
        if clustering != Clustering():
            curve = None
            if clustering.zorder:
                narrow = self.table.schema().select(*clustering.zorder)
                curve = ZOrder.of(clustering.zorder, total, self.rows(group, positions, narrow))
            batches = sorter.sort(rows, clustering, curve)
        files = max(1, round(group.bytes / self.thresholds.target_bytes))
        row_groups = math.ceil(total / files / ROW_GROUP_ROWS)
        values = self.values(group)
        chunks = _chunks(batches, ROW_GROUP_ROWS)
        for first in chunks:
            rest = islice(chunks, row_groups - 1)
            yield DataFileWriter(self.table, first).write((part.cast(schema) for part in chain([first], rest)), values)

    def rows(
        self, group: FileGroup, positions: dict[str, list[pa.ChunkedArray]], schema: Schema
    ) -> pa.RecordBatchReader:
        """The rows of a group, without those that were deleted, batch by batch."""
        scan = ArrowScan(self.table.metadata, self.table.io, schema, AlwaysTrue())
        fitting = pa.schema([field for field in file_schema(self.table) if field.name in schema.column_names])
        tasks = [FileScanTask(file.file) for file in group.inputs]
        # The public way holds whole files in memory, as many as there are threads.
        batches = scan._record_batches_from_scan_tasks_and_deletes(tasks, positions)  # noqa: SLF001
        return pa.RecordBatchReader.from_batches(fitting, (batch.cast(fitting) for batch in batches))

    def values(self, group: FileGroup) -> dict[str, Any]:
        """Partition field to the value that a group's files have in common."""
        spec_id, record = group.partition
        return {field.name: record[place] for place, field in enumerate(self.table.specs()[spec_id].fields)}

    def commit(self, rewritten: list[Rewritten], began: float) -> None:
        """Put new files in place of those they were made from, as far as nobody has touched these meanwhile.

        Args:
            rewritten: The groups.
            began: When the writing of their files began, in seconds since the epoch.
        """
        writer, manifests = SnapshotWriter(self.table), _Manifests(self.table)
        for _ in range(ATTEMPTS):
            self.table.refresh()
            if self.table.snapshot_by_id(writer.snapshot_id):
                break  # The answer to an attempt was lost, the attempt was not.
            inventory = self.reader.inventory()
            rewritten = [item for item in rewritten if self._holds(item, inventory, began)]
            inputs = {path for item in rewritten for path in item.applied}
            dangling = self.reader.dangling(inventory, inputs)
            if not inputs and not dangling:
                return
            # As they are now: another commit may have moved their entries to other manifests.
            removed = [file for file in inventory.data if file.path in inputs] + dangling
            self.before_commit()
            try:
                writer.replace(
                    manifests.after(writer, inventory, rewritten, removed),
                    self.state(rewritten),
                    added=[file for item in rewritten for file in item.outputs],
                    removed=[file.file for file in removed],
                )
            except (CommitFailedException, CommitStateUnknownException):
                continue
            break
        else:
            for item in rewritten:
                self._skip(item, f"other writers came first {ATTEMPTS} times")
            return
        self._count(rewritten, dangling)

    def state(self, _: list[Rewritten]) -> dict[str, str]:
        """Properties of the new snapshot, if it has some groups of new files."""
        return carried_state(self.table)

    def _holds(self, item: Rewritten, inventory: Inventory, began: float) -> bool:
        """Whether a group's files are still the table's, and their rows still the ones that were rewritten."""
        files = inventory.partitions.get(item.group.partition, Files())
        live = {file.path: file for file in files.data}
        reason = ""
        if time.time() - began > LONGEST_COMMIT.total_seconds():
            reason = "it took so long that its files may have been removed as orphans"
        elif any(
            file.path not in live or live[file.path].sequence_number != file.sequence_number
            for file in item.group.inputs
        ):
            reason = "another writer has replaced files of it"
        elif inventory.equality or any(
            self.reader.deletes_of(file, files.deletes).keys() != item.applied[file.path] for file in item.group.inputs
        ):
            reason = "another writer has deleted or changed rows of it"
        if reason:
            self._skip(item, reason)
        return not reason

    def _skip(self, item: Rewritten, reason: str) -> None:
        name = partition_name(self.table, item.group.partition) or "the table"
        self.done = replace(self.done, skipped=(*self.done.skipped, f"{name}: {reason}"))

    def _count(self, rewritten: list[Rewritten], dangling: list[LiveFile]) -> None:
        done = self.done
        outputs = [file for item in rewritten for file in item.outputs]
        self.done = replace(
            done,
            files_before=done.files_before + sum(len(item.group.inputs) for item in rewritten),
            files_after=done.files_after + len(outputs),
            bytes_before=done.bytes_before + sum(item.group.bytes for item in rewritten),
            bytes_after=done.bytes_after + sum(file.file_size_in_bytes for file in outputs),
            delete_files=done.delete_files + len(dangling),
            snapshots=done.snapshots + 1,
        )


class _Manifests:
    """The manifests of the snapshot to be; those that it adds are written once, whatever others commit meanwhile."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._of: frozenset[str] = frozenset()
        self._written: list[ManifestFile] = []

    def after(
        self, writer: SnapshotWriter, inventory: Inventory, rewritten: list[Rewritten], removed: list[LiveFile]
    ) -> list[ManifestFile]:
        """The parent's manifests with some files added and others removed.

        Args:
            writer: Writes the snapshot.
            inventory: The parent's files.
            rewritten: Groups of files in whose place others come.
            removed: All files that go.
        """
        touched = {file.manifest for file in removed}
        of = frozenset(touched | {file.path for file in removed})
        if self._of != of:
            gone = {file.path for file in removed}
            entries: dict[tuple[ManifestContent, int], list[ManifestEntry]] = defaultdict(list)
            for item in rewritten:
                sequence_number = max(file.sequence_number for file in item.group.inputs) if item.group.inputs else 0
                entries[ManifestContent.DATA, item.group.partition[0]] += [
                    ManifestEntry.from_args(
                        status=ManifestEntryStatus.ADDED,
                        snapshot_id=writer.snapshot_id,
                        sequence_number=sequence_number,
                        data_file=file,
                    )
                    for file in item.outputs
                ]
            for manifest in inventory.manifests:
                if manifest.manifest_path in touched:
                    entries[manifest.content, manifest.partition_spec_id] += [
                        carried(entry, writer.snapshot_id, gone=entry.data_file.file_path in gone)
                        for entry in manifest.fetch_manifest_entry(self._table.io)
                    ]
            self._written = [
                writer.manifest(spec_id, chosen, content=content)
                for (content, spec_id), chosen in entries.items()
                if chosen
            ]
            self._of = of
        return self._written + [each for each in inventory.manifests if each.manifest_path not in touched]


def _chunks(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """The batches as tables of so many rows, the last one of the rest."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        while count >= rows:
            whole = pa.Table.from_batches(held)
            yield whole.slice(0, rows).combine_chunks()
            held = whole.slice(rows).to_batches()
            count -= rows
    if count:
        yield pa.Table.from_batches(held)
