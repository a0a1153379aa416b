"""How far a table has consumed its topic: a map kept in the table's own snapshots, next to the rows it accounts for."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot

from freshdata.errors import LakeError

PROGRESS_PROPERTY = "freshdata.progress"


@dataclass(frozen=True)
class PartitionProgress:
    """What a table has taken from one Kafka partition since offset 0.

    ``accepted + duplicates + rejected`` is the number of records consumed.

    Attributes:
        offset: Next offset to read.
        max_event_time: Newest event time of a valid record, in microseconds since the epoch, or None before the
            first; the watermark is this less the allowed lateness.
        consumed: Records read.
        accepted: Records written to Bronze.
        duplicates: Records left out because their key was in Bronze already.
        rejected: Records that broke the contract.
        late: Accepted records that came behind the watermark.
    """

    offset: int
    max_event_time: int | None = None
    consumed: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    late: int = 0

    def after(self, batch: "PartitionProgress") -> "PartitionProgress":
        """This progress plus a batch's: the higher offset and event time, the sums of the counts."""
        marks = [mark for mark in (self.max_event_time, batch.max_event_time) if mark is not None]
        return PartitionProgress(
            offset=max(self.offset, batch.offset),
            max_event_time=max(marks, default=None),
            consumed=self.consumed + batch.consumed,
            accepted=self.accepted + batch.accepted,
            duplicates=self.duplicates + batch.duplicates,
            rejected=self.rejected + batch.rejected,
            late=self.late + batch.late,
        )


@dataclass(frozen=True)
class Progress:
    """A table's complete progress over a topic.

    Attributes:
        cluster_id: Id of the Kafka cluster the offsets belong to.
        topic: The topic.
        partitions: Progress by Kafka partition.
    """

    cluster_id: str
    topic: str
    partitions: dict[int, PartitionProgress] = field(default_factory=dict)

    def merged(self, batch: dict[int, PartitionProgress]) -> "Progress":
        """This progress plus a batch's; offsets and event times never go backwards."""
        merged = self.partitions | {
            partition: self.partitions.get(partition, PartitionProgress(0)).after(done)
            for partition, done in batch.items()
        }
        return Progress(self.cluster_id, self.topic, merged)

    def total(self) -> PartitionProgress:
        """The sums over all partitions; the event time is the lowest of theirs, the offset means nothing."""
        total = PartitionProgress(0)
        for done in self.partitions.values():
            total = total.after(done)
        marks = [done.max_event_time for done in self.partitions.values() if done.max_event_time is not None]
        return PartitionProgress(
            total.offset,
            min(marks, default=None),
            total.consumed,
            total.accepted,
            total.duplicates,
            total.rejected,
            total.late,
        )

    def to_json(self) -> str:
        """The form kept in a snapshot summary."""
        return json.dumps(
            {
                "cluster": self.cluster_id,
                "topic": self.topic,
                "partitions": {str(number): vars(done) for number, done in sorted(self.partitions.items())},
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> "Progress":
        """Read what :meth:`to_json` wrote."""
        content = json.loads(text)
        partitions = {int(number): PartitionProgress(**done) for number, done in content["partitions"].items()}
        return cls(content["cluster"], content["topic"], partitions)


def ancestors(table: Table, *, of: int | None = None) -> Iterator[Snapshot]:
    """A snapshot and its ancestors, newest first; from the table's current one when ``of`` is None."""
    current = table.current_snapshot() if of is None else table.snapshot_by_id(of)
    while current is not None:
        yield current
        current = table.snapshot_by_id(current.parent_snapshot_id) if current.parent_snapshot_id is not None else None


def summary_property(snapshot: Snapshot, name: str) -> str | None:
    """A property of a snapshot's summary, or None."""
    return snapshot.summary.additional_properties.get(name) if snapshot.summary else None


def compacts(snapshot: Snapshot) -> bool:
    """Whether a snapshot only moved rows between files, or entries between manifests: no row is another for it."""
    return snapshot.summary is not None and snapshot.summary.operation is Operation.REPLACE


def standing(table: Table, seen: int | None) -> Snapshot | None:
    """The snapshot that was seen of a table while it has only been compacted since, or else its current one.

    Args:
        table: The table.
        seen: The snapshot's id; None when none was seen.
    """
    for snapshot in ancestors(table):
        if snapshot.snapshot_id == seen:
            return snapshot
        if not compacts(snapshot):
            break
    return table.current_snapshot()


def read_progress(table: Table) -> Progress | None:
    """The progress in the newest snapshot that has one: other writers' snapshots (a compaction) carry none.

    Returns:
        The progress, or None when the table has never been committed to.

    Raises:
        LakeError: the table has snapshots, but none that carries its progress is left.
    """
    for snapshot in ancestors(table):
        if text := summary_property(snapshot, PROGRESS_PROPERTY):
            return Progress.from_json(text)
    if table.current_snapshot() is None:
        return None
    raise LakeError(
        ".".join(table.name()),
        "no snapshot with Kafka offsets is left; continuing would repeat or lose events.",
        remedy="Roll the table back to a snapshot that has them, or rebuild it from the topic's first offset.",
    )
