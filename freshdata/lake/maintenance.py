"""Keep a table's metadata small and its folder clean, while others write to it.

A commit costs what the table's metadata weighs, so old snapshots are expired and small manifests merged, outside the
hot path. Both are ordinary commits on the head they were planned on: when a worker comes first they start again, and a
worker that finds the table changed refreshes and checks its fence, as always. No files are deleted by either; a sweep
does that, once nothing can refer to them any more.
"""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.manifest import ManifestContent, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot

from freshdata.lake.catalog import list_tables, load_table
from freshdata.lake.cursors import CURSOR_PROPERTY, read_cursor
from freshdata.lake.orphans import remove_orphans
from freshdata.lake.progress import PROGRESS_PROPERTY, ancestors, compacts, summary_property
from freshdata.lake.scratch import NAMESPACE as SCRATCH
from freshdata.lake.snapshots import SnapshotWriter, remove_snapshots
from freshdata.lake.tags import drop_expired_refs

# So many manifests of about one size are merged into one: each file's entry is rewritten once for each power of it.
FANOUT = 10
ATTEMPTS = 10
STATE_PREFIX = "freshdata."

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retention:
    """How much of a table's past is kept.

    Whatever it says, the newest snapshot with Kafka offsets, the newest with a cursor, and every snapshot with a tag or
    on a branch are kept; a tag that was given an age is dropped when it is older.

    Attributes:
        keep: Number of newest snapshots kept. Snapshots are expired once half as many again have gathered, or one of
            them is too old.
        most_age: A snapshot that can be expired is so old at most: files that only it has take up room.
        young: A snapshot that was the current one less than this ago is kept: its readers may be at work.
        cursor_age: What downstream tables have not read yet is kept, unless it has waited for longer than this: they
            then read the whole table once, instead of making every commit slower for ever.
        orphan_age: Files that nothing refers to are removed once they are older than this.
    """

    keep: int = 10
    most_age: timedelta = timedelta(days=1)
    young: timedelta = timedelta(seconds=30)
    cursor_age: timedelta = timedelta(hours=1)
    orphan_age: timedelta = timedelta(hours=2)


@dataclass(frozen=True)
class Maintained:
    """What maintenance did to a table.

    Attributes:
        table: The table's name.
        expired: Snapshots expired.
        snapshots: Snapshots left.
        merged: Manifests that were merged into fewer.
        manifests: Manifests of the current snapshot.
        orphans: Files removed.
        orphan_bytes: Their size.
        seconds: Time taken.
    """

    table: str
    expired: int
    snapshots: int
    merged: int
    manifests: int
    orphans: int
    orphan_bytes: int
    seconds: float


def maintain(catalog: Catalog, name: str, retention: Retention | None = None, *, orphans: bool = True) -> Maintained:
    """Merge a table's manifests, expire its snapshots and remove its orphan files, as far as there is need.

    Safe beside any number of writers. What loses a race against them is left for the next time.

    Args:
        catalog: The catalog.
        name: Table identifier.
        retention: How much is kept; the default :class:`Retention` when None.
        orphans: Whether to look for orphan files too, which lists the table's folder and reads its manifests.

    Raises:
        LakeError: there is no such table.
    """
    started, kept = time.perf_counter(), retention or Retention()
    table = load_table(catalog, name)
    merged = merge_manifests(table)
    drop_expired_refs(table)
    expired = expire_snapshots(table, followers(catalog, name), kept)
    removed = remove_orphans(catalog, table, kept.orphan_age) if orphans else []
    head = table.current_snapshot()
    return Maintained(
        table=name,
        expired=expired,
        snapshots=len(table.snapshots()),
        merged=merged,
        manifests=len(head.manifests(table.io)) if head else 0,
        orphans=len(removed),
        orphan_bytes=sum(size for _, size in removed),
        seconds=time.perf_counter() - started,
    )


def tables(catalog: Catalog) -> Iterator[str]:
    """The names of all tables but those that last no longer than a run."""
    for identifier in list_tables(catalog):
        if identifier[0] != SCRATCH:
            yield ".".join(identifier)


def followers(catalog: Catalog, name: str) -> dict[int, int]:
    """The snapshots to which downstream tables have followed a table, and when they last wrote, in milliseconds."""
    found: dict[int, int] = {}
    for other in tables(catalog):
        try:
            table = catalog.load_table(other)
        except NoSuchTableError:
            continue  # Dropped since it was listed.
        cursor, head = read_cursor(table), table.current_snapshot()
        if head and cursor and name in cursor.upstream:
            seen = cursor.upstream[name]
            found[seen] = max(found.get(seen, 0), head.timestamp_ms)
    return found


def expire_snapshots(table: Table, followed: dict[int, int], retention: Retention) -> int:
    """Take old snapshots out of a table's metadata, when there are enough of them.

    The current snapshot's ancestors are kept down to the oldest one that is needed, without gaps: a gap would end the
    chain that offsets and cursors are looked up in.

    Args:
        table: The table; refreshed in place.
        followed: What :func:`followers` found.
        retention: How much is kept.

    Returns:
        The number of snapshots expired.
    """
    for _ in range(ATTEMPTS):
        table.refresh()
        expired = expirable(table, followed, retention)
        if not expired:
            return 0
        try:
            remove_snapshots(table, expired)
        except CommitFailedException:
            continue
        return len(expired)
    return 0


def expirable(table: Table, followed: dict[int, int], retention: Retention) -> list[int]:
    """The snapshots that are expired now; none as long as they are too few and too young to be worth it.

    Args:
        table: The table.
        followed: What :func:`followers` found.
        retention: How much is kept.
    """
    now = time.time()
    chain = list(ancestors(table))
    on_main = {snapshot.snapshot_id for snapshot in chain}
    young, held, old = (
        (now - age.total_seconds()) * 1000 for age in (retention.young, retention.cursor_age, retention.most_age)
    )
    # A follower that has just written, with a cursor that has expired, reads everything again. If that takes it longer
    # than the young are kept, its next cursor would have expired too, and so for ever: it is given the longer time.
    if any(seen not in on_main and wrote > held for seen, wrote in followed.items()):
        young = held
    needed = max(retention.keep, _read(chain, followed, young, held))
    for name in (PROGRESS_PROPERTY, CURSOR_PROPERTY):
        newest = next((number for number, snapshot in enumerate(chain) if summary_property(snapshot, name)), -1)
        needed = max(needed, newest + 1)
    kept = {snapshot.snapshot_id for snapshot in chain[:needed]}
    for name, ref in table.refs().items():
        kept.add(ref.snapshot_id)
        if ref.snapshot_ref_type == "branch" and name != MAIN_BRANCH:
            kept |= {snapshot.snapshot_id for snapshot in ancestors(table, of=ref.snapshot_id)}
    found = [
        snapshot
        for snapshot in table.snapshots()
        # What was rolled back is on no branch.
        if snapshot.snapshot_id not in kept and (snapshot.snapshot_id in on_main or snapshot.timestamp_ms < young)
    ]
    worth = 2 * len(found) >= retention.keep or any(snapshot.timestamp_ms < old for snapshot in found)
    return [snapshot.snapshot_id for snapshot in found] if worth else []


def _read(chain: list[Snapshot], followed: dict[int, int], young: float, held: float) -> int:
    """How many of a table's newest snapshots its readers and followers may still need."""
    needed, replaced, news = 0, math.inf, math.inf
    for position, snapshot in enumerate(chain):
        # A snapshot's age is the time since another took its place: a table at rest does not grow old. A follower waits
        # since the first news: a compaction is none, so the cursor of a table at rest may stay before it for ever.
        if replaced > young or (snapshot.snapshot_id in followed and news > held):
            needed = position + 1
        replaced = snapshot.timestamp_ms
        news = news if compacts(snapshot) else replaced
    return needed


def merge_manifests(table: Table) -> int:
    """Merge manifests of about one size, once there are :data:`FANOUT` of them.

    The snapshot it makes changes no rows, and carries the offsets or the cursor of its parent. Readers that follow the
    table by its snapshots see nothing new: the entries keep the snapshots that added them, and those that are kept
    still have their own manifests.

    Args:
        table: The table; refreshed in place.

    Returns:
        The number of manifests that were merged.
    """
    table.refresh()
    groups = mergeable(table)
    if not groups:
        return 0
    writer = SnapshotWriter(table)
    # The slow part is done once. A worker that commits meanwhile only adds a manifest, so only the list is made anew.
    merged = [writer.manifest(group[0].partition_spec_id, _entries(table, group)) for group in groups]
    gone = {manifest.manifest_path for group in groups for manifest in group}
    for _ in range(ATTEMPTS):
        head = table.current_snapshot()
        current = head.manifests(table.io) if head else []
        if not gone <= {manifest.manifest_path for manifest in current}:
            return 0  # Another writer has rewritten one of them, and its files may be others by now.
        try:
            writer.replace(
                merged + [manifest for manifest in current if manifest.manifest_path not in gone], carried_state(table)
            )
        except CommitFailedException:
            table.refresh()
        else:
            return len(gone)
    return 0


def mergeable(table: Table) -> list[list[ManifestFile]]:
    """The manifests of about one size that are merged now, in groups."""
    head = table.current_snapshot()
    full = int(
        table.properties.get(
            TableProperties.MANIFEST_TARGET_SIZE_BYTES, TableProperties.MANIFEST_TARGET_SIZE_BYTES_DEFAULT
        )
    )
    groups: dict[tuple[int, int], list[ManifestFile]] = defaultdict(list)
    for manifest in head.manifests(table.io) if head else []:
        files = (manifest.added_files_count or 0) + (manifest.existing_files_count or 0)
        if manifest.content == ManifestContent.DATA and files and manifest.manifest_length < full:
            groups[manifest.partition_spec_id, int(math.log(files, FANOUT))].append(manifest)
    return [group for group in groups.values() if len(group) >= FANOUT]


def _entries(table: Table, manifests: list[ManifestFile]) -> Iterator[ManifestEntry]:
    for manifest in manifests:
        for entry in manifest.fetch_manifest_entry(table.io):
            yield ManifestEntry.from_args(
                status=ManifestEntryStatus.EXISTING,
                snapshot_id=entry.snapshot_id,
                sequence_number=entry.sequence_number,
                file_sequence_number=entry.file_sequence_number,
                data_file=entry.data_file,
            )


def carried_state(table: Table) -> dict[str, str]:
    """The offsets or the cursor of the newest snapshot that has any, and what else the platform noted there."""
    for snapshot in ancestors(table):
        properties = snapshot.summary.additional_properties if snapshot.summary else {}
        if PROGRESS_PROPERTY in properties or CURSOR_PROPERTY in properties:
            return {name: value for name, value in properties.items() if name.startswith(STATE_PREFIX)}
    return {}
