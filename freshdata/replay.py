"""When a table's offsets and its topic's log part: how it is noticed, what a rebuild would lack, and how to go on."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pyiceberg.table import Table

from freshdata.contracts import Contract
from freshdata.errors import AlreadyRunningError, LakeError, OffsetLostError
from freshdata.lake.catalog import ensure_stream_tables, open_catalog
from freshdata.lake.commits import COMMIT_ID_PROPERTY
from freshdata.lake.progress import (
    PROGRESS_PROPERTY,
    PartitionProgress,
    Progress,
    ancestors,
    read_progress,
    summary_property,
)
from freshdata.lake.replace import append_nothing
from freshdata.replay_topic import TopicReader
from freshdata.services.kafka import cluster_id
from freshdata.settings import Settings

MOST_EXAMPLES = 5


def check_position(table: str, partition: int, offset: int, first: int, end: int) -> None:
    """Refuse to continue where the log has nothing: Kafka's client would wait there, or skip ahead, without a word.

    Args:
        table: Identifier of the table.
        partition: Kafka partition.
        offset: The offset at which the table continues.
        first: The log's first offset.
        end: The offset after the log's last record.

    Raises:
        OffsetLostError: the offset lies outside the log.
    """
    if not first <= offset <= end:
        raise OffsetLostError(table, partition, offset, first, end)


def recorded_progress(table: Table) -> Progress | None:
    """A table's progress; None when it has none, even if it should: a rebuild is the remedy for that."""
    try:
        return read_progress(table)
    except LakeError:
        return None


def missing_keys(
    live: Table, rebuilt: Table, key: tuple[str, ...], until: Mapping[int, int] | None
) -> tuple[int, list[str]]:
    """The keys that the live table has and the rebuilt one lacks.

    Args:
        live: The live table.
        rebuilt: The rebuilt table.
        key: The columns that identify an event.
        until: Kafka partition to the offset up to which the rebuilt table has read; rows from there on are not missed.
            None when the two tables' offsets are not of the same log: then every row counts.

    Returns:
        Their number, and the first of them.
    """
    import duckdb

    columns = ", ".join(f'live."{name}"' for name in key)
    same = " AND ".join(f'live."{name}" IS NOT DISTINCT FROM rebuilt."{name}"' for name in key)
    limits = list((until or {}).items())
    with duckdb.connect() as connection:
        connection.register(
            "live", live.scan(selected_fields=(*key, "_kafka_partition", "_offset")).to_arrow_batch_reader()
        )
        connection.register("rebuilt", rebuilt.scan(selected_fields=key).to_arrow_batch_reader())
        connection.execute("CREATE TEMP TABLE read (_kafka_partition INTEGER, _until BIGINT)")
        if limits:
            connection.executemany("INSERT INTO read VALUES (?, ?)", limits)
        # Contract columns are validated identifiers.
        missing = connection.execute(
            f"SELECT DISTINCT {columns} FROM live LEFT JOIN read USING (_kafka_partition) "  # noqa: S608
            f"ANTI JOIN rebuilt ON {same} WHERE ? OR coalesce(_offset < _until, true) ORDER BY ALL",
            [until is None],
        ).fetchall()
    return len(missing), [", ".join(str(value) for value in row) for row in missing[:MOST_EXAMPLES]]


def keep_rows(
    settings: Settings, contract: Contract, contracts: dict[str, Contract], from_offset: int = 0
) -> dict[int, int]:
    """Keep a stream's rows, and let it continue in a topic that was created anew or has lost records.

    The tables get a snapshot without rows, whose offsets lie at the topic's first record, or at ``from_offset``. The
    keys inside the dedupe window stay known, and so does the watermark.

    Args:
        settings: The instance.
        contract: The stream's contract.
        contracts: All contracts by name.
        from_offset: Offset to continue at; moved into the log where it lies outside.

    Returns:
        Kafka partition to the offset at which the stream continues.

    Raises:
        LakeError: the stream has not consumed anything, its offsets fit the topic, a worker is writing, or the rows are
            changes of a table, which count in the order of their offsets.
    """
    if contract.rules.capture is not None:
        raise LakeError(
            contract.table,
            "its changes count in the order of their offsets, and those of a new topic begin anew.",
            remedy=f"Have its table read whole, `freshdata cdc snapshot {contract.rules.capture.table}`, and make "
            f"Bronze of the new topic: `freshdata replay {contract.name} --allow-missing`.",
        )
    bronze, quarantine = ensure_stream_tables(open_catalog(settings), contract, contracts)
    cluster = cluster_id(settings)
    with TopicReader(settings, contract.rules.topic) as reader:
        bounds = reader.bounds()
    recorded = read_progress(bronze)
    if recorded is None or (recorded.cluster_id == cluster and fits(recorded, bounds)):
        raise LakeError(
            contract.table, "its offsets fit the topic: there is nothing to bridge.", remedy="Just run its worker."
        )
    offsets = {partition: min(max(from_offset, first), end) for partition, (first, end) in sorted(bounds.items())}
    # Bronze last: as long as its offsets are of the former topic, its worker refuses to run.
    for table in (quarantine, bronze):
        if (before := read_progress(table)) is not None:
            _bridge(table, before, Progress(cluster, contract.rules.topic, _marked(before, offsets)))
    return offsets


def fits(recorded: Progress, bounds: Mapping[int, tuple[int, int]]) -> bool:
    """Whether each offset lies in the log, whose first and end offsets are given by partition."""
    return all(
        partition in bounds and bounds[partition][0] <= done.offset <= bounds[partition][1]
        for partition, done in recorded.partitions.items()
    )


def carried_properties(table: Table) -> dict[str, str]:
    """What a worker's newest commit says of the table (progress, watermark), without what names the commit itself."""
    for snapshot in ancestors(table):
        if snapshot.summary is not None and summary_property(snapshot, PROGRESS_PROPERTY):
            found = snapshot.summary.additional_properties
            return {k: v for k, v in found.items() if k.startswith("freshdata.") and k != COMMIT_ID_PROPERTY}
    return {}


@contextmanager
def only_one(settings: Settings, name: str) -> Iterator[None]:
    """Be the only replay into a table.

    Raises:
        AlreadyRunningError: another process replays into it.
    """
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    with (settings.run_dir / f"replay-{name}.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip()
            raise AlreadyRunningError(
                f"A replay into {name}", int(holder) if holder.isdigit() else None, remedy="Wait for it, or stop it."
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _marked(before: Progress, offsets: dict[int, int]) -> dict[int, PartitionProgress]:
    marks = {partition: done.max_event_time for partition, done in before.partitions.items()}
    return {partition: PartitionProgress(offset, marks.get(partition)) for partition, offset in offsets.items()}


def _bridge(table: Table, before: Progress, after: Progress) -> None:
    def refuse_moved() -> None:
        if read_progress(table) != before:
            raise LakeError(".".join(table.name()), "a worker is writing to it.", remedy="Stop it, and try again.")

    append_nothing(table, carried_properties(table) | {PROGRESS_PROPERTY: after.to_json()}, admit=refuse_moved)
