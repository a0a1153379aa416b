"""Put a snapshot on a table's main branch with one write of each file and one call of the catalog.

PyIceberg's own append copies the table's whole metadata, with all its snapshots, fifteen times a commit: at a hundred
snapshots that was three quarters of a commit. Here the metadata is read once, and copied by the catalog alone.
"""

import uuid
from collections.abc import Iterable

from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import (
    DataFile,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriterV2,
    write_manifest,
    write_manifest_list,
)
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, SnapshotSummaryCollector, Summary, update_snapshot_summaries
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    AssertTableUUID,
    RemoveSnapshotsUpdate,
    SetSnapshotRefUpdate,
    TableUpdate,
    ValidatableTableRequirement,
)


class SnapshotWriter:
    """Writes one snapshot, in as many attempts as it takes.

    The snapshot's id and the manifests written for it outlive a failed attempt; only the manifest list, which names the
    parent's manifests, is written anew. An attempt that did land is therefore refused by the catalog when it is
    repeated, whatever the caller believes.

    Attributes:
        table: The table; whoever writes refreshes it before each attempt.
        snapshot_id: Id of the snapshot to be.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.snapshot_id = table.metadata.new_snapshot_id()
        self._codec = table.properties.get(
            TableProperties.WRITE_AVRO_COMPRESSION, TableProperties.WRITE_AVRO_COMPRESSION_DEFAULT
        )

    def added(self, files: Iterable[DataFile]) -> ManifestFile:
        """Write a manifest of new data files of the table's current partition spec."""
        return self.manifest(
            self.table.metadata.default_spec_id,
            (
                ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, snapshot_id=self.snapshot_id, data_file=file)
                for file in files
            ),
        )

    def manifest(
        self, spec_id: int, entries: Iterable[ManifestEntry], *, content: ManifestContent = ManifestContent.DATA
    ) -> ManifestFile:
        """Write a manifest; an entry that is not new keeps the snapshot and sequence number that it came with.

        Args:
            spec_id: Partition spec of the entries' files.
            entries: At least one entry.
            content: Whether they are data files or delete files.
        """
        output = self.table.io.new_output(self._path(f"{uuid.uuid4()}-m0.avro"))
        about = (self.table.specs()[spec_id], self.table.schema(), output, self.snapshot_id, self._codec)
        with (
            _DeleteManifestWriter(*about)  # type: ignore[arg-type]  # The codec: a property, checked where it is used.
            if content is ManifestContent.DELETES
            else write_manifest(self.table.format_version, *about)  # type: ignore[arg-type]  # As above.
        ) as writer:
            for entry in entries:
                writer.add_entry(entry)
        return writer.to_manifest_file()

    def append(self, manifests: list[ManifestFile], files: Iterable[DataFile], properties: dict[str, str]) -> None:
        """Commit the parent's manifests and new ones as an append.

        Args:
            manifests: Manifests of :meth:`added`.
            files: Their data files; counted in the summary.
            properties: Further summary properties.

        Raises:
            CommitFailedException: the table has changed since it was refreshed.
        """
        metadata = self.table.metadata
        collector = SnapshotSummaryCollector()
        for file in files:
            collector.add_file(file, schema=metadata.schema(), partition_spec=metadata.spec())
        parent = metadata.current_snapshot()
        summary = update_snapshot_summaries(
            Summary(Operation.APPEND, **collector.build(), **properties),
            previous_summary=parent.summary if parent else None,
        )
        kept = parent.manifests(self.table.io) if parent else []
        self._commit(manifests + [m for m in kept if m.has_added_files() or m.has_existing_files()], summary)

    def replace(
        self,
        manifests: list[ManifestFile],
        properties: dict[str, str],
        *,
        added: Iterable[DataFile] = (),
        removed: Iterable[DataFile] = (),
    ) -> None:
        """Commit manifests that hold the very rows of the parent's.

        Args:
            manifests: All manifests of the new snapshot.
            properties: Further summary properties.
            added: Files that the parent does not have; counted in the summary.
            removed: Data and delete files that only the parent has; counted in the summary.

        Raises:
            CommitFailedException: the table has changed since it was refreshed.
        """
        metadata, specs = self.table.metadata, self.table.specs()
        collector = SnapshotSummaryCollector()
        for file in added:
            collector.add_file(file, schema=metadata.schema(), partition_spec=specs[file.spec_id])
        for file in removed:
            collector.remove_file(file, schema=metadata.schema(), partition_spec=specs[file.spec_id])
        parent = metadata.current_snapshot()
        before = parent.summary.additional_properties if parent and parent.summary else {}
        # PyIceberg counts totals for every operation but this, and from zero where the parent has no summary at all.
        counted = update_snapshot_summaries(
            Summary(Operation.OVERWRITE, **collector.build()), previous_summary=before or {"total-records": ""}
        )
        self._commit(manifests, Summary(Operation.REPLACE, **counted.additional_properties, **properties))

    def _commit(self, manifests: list[ManifestFile], summary: Summary) -> None:
        metadata, parent = self.table.metadata, self.table.metadata.current_snapshot()
        path = self._path(f"snap-{self.snapshot_id}-0-{uuid.uuid4()}.avro")
        sequence_number = metadata.next_sequence_number()
        with write_manifest_list(
            format_version=metadata.format_version,
            output_file=self.table.io.new_output(path),
            snapshot_id=self.snapshot_id,
            parent_snapshot_id=parent.snapshot_id if parent else None,
            sequence_number=sequence_number,
            avro_compression=self._codec,  # type: ignore[arg-type]  # A table property, checked where it is used.
        ) as writer:
            writer.add_manifests(manifests)
        snapshot = Snapshot(
            snapshot_id=self.snapshot_id,
            parent_snapshot_id=parent.snapshot_id if parent else None,
            sequence_number=sequence_number,
            manifest_list=path,
            summary=summary,
            schema_id=metadata.current_schema_id,
        )
        main = SetSnapshotRefUpdate.model_validate(
            {"ref-name": MAIN_BRANCH, "type": SnapshotRefType.BRANCH, "snapshot-id": self.snapshot_id}
        )
        commit_on_head(self.table, (AddSnapshotUpdate(snapshot=snapshot), main))

    def _path(self, name: str) -> str:
        return self.table.location_provider().new_metadata_location(name)


def carried(entry: ManifestEntry, snapshot_id: int, *, gone: bool) -> ManifestEntry:
    """An entry of the parent as it is in a new snapshot, which may take its file away."""
    return ManifestEntry.from_args(
        status=ManifestEntryStatus.DELETED if gone else ManifestEntryStatus.EXISTING,
        snapshot_id=snapshot_id if gone else entry.snapshot_id,
        sequence_number=entry.sequence_number,
        file_sequence_number=entry.file_sequence_number,
        data_file=entry.data_file,
    )


class AssertUntagged(ValidatableTableRequirement):
    """No tag or branch is on some snapshots: to remove them would silently remove it too.

    Attributes:
        snapshot_ids: The snapshots.
    """

    type: str = "assert-untagged"
    snapshot_ids: list[int]

    def validate(self, base_metadata: TableMetadata | None) -> None:  # type: ignore[override]  # PyIceberg's own way.
        """Check the metadata that a commit is made on.

        Raises:
            CommitFailedException: somebody has put a tag on one of them.
        """
        refs = base_metadata.refs if base_metadata else {}
        if found := [name for name, ref in refs.items() if ref.snapshot_id in self.snapshot_ids]:
            raise CommitFailedException(f"Requirement failed: there are refs on snapshots to be removed: {found}")


class _DeleteManifestWriter(ManifestWriterV2):
    """Writes a manifest of delete files; PyIceberg's own writers know data files only."""

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


def remove_snapshots(table: Table, snapshot_ids: list[int]) -> None:
    """Take snapshots out of a table's metadata; their files stay.

    Raises:
        CommitFailedException: the table has changed since it was refreshed.
    """
    # The REST protocol has no such requirement; a catalog that checks requirements in this process takes any.
    local = isinstance(table.catalog, MetastoreCatalog)
    untagged = (AssertUntagged(snapshot_ids=snapshot_ids),) if local else ()
    commit_on_head(table, (RemoveSnapshotsUpdate(snapshot_ids=snapshot_ids),), untagged)


def commit_on_head(
    table: Table, updates: tuple[TableUpdate, ...], more: tuple[ValidatableTableRequirement, ...] = ()
) -> None:
    """Commit updates if the main branch is still where the table handle has it.

    Args:
        table: The table.
        updates: The updates.
        more: What else must hold.

    Raises:
        CommitFailedException: it is not, or another commit came first.
    """
    head = table.metadata.current_snapshot()
    requirements = (
        AssertTableUUID(uuid=table.metadata.table_uuid),
        AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=head.snapshot_id if head else None),
        *more,
    )
    # The public way in, a transaction, copies all metadata for each update and retries by its own rules.
    table._do_commit(updates=updates, requirements=requirements)  # type: ignore[arg-type]  # noqa: SLF001
