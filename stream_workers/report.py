"""What a worker says of each commit: its metrics, one line in the log, and a warning where files get too many."""

import logging
import time
from collections.abc import Mapping
from datetime import datetime

import pyarrow as pa
from pyiceberg.table.snapshots import Snapshot

from freshdata.clock import Clock
from freshdata.contracts import Contract
from freshdata.lake.progress import summary_property
from stream_workers.batch import Batch, SchemasWaitError
from stream_workers.metrics import Metrics
from stream_workers.policy import CommitTrigger, Retry

MANY_FILES = 32  # Data files a commit.

logger = logging.getLogger(__name__)


class CommitReporter:
    """Reports the commits of one worker.

    Attributes:
        contract: The stream's contract.
        metrics: The worker's metrics.
        clock: The instance's clock: how fresh events are is measured against it.
    """

    def __init__(self, contract: Contract, metrics: Metrics, clock: Clock) -> None:
        self.contract = contract
        self.metrics = metrics
        self.clock = clock
        self._warned = False

    def committed(
        self,
        batch: Batch,
        trigger: CommitTrigger,
        snapshot: Snapshot | None,
        *,
        reason: str,
        seconds: float,
        retries: int,
        watermark: datetime | None,
        misses: Mapping[tuple[str, str], int],
    ) -> None:
        """Report a commit.

        Args:
            batch: What was committed.
            trigger: What made it due.
            snapshot: The table's snapshot that the commit made.
            reason: Why it was due.
            seconds: Duration of the commit.
            retries: Attempts beyond the first.
            watermark: The stream's watermark by now.
            misses: Lookup and key column to the events committed whose key the lookup does not hold.
        """
        done = batch.done.values()
        files, size = (
            int(summary_property(snapshot, name) or 0) if snapshot else 0
            for name in ("added-data-files", "added-files-size")
        )
        self.metrics.committed(
            done,
            _ingested_at(batch),
            reason=reason,
            seconds=seconds,
            now=self.clock.now().timestamp(),
            files=files,
            size=size,
            retries=retries,
            misses=misses,
        )
        logger.info(
            "commit stream=%s reason=%s seconds=%.3f records=%d accepted=%d duplicates=%d rejected=%d late=%d "
            "misses=%s open_partitions=%d files=%d bytes=%d watermark=%s snapshot=%s offsets=%s",
            self.contract.name,
            reason,
            seconds,
            batch.consumed,
            sum(part.accepted for part in done),
            sum(part.duplicates for part in done),
            sum(part.rejected for part in done),
            sum(part.late for part in done),
            ",".join(f"{lookup}.{key}:{count}" for (lookup, key), count in misses.items()) or 0,
            len(trigger.partitions),
            files,
            size,
            watermark.isoformat() if watermark else None,
            snapshot.snapshot_id if snapshot else None,
            ",".join(f"{number}:{part.offset}" for number, part in sorted(batch.done.items())),
        )
        if not self.contract.rules.tenant_buckets and trigger.tenants > MANY_FILES and not self._warned:
            self._warned = True
            logger.warning(
                "many files stream=%s: one commit made files for %d tenants, and small files make every reader slow. "
                "Set tenantPartition: bucket(%d) in the contract of a new stream; a table keeps the partitioning it "
                "was created with.",
                self.contract.name,
                trigger.tenants,
                MANY_FILES,
            )

    def unread(self, retry: Retry, error: SchemasWaitError) -> None:
        """Report that messages name schemas which the registry does not tell now, and note when to try again.

        Args:
            retry: Its failures so far.
            error: The failure.
        """
        self.metrics.unread()
        delay = retry.failed(error, time.monotonic())
        logger.warning(
            "unread stream=%s partitions=%s attempt=%d retry_in=%.0fs error=%s",
            self.contract.name,
            sorted(error.partitions),
            retry.failures,
            delay,
            retry.problem,
        )

    def refused(self, what: str, retry: Retry, error: Exception) -> None:
        """Report that the lake refused something, and note when to try again.

        Args:
            what: What it refused: a ``commit`` or a ``restore``.
            retry: Its failures so far.
            error: The failure.
        """
        self.metrics.refused()
        delay = retry.failed(error, time.monotonic())
        logger.warning(
            "refused stream=%s what=%s attempt=%d retry_in=%.0fs error=%s",
            self.contract.name,
            what,
            retry.failures,
            delay,
            retry.problem,
        )


def _ingested_at(batch: Batch) -> list[pa.ChunkedArray]:
    return [
        table["_ingested_at"].filter(pa.array(admitted))
        for table, admitted in zip(batch.rows, batch.admitted, strict=True)
    ]
