"""Merge new rows by key without reading the rows that are there.

A MERGE joins the new rows with every key of the days they belong to, so its cost grows with the day. A data file never
changes, so neither do its keys: their hashes are sorted once and kept beside the instance, and a new key is looked up
in each file by bisection. What is found is deleted by position, what is new is written, both in one snapshot. The
index is a cache: what is missing is made from the data file.
"""

import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyiceberg.conversions import from_bytes
from pyiceberg.io import FileIO
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
)
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Operation, SnapshotSummaryCollector, Summary, update_snapshot_summaries
from pyiceberg.types import LongType, TimestampType, TimestamptzType

from freshdata.lake.changes import partition_of
from freshdata.lake.files import write_data_files
from freshdata.lake.position_deletes import Deletion, Positions, read_positions, write_deletes
from freshdata.lake.snapshots import SnapshotWriter, carried

if TYPE_CHECKING:
    import duckdb

Hashes = npt.NDArray[np.uint64]

# A batch that is larger than this share of what is there is merged as well by reading it.
LARGEST_SHARE = 0.25
UNUSED = timedelta(days=7)
INDEXES_AT_HAND = 1_000
# Two hashes make 128 bits: a false match, which would delete another row, will not be seen.
# Each part with its length, which a null has not: no two keys read the same.
PART_SQL = "strlen({0}::VARCHAR), ':', {0}::VARCHAR"
HASH_SQL = "hash(key), hash('~' || key)"
NUMBERED = (LongType, TimestampType, TimestamptzType)


@dataclass(frozen=True)
class Merging:
    """How a table's rows are told apart.

    Attributes:
        day: The column of days or hours that it is partitioned by.
        key: Columns that identify a row.
        version: Columns that order a row's versions.
    """

    day: str
    key: tuple[str, ...]
    version: tuple[str, ...]


class KeyIndex:
    """The sorted key hashes of data files.

    Args:
        folder: Where they are kept.
        connection: What they are made with.
    """

    def __init__(self, folder: Path, connection: "duckdb.DuckDBPyConnection") -> None:
        self._folder = folder
        self._connection = connection

    def hashes(self, rows: pa.Table, key: tuple[str, ...]) -> tuple[Hashes, Hashes]:
        """The two hashes of each row's key."""
        self._connection.register("_keyed", rows.select(key))
        try:
            query = f"SELECT {HASH_SQL} FROM (SELECT {_text(key)} AS key FROM _keyed)"  # noqa: S608 - see _text.
            found = self._connection.execute(query).to_arrow_table()
        finally:
            self._connection.unregister("_keyed")
        return found.column(0).to_numpy(), found.column(1).to_numpy()

    def find(self, path: str, key: tuple[str, ...], wanted: tuple[Hashes, Hashes]) -> tuple[Positions, Positions]:
        """Which of some keys a data file holds, and at which positions."""
        first, second, positions = self._keys(path, key)
        left = np.searchsorted(first, wanted[0])
        which = np.flatnonzero(first[np.minimum(left, len(first) - 1)] == wanted[0])
        left = left[which]
        counts = np.searchsorted(first, wanted[0][which], side="right") - left
        which = np.repeat(which, counts)
        place = np.repeat(left, counts) + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        same = second[place] == wanted[1][which]
        return which[same], positions[place[same]].astype(np.int64)

    def _keys(self, path: str, key: tuple[str, ...]) -> npt.NDArray[np.uint64]:
        import duckdb

        # Another release may hash otherwise: its keys would not be found in what this one has kept.
        name = hashlib.sha256("\0".join((duckdb.__version__, path, _text(key))).encode()).hexdigest()[:32]
        cached = self._folder / f"{name}.npy"
        if not cached.is_file():
            self._forget_unused()
            query = (
                f"SELECT {HASH_SQL}, file_row_number::UBIGINT FROM (SELECT {_text(key)} AS key, file_row_number "  # noqa: S608
                "FROM read_parquet(?, file_row_number = true)) ORDER BY 1"
            )
            found = self._connection.execute(query, [path]).to_arrow_table()
            self._folder.mkdir(parents=True, exist_ok=True)
            part = cached.with_suffix(f".{os.getpid()}.part")
            with part.open("wb") as stream:
                np.save(stream, np.stack([column.to_numpy() for column in found.columns]))
            part.replace(cached)
        os.utime(cached)
        return _loaded(cached)

    def _forget_unused(self) -> None:
        """Remove what no merge has looked at for long: its data file is gone, or its day is over."""
        oldest = time.time() - UNUSED.total_seconds()
        for path in self._folder.glob("*.npy"):
            if path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)


@lru_cache(maxsize=INDEXES_AT_HAND)
def _loaded(path: Path) -> npt.NDArray[np.uint64]:
    loaded: npt.NDArray[np.uint64] = np.load(path, mmap_mode="r")
    return loaded


def _text(key: tuple[str, ...]) -> str:
    quoted = ('"' + name.replace('"', '""') + '"' for name in key)
    return f"concat({', '.join(map(PART_SQL.format, quoted))})"


def merge_rows(
    table: Table, rows: pa.Table, merging: Merging, index: KeyIndex, properties: dict[str, str]
) -> pa.Table | None:
    """Merge rows, each key once, into a table that holds each key once.

    Args:
        table: The table, refreshed; partitioned by the day.
        rows: The rows.
        merging: How rows are told apart.
        index: Finds keys.
        properties: Properties of the snapshot's summary.

    Returns:
        The rows written; None when nothing was done, because a MERGE would be faster or is needed to compare versions.

    Raises:
        CommitFailedException: another writer came first.
    """
    if rows[merging.day].null_count or rows[merging.version[0]].null_count:
        return None
    days = ", ".join(f"'{day.isoformat()}'" for day in rows[merging.day].unique().to_pylist())
    tasks = list(table.scan(row_filter=f"{merging.day} in ({days})").plan_files())
    present = sum(task.file.record_count for task in tasks)
    if not _plain(table, tasks, merging) or len(rows) > LARGEST_SHARE * (present or np.inf):
        return None
    found = _found(table, tasks, rows, merging, index) if tasks else []
    if found is None:
        return None
    writer = _MergeWriter(table)
    writer.merge(write_data_files(table, rows), write_deletes(table, tasks, found), properties)
    return rows


def _plain(table: Table, tasks: list[FileScanTask], merging: Merging) -> bool:
    """Whether the table is of the kind that is understood here."""
    fields = table.spec().fields
    return (
        [field.name for field in fields] == [merging.day]
        and merging.day in merging.key
        and all(task.file.spec_id == table.spec().spec_id for task in tasks)
        and all(file.content == DataFileContent.POSITION_DELETES for task in tasks for file in task.delete_files)
        and isinstance(table.schema().find_type(merging.version[0]), NUMBERED)
    )


def _found(
    table: Table, tasks: list[FileScanTask], rows: pa.Table, merging: Merging, index: KeyIndex
) -> list[tuple[DataFile, Positions]] | None:
    """The files that hold some of the rows' keys, and where; None when some are not surely older than the rows."""
    first, second = index.hashes(rows, merging.key)
    order = np.argsort(first)
    wanted = first[order], second[order]
    field = table.schema().find_field(merging.version[0])
    versions = rows[merging.version[0]].cast(pa.int64()).to_numpy()[order]
    found = []
    for task in tasks:
        which, positions = index.find(task.file.file_path, merging.key, wanted)
        positions, live = _live(table.io, task, positions)
        if not len(positions):
            continue
        bound = (task.file.upper_bounds or {}).get(field.field_id)
        if bound is None or versions[which[live]].min() <= from_bytes(LongType(), bound):
            return None
        found.append((task.file, positions))
    return found


def _live(io: FileIO, task: FileScanTask, positions: Positions) -> tuple[Positions, npt.NDArray[np.bool_]]:
    """Those positions that are not deleted yet, and which they are."""
    live = np.ones(len(positions), dtype=np.bool_)
    for file in task.delete_files if len(positions) else ():
        live &= ~np.isin(positions, read_positions(io, file.file_path).get(task.file.file_path, ()))
    return positions[live], live


class _MergeWriter(SnapshotWriter):
    """Writes the snapshot of a merge."""

    def merge(self, added: list[DataFile], deletion: Deletion, properties: dict[str, str]) -> None:
        """Commit new rows together with the positions of the rows they replace."""
        metadata = self.table.metadata
        collector = SnapshotSummaryCollector()
        for file in (*added, *deletion.added):
            collector.add_file(file, schema=metadata.schema(), partition_spec=metadata.spec())
        for file in deletion.folded:
            collector.remove_file(file, schema=metadata.schema(), partition_spec=metadata.spec())
        parent = metadata.current_snapshot()
        operation = Operation.OVERWRITE if deletion.added else Operation.APPEND
        summary = update_snapshot_summaries(
            Summary(operation, **collector.build(), **properties),
            previous_summary=parent.summary if parent else None,
        )
        kept = parent.manifests(self.table.io) if parent else []
        manifests = [self.added(added)] if added else []
        if deletion.added:
            entries, kept = self._without(kept, {file.file_path for file in deletion.folded})
            entries += [
                ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, snapshot_id=self.snapshot_id, data_file=file)
                for file in deletion.added
            ]
            manifests.append(self.manifest(metadata.default_spec_id, entries, content=ManifestContent.DELETES))
        self._commit(manifests + [one for one in kept if one.has_added_files() or one.has_existing_files()], summary)

    def _without(self, manifests: list[ManifestFile], gone: set[str]) -> tuple[list[ManifestEntry], list[ManifestFile]]:
        """The entries of those manifests that hold files which are taken away, as they are now, and the others."""
        entries, kept = [], []
        for manifest in manifests:
            found = (
                manifest.fetch_manifest_entry(self.table.io)
                if gone and manifest.content == ManifestContent.DELETES
                else []
            )
            if any(entry.data_file.file_path in gone for entry in found):
                entries += [carried(one, self.snapshot_id, gone=one.data_file.file_path in gone) for one in found]
            else:
                kept.append(manifest)
        return entries, kept


def row_counts(table: Table, day: str) -> dict[Any, int] | None:
    """Rows of each day, from the table's manifests; None when they do not tell."""
    fields = table.spec().fields
    head = table.current_snapshot()
    if head is None or [field.name for field in fields] != [day]:
        return {} if head is None else None
    files: dict[str, tuple[Any, int]] = {}
    deletes: list[DataFile] = []
    for file in _files(table):
        if file.content == DataFileContent.DATA:
            files[file.file_path] = (partition_of(table, file)[day], file.record_count)
        elif file.content == DataFileContent.POSITION_DELETES:
            deletes.append(file)
        else:
            return None
    counts: dict[Any, int] = defaultdict(int)
    for value, rows in files.values():
        counts[value] += rows
    deleted: dict[str, set[int]] = defaultdict(set)
    for file in deletes:
        for path, positions in read_positions(table.io, file.file_path).items():
            if path in files:
                deleted[path].update(positions.tolist())
    for path, gone in deleted.items():
        counts[files[path][0]] -= len(gone)
    return {value: rows for value, rows in counts.items() if rows}


def _files(table: Table) -> Iterator[DataFile]:
    head = table.current_snapshot()
    for manifest in head.manifests(table.io) if head else ():
        for entry in manifest.fetch_manifest_entry(table.io):
            yield entry.data_file
