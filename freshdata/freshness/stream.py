"""A stream's freshness, read from its tables and, when something is late, from Kafka."""

from datetime import datetime

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table

from freshdata.contracts import Contract
from freshdata.errors import LakeError, ServiceError
from freshdata.freshness.arrivals import DataFiles
from freshdata.freshness.judge import Arrival, Freshness, Terms, judge
from freshdata.lake.catalog import load_table
from freshdata.lake.changes import appends_only, new_files
from freshdata.lake.cursors import read_cursor, upstream_heads
from freshdata.lake.progress import PartitionProgress, read_progress
from freshdata.settings import Settings

# Why something is late is worth a short wait.
KAFKA_TIMEOUT = 5.0  # seconds


def stream_freshness(
    settings: Settings,
    catalog: Catalog,
    contract: Contract,
    now: datetime,
    *,
    files: DataFiles | None = None,
    ask_kafka: bool = True,
) -> Freshness:
    """The freshness of a stream's Silver table by its contract.

    Args:
        settings: The instance.
        catalog: Its catalog.
        contract: The stream's contract.
        now: The instance's present.
        files: What is known of the data files from an earlier look; None knows nothing.
        ask_kafka: Whether Kafka may be asked why something is late.

    Raises:
        LakeError: the stream has no tables yet, or its Silver table has no tenant or no event time.
    """
    files = files or DataFiles()
    terms = Terms.of(contract.rules)
    bronze = load_table(catalog, contract.table)
    try:
        silver = catalog.load_table(f"silver.{contract.name}")
    except NoSuchTableError:
        silver = None
    since = now - terms.lookback
    held = files.recent(silver, contract, since) if silver else []
    unseen = _unseen(catalog, bronze, silver, contract, since=since, files=files)
    found = judge(held, terms, now, unseen=unseen)
    causes = [tenant.cause for tenant in found.late] + [day.cause for day in found.days]
    if all(cause == "silver" for cause in causes):
        return found
    unread = _unread(settings, bronze, contract, now) if ask_kafka else None
    return judge(held, terms, now, unseen=unseen, unread=unread)


def _unseen(
    catalog: Catalog, bronze: Table, silver: Table | None, contract: Contract, *, since: datetime, files: DataFiles
) -> list[Arrival]:
    """What Bronze holds that Silver has not taken in, by Silver's cursor: its model may leave out rows on purpose."""
    cursor = read_cursor(silver) if silver else None
    head = upstream_heads(catalog, [contract.table], cursor).get(contract.table)
    after = cursor.upstream.get(contract.table) if cursor else None
    if head is None or head.snapshot_id == after:
        return []
    if after is not None and appends_only(bronze, after):
        return files.of(bronze, contract, new_files(bronze, after, None))
    return files.recent(bronze, contract, since)


def _unread(settings: Settings, bronze: Table, contract: Contract, now: datetime) -> int | None:
    """Records of Kafka partitions that the worker does not keep up with; None when it cannot be told.

    A few unread records are normal. They explain a late tenant only in a partition whose newest event read is itself
    older than the SLA.
    """
    # Kafka's client is needed only when something is late.
    from freshdata.services.kafka import end_offsets

    try:
        ends = end_offsets(settings, contract.rules.topic, timeout=KAFKA_TIMEOUT)
        progress = read_progress(bronze)
    except (LakeError, ServiceError):
        return None
    done = progress.partitions if progress else {}
    edge = (now - contract.rules.freshness).timestamp() * 1_000_000
    unread = 0
    for number, end in ends.items():
        read = done.get(number, PartitionProgress(0))
        if read.max_event_time is None or read.max_event_time < edge:
            unread += max(0, end - read.offset)
    return unread
