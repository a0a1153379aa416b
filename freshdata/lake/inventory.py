"""The files of a table's current snapshot, by partition, and which delete files mean which data files."""

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
from pyiceberg.io.pyarrow import _read_deletes
from pyiceberg.manifest import DataFile, DataFileContent, ManifestContent, ManifestEntry, ManifestFile
from pyiceberg.table import Table
from pyiceberg.typedef import Record

# Partition spec and values.
Partition = tuple[int, Record]


@dataclass(frozen=True)
class LiveFile:
    """A file of a snapshot.

    Attributes:
        entry: Its manifest entry.
        manifest: Path of the manifest it is in.
    """

    entry: ManifestEntry
    manifest: str

    @property
    def file(self) -> DataFile:
        """The file itself."""
        return self.entry.data_file

    @property
    def path(self) -> str:
        """Where it is."""
        return self.file.file_path

    @property
    def sequence_number(self) -> int:
        """Delete files of this number and higher ones may mean it, if it is a data file."""
        return self.entry.sequence_number or 0


@dataclass
class Files:
    """The files of a partition.

    Attributes:
        data: Data files.
        deletes: Position-delete files.
    """

    data: list[LiveFile] = field(default_factory=list)
    deletes: list[LiveFile] = field(default_factory=list)


@dataclass(frozen=True)
class Inventory:
    """What a snapshot holds.

    Attributes:
        manifests: Its manifests.
        partitions: Its files by partition.
        equality: Whether it has equality-delete files, which only other engines write, and can apply.
    """

    manifests: tuple[ManifestFile, ...]
    partitions: dict[Partition, Files]
    equality: bool

    @property
    def data(self) -> list[LiveFile]:
        """The data files of all partitions."""
        return [file for files in self.partitions.values() for file in files.data]


class Reader:
    """Takes inventories of one table again and again; what never changes is read once."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._entries: dict[str, list[ManifestEntry]] = {}
        self._positions: dict[str, Mapping[str, pa.ChunkedArray]] = {}

    def inventory(self) -> Inventory:
        """The files of the current snapshot, as the table handle has it."""
        head = self._table.current_snapshot()
        manifests = tuple(head.manifests(self._table.io)) if head else ()
        partitions: dict[Partition, Files] = defaultdict(Files)
        equality = False
        self._entries = {manifest.manifest_path: self._read(manifest) for manifest in manifests}
        for manifest in manifests:
            for entry in self._entries[manifest.manifest_path]:
                files = partitions[manifest.partition_spec_id, entry.data_file.partition]
                if manifest.content == ManifestContent.DATA:
                    files.data.append(LiveFile(entry, manifest.manifest_path))
                elif entry.data_file.content == DataFileContent.POSITION_DELETES:
                    files.deletes.append(LiveFile(entry, manifest.manifest_path))
                else:
                    equality = True
        return Inventory(manifests, dict(partitions), equality)

    def deletes_of(self, data: LiveFile, deletes: Iterable[LiveFile]) -> dict[str, pa.ChunkedArray]:
        """Path of each delete file that means a data file, to the rows it deletes there."""
        return {
            delete.path: self._read_deletes(delete)[data.path]
            for delete in deletes
            if may_mean(delete, data) and data.path in self._read_deletes(delete)
        }

    def dangling(self, inventory: Inventory, gone: Container[str] = ()) -> list[LiveFile]:
        """The delete files that mean no data file any more; of those read before it is known which ones they mean.

        Args:
            inventory: The files.
            gone: Paths of data files that are left out of account.
        """
        return [
            delete
            for files in inventory.partitions.values()
            for delete in files.deletes
            if not any(
                may_mean(delete, data) and data.path in self._positions.get(delete.path, {data.path: ()})
                for data in files.data
                if data.path not in gone
            )
        ]

    def _read_deletes(self, delete: LiveFile) -> Mapping[str, pa.ChunkedArray]:
        if delete.path not in self._positions:
            self._positions[delete.path] = _read_deletes(self._table.io, delete.file)
        return self._positions[delete.path]

    def _read(self, manifest: ManifestFile) -> list[ManifestEntry]:
        known = self._entries.get(manifest.manifest_path)
        return manifest.fetch_manifest_entry(self._table.io) if known is None else known


def may_mean(delete: LiveFile, data: LiveFile) -> bool:
    """Whether a delete file may mean a data file of its partition, as far as that can be told without reading it."""
    return delete.sequence_number >= data.sequence_number
