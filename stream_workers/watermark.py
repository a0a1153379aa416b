"""A stream's watermark: the event time up to which it is thought complete."""

from datetime import UTC, datetime, timedelta

from pyiceberg.table import Table

from freshdata.contracts.model import StreamRules
from freshdata.lake.progress import PartitionProgress, Progress, ancestors, summary_property

WATERMARK_PROPERTY = "freshdata.watermark"


class StreamWatermark:
    """The lowest watermark of the partitions that are not idle; it never goes backwards.

    A partition's watermark is its newest event time less the allowed lateness. A partition is idle when no valid record
    of it was committed for ``partition_idle_after``; one that never had any holds the stream's watermark back for as
    long, counted from the worker's start. Whether an event is late is decided by its own partition's watermark, never
    by this one.

    Attributes:
        rules: The stream's rules.
        current: The watermark as of the last call of :meth:`advance`, or None before the first.
    """

    def __init__(self, rules: StreamRules, started: float) -> None:
        self.current: datetime | None = None
        self.rules = rules
        # Partition to its number of valid records, and when that was last seen to change.
        self._moved = dict.fromkeys(range(rules.topic_partitions), (0, started))

    def advance(self, progress: Progress, recorded: datetime | None, now: float) -> datetime | None:
        """The watermark after a commit.

        Args:
            progress: The table's progress including the commit.
            recorded: The watermark in the table before the commit: the result is never lower.
            now: Monotonic time in seconds.

        Returns:
            The watermark (UTC), or None while a partition that has no event yet may still have one.
        """
        for number, done in progress.partitions.items():
            valid, _ = self._moved.get(number, (-1, now))
            # Not the offset: a producer that sends nothing but broken records would freeze the watermark.
            if done.accepted + done.duplicates != valid:
                self._moved[number] = (done.accepted + done.duplicates, now)
        idle_after = self.rules.partition_idle_after.total_seconds()
        active = [number for number, (_, moved) in self._moved.items() if now - moved < idle_after]
        parts = [progress.partitions.get(number, PartitionProgress(0)) for number in active]
        marks = [part.max_event_time for part in parts]
        newest = [mark for mark in marks if mark is not None]
        if newest and len(newest) == len(marks):
            watermark = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=min(newest))
            watermark -= self.rules.allowed_lateness
            recorded = max(watermark, recorded) if recorded else watermark
        self.current = recorded
        return recorded

    def skip(self, seconds: float) -> None:
        """Do not count a time in which nothing was read: no partition becomes idle by an outage of the lake."""
        self._moved = {number: (valid, moved + seconds) for number, (valid, moved) in self._moved.items()}


def recorded_watermark(table: Table) -> datetime | None:
    """The watermark in the newest snapshot that carries one (a compaction's carries none), or None."""
    for snapshot in ancestors(table):
        if text := summary_property(snapshot, WATERMARK_PROPERTY):
            return datetime.fromisoformat(text)
    return None
