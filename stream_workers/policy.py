"""When a worker commits what it holds: large commits under load, early ones when there is little, few when idle.

And when it tries again what the lake refused.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.exceptions import NoSuchTableError, RESTError
from pyiceberg.transforms import BucketTransform
from pyiceberg.types import StringType
from sqlalchemy.exc import SQLAlchemyError

from freshdata.contracts.model import StreamRules
from freshdata.errors import LakeError
from stream_workers.batch import Batch, Message

FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 30.0
# What a catalog or a warehouse that is down, slow or full raises; requests' errors are OSErrors, and a table is missing
# while another takes its place. Anything else is a mistake in this program, which no waiting mends.
LAKE_DOWN = (LakeError, OSError, RESTError, SQLAlchemyError, NoSuchTableError)
Reason = Literal["rows", "bytes", "partitions", "age"]


class CommitTrigger:
    """Watches the open batch fill, and says when it is to be committed.

    Rows, bytes and open partitions are hard limits. The age limit adapts:

    - A commit that fills its files (``min_file_rows`` for each open partition) may be ``max_age`` old.
    - Small commits that follow one another wait twice as long each time, up to ``max_idle_age``: a trickle of events
      makes one commit in that time. After a silence of that length the next event waits ``max_age`` again.
    - While the worker works off a backlog (full polls of events older than ``max_age``), commits fill up to the hard
      limits, for at most ``max_idle_age``: their events are old already, and fewer, larger commits end it sooner.

    Attributes:
        rows: Bronze rows of the open batch, duplicates left out.
        bytes: Bytes that its decoded rows and its rejected records take in memory.
        partitions: Its table partitions: ingestion day or hour, and tenant or tenant bucket.
    """

    def __init__(self, rules: StreamRules) -> None:
        self.rules = rules
        self.policy = rules.commit
        self.rows = 0
        self.bytes = 0
        self.partitions: set[tuple[Any, Any]] = set()
        self._opened: float | None = None
        self._seen = (0, 0)
        self._small_age = self._max_age = self.policy.max_age.total_seconds()
        self._idle_age = self.policy.max_idle_age.total_seconds()
        self._last_commit = -self._idle_age

    def taken(self, batch: Batch, now: float) -> int:
        """Note what has been added to the open batch since the last call.

        Args:
            batch: The open batch.
            now: Monotonic time in seconds.

        Returns:
            The bytes that were added.
        """
        if self._opened is None:
            self._opened = now
            if now - self._last_commit > self._idle_age:
                self._small_age = self._max_age
        rows, rejected = self._seen
        added: int = sum(table.nbytes for table in [*batch.rows[rows:], *batch.rejected[rejected:]])
        for table, admitted in zip(batch.rows[rows:], batch.admitted[rows:], strict=True):
            self.rows += int(admitted.sum())
            self.partitions.update(table_partitions(table, self.rules))
        self.bytes += added
        self._seen = len(batch.rows), len(batch.rejected)
        return added

    def due(self, now: float, *, behind: bool = False) -> Reason | None:
        """Which limit the open batch has reached, or None.

        Args:
            now: Monotonic time in seconds.
            behind: Whether the worker works off a backlog.
        """
        if self._opened is None:
            return None
        if self.rows >= self.policy.max_rows:
            return "rows"
        if self.bytes >= self.policy.max_bytes:
            return "bytes"
        if len(self.partitions) >= self.policy.max_open_partitions:
            return "partitions"
        small_age = self._small_age if self.small else self._max_age
        return "age" if now - self._opened >= (self._idle_age if behind else small_age) else None

    def is_backlog(self, messages: Sequence[Message], now: datetime) -> bool:
        """Whether messages that filled a poll come from a backlog, and are not just many.

        At a high rate each poll is full. By that alone every commit would fill up to the hard limits, and its events,
        which are new, would wait for it.

        Args:
            messages: The poll's messages.
            now: The present time.
        """
        newest = max((message.timestamp()[1] for message in messages[-1:]), default=0)
        return now.timestamp() - newest / 1000 > self._max_age

    @property
    def small(self) -> bool:
        """Whether a commit of the open batch would leave its files nearly empty."""
        return self.rows < self.policy.min_file_rows * max(len(self.partitions), 1)

    @property
    def tenants(self) -> int:
        """Number of tenants (or tenant buckets) in the open batch."""
        return len({tenant for _, tenant in self.partitions})

    def committed(self, now: float) -> None:
        """The open batch was committed: the next one begins."""
        self._small_age = min(self._small_age * 2, self._idle_age) if self.small else self._max_age
        self._last_commit = now
        self.dropped()

    def dropped(self) -> None:
        """The open batch was given up: the next one begins."""
        self.rows = self.bytes = 0
        self.partitions.clear()
        self._opened = None
        self._seen = (0, 0)


def table_partitions(rows: pa.Table, rules: StreamRules) -> Iterator[tuple[Any, Any]]:
    """The partitions that Bronze rows lie in: ingestion day or hour, and tenant or tenant bucket.

    Computed from the distinct values of the table, never row by row.
    """
    time = "ingestion_hour" if rules.granularity == "hour" else "ingestion_date"
    moments = pc.unique(rows[time])
    for moment in moments:
        # Nearly always one: what is ingested at once has one day and hour.
        mine = rows if len(moments) == 1 else rows.filter(pc.field(time) == moment)
        tenants = mine[rules.tenant_field]
        distinct = pc.unique(tenants)
        if rules.tenant_buckets:
            # The same function the writer partitions with; what it is told of the source's type it does not use.
            distinct = BucketTransform(rules.tenant_buckets).pyarrow_transform(StringType())(distinct)
        for tenant in distinct.to_pylist():
            yield moment.value, tenant


class Retry:
    """When to try again what failed: after a pause that doubles with each failure, up to half a minute.

    Attributes:
        problem: The last failure, in one line; empty when there is none.
        failures: Their number since the last success.
        since: When the failures began, in monotonic seconds.
    """

    def __init__(self) -> None:
        self.problem = ""
        self.failures = 0
        self.since = 0.0
        self._delay = FIRST_DELAY_SECONDS
        self._next = 0.0

    def failed(self, error: Exception, now: float) -> float:
        """Note a failure; returns the seconds until the next attempt."""
        if not self.problem:
            self.since = now
        delay, self._delay = self._delay, min(self._delay * 2, LONGEST_DELAY_SECONDS)
        # A database's errors go on with the statement and its parameters, over many lines.
        self.problem = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        self.failures += 1
        self._next = now + delay
        return delay

    def may_try(self, now: float) -> bool:
        """Whether the next attempt is due."""
        return now >= self._next

    def succeeded(self) -> None:
        """Forget the failures."""
        self.problem, self.failures, self._delay, self._next = "", 0, FIRST_DELAY_SECONDS, 0.0
