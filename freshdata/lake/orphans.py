"""Remove files that no snapshot refers to: those of failed commits, and the metadata of expired snapshots.

A file is never removed from under a commit. A worker refuses to commit files that it began to write more than
:data:`~freshdata.lake.commits.LONGEST_COMMIT` ago, and its commit asserts the head that it last saw. So once the table
has a head that is younger than a file by that time, no commit that is still on its way can bring the file in: if it has
not landed before that head, it fails.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

from pyarrow.fs import FileInfo, FileSelector, FileType
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table

from freshdata.errors import LakeError
from freshdata.lake.catalog import list_tables
from freshdata.lake.commits import LONGEST_COMMIT

# Only what Iceberg writers write; anything else in the folder is none of ours.
SUFFIXES = (".parquet", ".orc", ".avro", ".puffin", ".metadata.json")
DATA_SUFFIXES = (".parquet", ".orc")


def remove_orphans(catalog: Catalog, table: Table, age: timedelta) -> list[tuple[str, int]]:
    """Remove the files in a table's folder that no table of the catalog refers to.

    Args:
        catalog: The catalog.
        table: The table; refreshed in place.
        age: Files younger than this are left: writers other than the workers may be about to commit them.

    Returns:
        Path and size in bytes of each file removed.

    Raises:
        LakeError: the folder and the table's metadata have no file in common, so their paths cannot be compared.
    """
    io = PyArrowFileIO(table.io.properties)
    scheme, host, root = io.parse_location(table.location())
    files = io.fs_by_scheme(scheme, host)
    found = files_in(table)
    # The order counts: what is committed after the listing is found in the table, or is too young.
    table.refresh()
    head = table.current_snapshot()
    if head is None:
        return []
    newest = min(time.time() - age.total_seconds(), head.timestamp_ms / 1000 - LONGEST_COMMIT.total_seconds())
    old = {path: info for path, info in found.items() if info.mtime_ns / 1e9 < newest}
    if not old:
        return []
    if plain_path(table.metadata_location) not in found:
        raise LakeError(
            ".".join(table.name()),
            f"its metadata {table.metadata_location} is not among the files under {root}.",
            remedy="Its orphan files are left alone; remove them by hand.",
        )
    for other in _tables(catalog, table):
        # A table's files may lie in another's folder: a rebuilt table's rows are taken over where they are.
        for path in referred_files(other, data=any(path.endswith(DATA_SUFFIXES) for path in old)):
            old.pop(path, None)
        if not old:
            return []
    removed = []
    for path, info in old.items():
        # Two sweeps may meet: one of a worker, one of the command line.
        with suppress(FileNotFoundError):
            files.delete_file(path)
            removed.append((path, info.size))
    return removed


def files_in(table: Table) -> dict[str, FileInfo]:
    """The files of Iceberg's kinds in a table's folder, by path."""
    io = PyArrowFileIO(table.io.properties)
    scheme, host, root = io.parse_location(table.location())
    selected = FileSelector(root, recursive=True, allow_not_found=True)
    infos = io.fs_by_scheme(scheme, host).get_file_info(selected)
    return {info.path: info for info in infos if info.type == FileType.File and info.path.endswith(SUFFIXES)}


def _tables(catalog: Catalog, first: Table) -> Iterator[Table]:
    yield first
    for identifier in list_tables(catalog):
        if identifier != first.name():
            try:
                yield catalog.load_table(identifier)
            except NoSuchTableError:
                continue  # Dropped since it was listed; its files are no live ones, or the first table's by now.
    # A rebuilt table's files become this one's, and the rebuilt table is dropped, maybe between the two looks above.
    yield first.refresh()


def referred_files(table: Table, *, data: bool) -> Iterator[str]:
    """The paths of all files that a table's metadata refers to; with or without its data files."""
    metadata = table.metadata
    yield plain_path(table.metadata_location)
    for log in metadata.metadata_log:
        yield plain_path(log.metadata_file)
    for statistics in [*metadata.statistics, *metadata.partition_statistics]:
        yield plain_path(statistics.statistics_path)
    manifests: dict[str, ManifestFile] = {}
    for snapshot in metadata.snapshots:
        yield plain_path(snapshot.manifest_list)
        manifests |= {manifest.manifest_path: manifest for manifest in snapshot.manifests(table.io)}
    for path, manifest in manifests.items():
        yield plain_path(path)
        if data:
            for entry in manifest.fetch_manifest_entry(table.io):
                yield plain_path(entry.data_file.file_path)


def plain_path(location: str) -> str:
    """A file's path without the scheme of its store."""
    return PyArrowFileIO.parse_location(location)[2]
