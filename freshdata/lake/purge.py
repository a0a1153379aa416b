"""Give up a table's past: its tags and snapshots before some point, and at once the files that only they have.

Elsewhere files are removed once nobody can be about to commit or read them. Here they must be gone when the command
ends: a reader of an old snapshot fails.
"""

from collections.abc import Iterable
from contextlib import suppress

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import ManifestEntry, ManifestEntryStatus
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot

from freshdata.errors import LakeError
from freshdata.lake.maintenance import ATTEMPTS, carried_state, tables
from freshdata.lake.orphans import plain_path, referred_files
from freshdata.lake.replace import append_nothing
from freshdata.lake.snapshots import SnapshotWriter, carried, remove_snapshots


def begin_anew(table: Table) -> int:
    """Give a table a snapshot of the same rows that needs nothing of its past.

    Manifests keep naming the files that were taken away, with the bounds of their columns: they are written without.
    The snapshot carries the offsets or the cursor, and is one that followers move on to.

    Returns:
        Its sequence number; 0 for a table that was never written to.

    Raises:
        LakeError: the catalog kept refusing.
    """
    table.refresh()
    if table.current_snapshot() is None:
        return 0
    _drop_deleted_entries(table)
    return append_nothing(table, carried_state(table)).sequence_number or 0


def _drop_deleted_entries(table: Table) -> None:
    for _ in range(ATTEMPTS):
        table.refresh()
        head = table.current_snapshot()
        current = head.manifests(table.io) if head else []
        stale = [each for each in current if each.deleted_files_count]
        if not stale:
            return
        writer = SnapshotWriter(table)
        written = []
        for manifest in stale:
            entries: list[ManifestEntry] = [
                carried(entry, writer.snapshot_id, gone=False)
                for entry in manifest.fetch_manifest_entry(table.io)
                if entry.status != ManifestEntryStatus.DELETED
            ]
            if entries:
                written.append(writer.manifest(manifest.partition_spec_id, entries, content=manifest.content))
        with suppress(CommitFailedException):
            writer.replace(written + [each for each in current if each not in stale], carried_state(table))
    raise _refused(table)


def purge(table: Table, before: int) -> tuple[list[str], int, set[str]]:
    """Give up what a table was before some point.

    Args:
        table: The table; refreshed in place.
        before: Sequence number: snapshots with a lower one go, and the tags and branches on them.

    Returns:
        The tags and branches, the number of snapshots, and the files that only they had. These are still there.

    Raises:
        LakeError: the catalog kept refusing.
    """
    for _ in range(ATTEMPTS):
        table.refresh()
        old = {each.snapshot_id for each in table.snapshots() if (each.sequence_number or 0) < before}
        names = [name for name, ref in table.refs().items() if ref.snapshot_id in old and name != MAIN_BRANCH]
        files = {path for each in table.snapshots() if each.snapshot_id in old for path in _files(table, each)}
        if not old:
            return [], 0, set()
        with suppress(CommitFailedException):
            for name in names:
                table.manage_snapshots().remove_tag(name).commit()
            table.refresh()
            remove_snapshots(table, sorted(old))
            return names, len(old), files
    raise _refused(table)


def remove_files(catalog: Catalog, table: Table, files: Iterable[str]) -> list[str]:
    """Remove files of a table that no table refers to any more.

    Args:
        catalog: The catalog.
        table: The table they are of.
        files: Their paths.

    Returns:
        Those that were removed.
    """
    left = set(files)
    for name in list(tables(catalog)) if left else []:
        left.difference_update(referred_files(catalog.load_table(name), data=True))
    io = PyArrowFileIO(table.io.properties)
    scheme, host, _ = io.parse_location(table.location())
    removed = []
    for path in sorted(left):
        with suppress(FileNotFoundError):  # A run that was killed has removed it.
            io.fs_by_scheme(scheme, host).delete_file(path)
            removed.append(path)
    return removed


def _files(table: Table, snapshot: Snapshot) -> Iterable[str]:
    yield plain_path(snapshot.manifest_list)
    for manifest in snapshot.manifests(table.io):
        yield plain_path(manifest.manifest_path)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False):
            yield plain_path(entry.data_file.file_path)


def _refused(table: Table) -> LakeError:
    return LakeError(
        ".".join(table.name()),
        f"other writers came first {ATTEMPTS} times.",
        remedy="Run the command again: it goes on where it stopped.",
    )
