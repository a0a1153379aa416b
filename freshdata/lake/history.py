"""What made a table's rows: its commits as their snapshots tell, and the snapshots that a day's live files came with.

PyIceberg and DuckDB write one change as two snapshots in one commit: rows taken away, then rows added. The state
between the two was never there for a reader, so both count as one here.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntryStatus
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Operation, Snapshot
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import DateType, TimestampType, TimestamptzType

from freshdata.errors import LakeError
from freshdata.intervals import day_of
from freshdata.lake.changes import own_entries, partition_of
from freshdata.lake.cursors import (
    COMMIT_PROPERTY,
    CURSOR_PROPERTY,
    DAGSTER_RUN_PROPERTY,
    FINGERPRINT_PROPERTY,
    INTERVAL_PROPERTY,
    MODE_PROPERTY,
    MODEL_PROPERTY,
    RUN_PROPERTY,
)
from freshdata.lake.progress import PROGRESS_PROPERTY, PartitionProgress, Progress, ancestors, summary_property

DAILY = (DateType, TimestampType, TimestamptzType)
OUTCOMES = ("accepted", "duplicates", "rejected", "late")


@dataclass(frozen=True)
class ModelCommit:
    """What the run of a model left in its snapshot.

    Attributes:
        model: The model.
        mode: ``live``, ``partitions``, ``full`` or ``rebuild``.
        fingerprint: Version of the model's code.
        commit: Git commit of the project, ``-dirty`` when its files differed from it; empty when unknown.
        interval: The days recomputed, ``first/last`` ranges joined by commas, or ``all``.
        run: Id of the run.
        dagster_run: Dagster's id of it; empty when Dagster did not start it.
        upstream: Upstream table to the snapshot that the rows account for.
    """

    model: str
    mode: str
    fingerprint: str
    commit: str
    interval: str
    run: str
    dagster_run: str
    upstream: dict[str, int]


@dataclass(frozen=True)
class WorkerCommit:
    """What a stream worker took from Kafka in one commit.

    Attributes:
        offsets: Kafka partition to the first offset and the one after the last; the first is None when the snapshot
            before has expired, or counts another topic's offsets.
        counts: Records by outcome: ``accepted``, ``duplicates``, ``rejected``, and ``late`` among the accepted; None
            when the snapshot before has expired.
    """

    offsets: dict[int, tuple[int | None, int]]
    counts: dict[str, int] | None


@dataclass(frozen=True)
class Entry:
    """One commit of a table.

    Attributes:
        snapshot_id: Its snapshot; of two, the later one.
        at: When it was made.
        operation: ``append``, ``overwrite``, ``delete`` or ``replace`` (files were rewritten, no row changed).
        rows_added: Rows in the data files that it added; of the day's, when a day was asked for.
        rows_removed: Rows in the data files that it took away, and rows it marked as deleted. A corrected row is one
            removed and one added.
        tags: The tags on it.
        model: The model's run that made it, if one did.
        worker: What a stream worker took in with it, if one made it.
    """

    snapshot_id: int
    at: datetime
    operation: str
    rows_added: int
    rows_removed: int
    tags: tuple[str, ...]
    model: ModelCommit | None
    worker: WorkerCommit | None


@dataclass(frozen=True)
class Source:
    """Where live rows came from: known as long as they live, whether or not the snapshot has expired.

    Attributes:
        snapshot_id: The snapshot that added them; of two in one commit, the later one.
        expired: Whether nothing more is known of it.
        files: Data files of it that are still live.
        rows: Rows in them, those marked as deleted since included.
    """

    snapshot_id: int
    expired: bool
    files: int
    rows: int


@dataclass(frozen=True)
class History:
    """A table's past, as far as it is kept.

    Attributes:
        table: The table's name.
        day: The day whose changes these are, or None for all.
        entries: The commits, newest first.
        more: Whether there are older ones beyond the limit.
        expired: Whether the oldest kept snapshot had one before it.
        sources: Where the day's live rows came from, newest first; empty without a day.
        fingerprint: Version of the model's code that the table's rows go by; empty for tables that no model makes.
    """

    table: str
    day: date | None
    entries: tuple[Entry, ...]
    more: bool
    expired: bool
    sources: tuple[Source, ...] = field(default_factory=tuple)
    fingerprint: str = ""


def history(table: Table, *, day: date | None = None, limit: int | None = None) -> History:
    """A table's commits, newest first: those of its current rows, and those that tags keep.

    Args:
        table: The table, refreshed.
        day: Only commits that touched this day's partition, read from manifests.
        limit: Number of commits at most.

    Raises:
        LakeError: a day was asked for, and the table has no daily partitions.
    """
    if day is not None and not any(_daily_field(table, spec_id) for spec_id in table.specs()):
        raise LakeError(
            ".".join(table.name()), "it has no daily partitions.", remedy="Ask for its history without a day."
        )
    found = commits(table)
    entries: list[Entry] = []
    more = False
    for commit in found:
        rows = _summarized(commit) if day is None else _of_day(table, commit, day)
        if rows is None:
            continue
        if more := len(entries) == limit:
            break
        entries.append(_entry(table, commit, *rows))
    fingerprints = (summary_property(snapshot, FINGERPRINT_PROPERTY) for snapshot in ancestors(table))
    return History(
        table=".".join(table.name()),
        day=day,
        entries=tuple(entries),
        more=more,
        expired=any(_has_lost_parent(oldest) for oldest in list(ancestors(table))[-1:]),
        sources=tuple(_sources(table, day, found)) if day else (),
        fingerprint=next(filter(None, fingerprints), ""),
    )


def commits(table: Table) -> list[list[Snapshot]]:
    """The snapshots that led to the current rows and those that tags keep, newest first, one list for each commit.

    What was rolled back is left out. In each list the first snapshot is the state that the commit left.
    """
    chain = list(ancestors(table))
    known = {snapshot.snapshot_id for snapshot in chain}
    tagged = {ref.snapshot_id for ref in table.refs().values() if ref.snapshot_ref_type == "tag"} - known
    kept = [snapshot for snapshot in table.snapshots() if snapshot.snapshot_id in tagged]
    found: list[list[Snapshot]] = []
    for snapshot in sorted(chain + kept, key=lambda each: each.sequence_number or 0, reverse=True):
        if found and _is_half(snapshot, found[-1][-1]):
            found[-1].append(snapshot)
        else:
            found.append([snapshot])
    return found


def _is_half(snapshot: Snapshot, child: Snapshot) -> bool:
    run = summary_property(child, RUN_PROPERTY)
    # A merge of manifests carries its parent's properties on; it is a commit of its own.
    whole = Operation.REPLACE in (_operation(snapshot), _operation(child))
    parent = child.parent_snapshot_id == snapshot.snapshot_id
    return parent and not whole and run is not None and run == summary_property(snapshot, RUN_PROPERTY)


def _operation(snapshot: Snapshot) -> Operation | None:
    return snapshot.summary.operation if snapshot.summary else None


def _has_lost_parent(oldest: Snapshot) -> bool:
    # Expiry may also clear the parent's id: then only the number says that there were others.
    return oldest.parent_snapshot_id is not None or (oldest.sequence_number or 0) > 1


def _entry(table: Table, commit: list[Snapshot], added: int, removed: int) -> Entry:
    newest = commit[0]
    operation = _operation(newest) if len(commit) == 1 else Operation.OVERWRITE
    rewritten = operation == Operation.REPLACE
    return Entry(
        snapshot_id=newest.snapshot_id,
        at=datetime.fromtimestamp(newest.timestamp_ms / 1000, UTC),
        operation=operation.value if operation else "",
        rows_added=added,
        rows_removed=removed,
        tags=tuple(
            sorted(
                name
                for name, ref in table.refs().items()
                if name != MAIN_BRANCH and ref.snapshot_id == newest.snapshot_id
            )
        ),
        model=None if rewritten else _model(newest),
        worker=None if rewritten else _worker(table, newest),
    )


def _summarized(commit: list[Snapshot]) -> tuple[int, int]:
    def total(*names: str) -> int:
        return sum(int(summary_property(snapshot, name) or 0) for snapshot in commit for name in names)

    return total("added-records"), total("deleted-records", "added-position-deletes")


def _of_day(table: Table, commit: list[Snapshot], day: date) -> tuple[int, int] | None:
    """Rows of a day that a commit added and removed; None when it did not touch the day."""
    added = removed = touched = 0
    for snapshot in commit:
        for manifest, entry in own_entries(table, snapshot):
            if _day(table, entry.data_file) != day:
                continue
            touched += 1
            gone = entry.status == ManifestEntryStatus.DELETED
            if manifest.content == ManifestContent.DATA and not gone:
                added += entry.data_file.record_count
            elif manifest.content != ManifestContent.DATA and gone:
                continue  # The rows that a delete file marked went with their data file.
            else:
                removed += entry.data_file.record_count
    return (added, removed) if touched else None


def _sources(table: Table, day: date, found: list[list[Snapshot]]) -> Iterator[Source]:
    head = table.current_snapshot()
    whole = {snapshot.snapshot_id: commit[0].snapshot_id for commit in found for snapshot in commit}
    files: Counter[int] = Counter()
    rows: Counter[int] = Counter()
    order: dict[int, int] = {}
    for manifest in head.manifests(table.io) if head else ():
        if manifest.content != ManifestContent.DATA:
            continue
        for entry in manifest.fetch_manifest_entry(table.io):
            if _day(table, entry.data_file) == day:
                # A writer may leave the id to the manifest.
                own = entry.snapshot_id or manifest.added_snapshot_id or 0
                source = whole.get(own, own)
                files[source] += 1
                rows[source] += entry.data_file.record_count
                order[source] = entry.sequence_number or manifest.sequence_number
    for source in sorted(files, key=lambda each: order[each], reverse=True):
        yield Source(source, table.snapshot_by_id(source) is None, files[source], rows[source])


def _day(table: Table, file: DataFile) -> date | None:
    name = _daily_field(table, file.spec_id)
    return day_of(partition_of(table, file)[name]) if name else None


def _daily_field(table: Table, spec_id: int) -> str | None:
    """The partition field that holds a date or a time."""
    for partition_field in table.specs()[spec_id].fields:
        kind = table.schema().find_type(partition_field.source_id)
        if isinstance(kind, DAILY) and isinstance(partition_field.transform, IdentityTransform):
            return partition_field.name
    return None


def _model(snapshot: Snapshot) -> ModelCommit | None:
    if (model := summary_property(snapshot, MODEL_PROPERTY)) is None:
        return None

    def told(name: str) -> str:
        return summary_property(snapshot, name) or ""

    return ModelCommit(
        model=model,
        mode=told(MODE_PROPERTY),
        fingerprint=told(FINGERPRINT_PROPERTY),
        commit=told(COMMIT_PROPERTY),
        interval=told(INTERVAL_PROPERTY),
        run=told(RUN_PROPERTY),
        dagster_run=told(DAGSTER_RUN_PROPERTY),
        upstream=json.loads(told(CURSOR_PROPERTY) or "{}"),
    )


def _worker(table: Table, snapshot: Snapshot) -> WorkerCommit | None:
    if (text := summary_property(snapshot, PROGRESS_PROPERTY)) is None:
        return None
    done, before = Progress.from_json(text), _progress_before(table, snapshot.snapshot_id)
    comparable = before is not None and before.cluster_id == done.cluster_id
    offsets: dict[int, tuple[int | None, int]] = {}
    counts: Counter[str] = Counter()
    for number, after in done.partitions.items():
        # A partition that was new began where its count says.
        new = PartitionProgress(after.offset - after.consumed)
        earlier = before.partitions.get(number, new) if before else new
        if earlier.offset != after.offset:
            offsets[number] = (earlier.offset if comparable else None, after.offset)
        counts.update({name: getattr(after, name) - getattr(earlier, name) for name in OUTCOMES})
    return WorkerCommit(offsets, dict(counts) if before else None)


def _progress_before(table: Table, snapshot_id: int) -> Progress | None:
    """The progress before a snapshot; an empty one before the table's first, None when it has expired."""
    mine: Progress | None = None
    oldest: Snapshot | None = None
    for oldest in ancestors(table, of=snapshot_id):
        if text := summary_property(oldest, PROGRESS_PROPERTY):
            if mine is not None:
                return Progress.from_json(text)
            mine = Progress.from_json(text)
    if mine is None or oldest is None or _has_lost_parent(oldest):
        return None
    return Progress(mine.cluster_id, mine.topic)
