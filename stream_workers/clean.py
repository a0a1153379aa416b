"""The Silver stream: accepted, deduplicated and enriched events, published to ``<topic>.clean`` exactly once.

Bronze is committed first, then its rows are published, source partition p to clean partition p. Two systems cannot
commit as one, so the second one remembers how far it is: each Kafka transaction holds the rows *and* the mark
"published up to offset N of the source partition", as the committed offset of the group ``freshdata-<topic>.clean``.
Wherever a worker dies, the next one compares the mark with Bronze and publishes exactly the rows between the two.

Each partition has a producer whose transactional id names the partition: opening it fences the producer of a worker
that was presumed dead, and ends its transaction, before the mark is read. So every failure has one remedy, an
ambiguous commit's too: drop the producer, open another, read the mark, publish what Bronze has beyond it.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from pyiceberg.conversions import from_bytes
from pyiceberg.table import Table
from pyiceberg.types import LongType

from freshdata.contracts import Contract
from freshdata.lake.progress import read_progress
from freshdata.services.kafka import client_config, ensure_topics
from freshdata.settings import Settings
from stream_workers.clean_json import encode_json
from stream_workers.faults import reach

# Where the event came from is Bronze's business, but for its offset: the last event tells how far the topic is.
NOT_PUBLISHED = ("_kafka_partition", "_ingested_at", "ingestion_date", "ingestion_hour")
TIMEOUT = 7.0  # Seconds. What failed is looked up and tried again; a stop must not wait for a broker that hangs.
RETRY_SECONDS = 1.0
CATCH_UP_SECONDS = 1.0
CATCH_UP_OFFSETS = 100_000
ENCODED_ROWS = 20_000
ENCODED_BYTES = 32 * 1024 * 1024
THREADS = 8
MESSAGE_TOO_LARGE_FOR_NOBODY = 1_000_000_000  # librdkafka's highest: the topic's own limit decides.
PRODUCER_CONFIG = {
    "compression.type": "lz4",
    "linger.ms": 20,
    "message.max.bytes": MESSAGE_TOO_LARGE_FOR_NOBODY,
    # An open transaction holds back every reader of the partition: this is how long a crash may do so at most.
    "transaction.timeout.ms": 60_000,
}

logger = logging.getLogger(__name__)


def clean_group(contract: Contract) -> str:
    """Name of the consumer group whose offsets on the source topic say how far the clean topic is."""
    return f"freshdata-{contract.clean_topic}"


@dataclass
class _Lane:
    """One partition's way into the clean topic.

    Attributes:
        partition: The partition, of the source and of the clean topic.
        producer: The fencing producer; None after a failure, until it is opened again.
        mark: Source offset up to which the clean topic is complete.
        end: Source offset up to which Bronze is known to be complete.
        retry_at: Not to be opened again before this time (monotonic, in seconds).
    """

    partition: int
    producer: Any = None
    mark: int = 0
    end: int = 0
    retry_at: float = 0.0

    @property
    def behind(self) -> bool:
        return self.producer is None or self.mark < self.end


class CleanPublisher:
    """Publishes a stream's committed Bronze rows to its clean topic, each once and in order.

    Failures, Kafka's and the lake's, never reach the caller: Bronze goes on, the partition is behind, and it is caught
    up from Bronze by a later :meth:`publish` or :meth:`settle`. Not thread-safe; called by the thread that commits
    Bronze.
    """

    def __init__(self, settings: Settings, contract: Contract, bronze: Table) -> None:
        """Create the clean topic, with as many partitions as the source has.

        Args:
            settings: The instance.
            contract: A stream's contract.
            bronze: The stream's Bronze table; refreshed in place.

        Raises:
            ServiceError: Kafka does not answer, or the topic has another number of partitions.
        """
        self.topic = contract.clean_topic
        self.source = contract.rules.topic
        self.key = contract.rules.dedupe_key[0]
        self.bronze = bronze
        self.from_now = contract.rules.publish_clean_from == "now"
        self.client = client_config(settings)
        _ensure_topic(settings, contract)
        self.lanes: dict[int, _Lane] = {}
        self.consumer = Consumer(
            {**self.client, "group.id": clean_group(contract), "enable.auto.commit": False}, logger=logger
        )
        self.group = self.consumer.consumer_group_metadata()
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="clean")

    def assign(self, partitions: Collection[int]) -> None:
        """Take over partitions: fence their former publishers, and publish what they left unpublished.

        A long gap is published in part, the rest by :meth:`settle`.
        """
        for partition in partitions:
            self.lanes[partition] = _Lane(partition)
        self._catch_up([self.lanes[partition] for partition in partitions])

    def publish(self, rows: pa.Table, begin: dict[int, int], done: dict[int, int]) -> None:
        """Publish the rows of a batch that Bronze has committed.

        Args:
            rows: The batch's accepted rows with Bronze's columns, in any order.
            begin: Partition to the source offset at which the batch began. Where the clean topic is not that far (a
                failure, or another worker's commit came between), the batch is published from Bronze, after the gap.
            done: Partition to the source offset at which the batch ended.
        """
        due = [self.lanes.setdefault(partition, _Lane(partition)) for partition in done]
        ready = [lane for lane in due if lane.producer is not None and lane.mark >= begin[lane.partition]]
        for lane in due:
            lane.end = max(lane.end, done[lane.partition])
        self._each(ready, lambda lane: self._send(lane, rows, done[lane.partition]))
        self._catch_up([lane for lane in due if lane not in ready])

    def settle(self) -> None:
        """Catch up partitions that are behind, for a bounded time; to be called after each poll, cheap when none is.

        A partition whose producer was fenced is taken back here: a worker that has really lost it was told so by the
        poll and has called :meth:`revoke`, and one that has not must not leave its rows unpublished.
        """
        now = time.monotonic()
        self._catch_up([lane for lane in self.lanes.values() if lane.behind and lane.retry_at <= now])

    def behind(self) -> dict[int, int]:
        """How many source offsets the clean topic is behind Bronze, by partition (a metric)."""
        return {number: max(lane.end - lane.mark, 0) for number, lane in self.lanes.items()}

    def revoke(self, partitions: Collection[int]) -> None:
        """Give partitions up; what is not published yet is left to their next owner."""
        for partition in partitions:
            self.lanes.pop(partition, None)

    def close(self) -> None:
        """Give everything up."""
        self.lanes.clear()
        self.pool.shutdown()
        self.consumer.close()

    def _catch_up(self, lanes: list[_Lane]) -> None:
        if not lanes:
            return
        deadline = time.monotonic() + CATCH_UP_SECONDS

        def publish_missing(lane: _Lane) -> None:
            for rows, upto in self._missing(lane):
                self._send(lane, rows, upto)
                if time.monotonic() > deadline:
                    break

        # Fenced first, then looked at Bronze: whatever a zombie commits later, its successor's next commit finds out.
        self._each([lane for lane in lanes if lane.producer is None], self._open)
        opened = [lane for lane in lanes if lane.producer is not None]
        try:
            self.bronze.refresh()
            progress = read_progress(self.bronze)
        except Exception as error:  # noqa: BLE001 - whatever the catalog's client raises: it is asked again later.
            for lane in opened:
                self._failed(lane, error)
            return
        for lane in opened:
            done = progress.partitions.get(lane.partition) if progress else None
            lane.end = done.offset if done else 0
        self._each(opened, publish_missing)

    def _each(self, lanes: list[_Lane], work: Callable[[_Lane], None]) -> None:
        def attempt(lane: _Lane) -> None:
            try:
                work(lane)
            except Exception as error:  # noqa: BLE001 - one partition's trouble is not the others', nor Bronze's.
                self._failed(lane, error)

        # A commit waits for the broker several times: the partitions wait together.
        list(self.pool.map(attempt, lanes))

    def _failed(self, lane: _Lane, error: Exception) -> None:
        # Whatever Kafka answered, only a new producer's look at the mark tells what happened.
        lane.producer = None
        lane.retry_at = time.monotonic() + RETRY_SECONDS
        logger.warning(
            "unpublished topic=%s partition=%d from=%d error=%s", self.topic, lane.partition, lane.mark, error
        )

    def _open(self, lane: _Lane) -> None:
        config = {**self.client, **PRODUCER_CONFIG, "transactional.id": f"freshdata-{self.topic}-{lane.partition}"}
        producer = Producer(config, logger=logger)
        producer.init_transactions(TIMEOUT)
        [stored] = self.consumer.committed([TopicPartition(self.source, lane.partition)], TIMEOUT)
        if stored.error is not None:
            raise KafkaException(stored.error)
        lane.mark = stored.offset if stored.offset >= 0 else self._first_mark(lane.partition)
        lane.producer = producer
        if stored.offset < 0:
            self._send(lane, self.bronze.schema().as_arrow().empty_table(), lane.mark)

    def _first_mark(self, partition: int) -> int:
        """Where to begin without a mark: the first time, or when Kafka forgot it.

        Kafka drops the offsets of a group without members a week after the last commit (``offsets.retention.minutes``);
        taken for a first start, that would publish all of Bronze again.
        """
        last, published_before = self._last_published(partition)
        if last is not None:
            return last + 1
        if published_before:
            logger.warning(
                "topic=%s partition=%d has lost its events and its mark, goes on from now", self.topic, partition
            )
        self.bronze.refresh()
        progress = read_progress(self.bronze) if published_before or self.from_now else None
        done = progress.partitions.get(partition) if progress else None
        return done.offset if done else 0

    def _last_published(self, partition: int) -> tuple[int | None, bool]:
        """Source offset of the newest event in the clean partition, and whether the partition was ever written to."""
        config = {"group.id": f"freshdata-{self.topic}", "enable.auto.commit": False, "enable.partition.eof": True}
        reader = Consumer({**self.client, **config}, logger=logger)
        try:
            low, high = reader.get_watermark_offsets(TopicPartition(self.topic, partition), TIMEOUT)
            # Markers and aborted transactions take up offsets too: look further back until an event is found.
            start, step = high, 64
            while start > low:
                start, step = max(low, high - step), step * 16
                reader.assign([TopicPartition(self.topic, partition, start)])
                if (value := _last_value(reader)) is not None:
                    return int(msgspec.json.decode(value)["_offset"]), True
            return None, high > 0
        finally:
            reader.close()

    def _missing(self, lane: _Lane) -> Iterator[tuple[pa.Table, int]]:
        """Bronze's rows from the mark on, in pieces of bounded size, each with the offset it is complete up to."""
        mine = f"_kafka_partition = {lane.partition} and _offset < {lane.end}"
        mark = lane.mark
        if mark < lane.end:
            # A partition's first offsets are gone when Kafka deleted them before Bronze was created: skip to the rows.
            tasks = self.bronze.scan(f"{mine} and _offset >= {mark}").plan_files()
            field = self.bronze.schema().find_field("_offset").field_id
            lowest = [from_bytes(LongType(), (task.file.lower_bounds or {}).get(field, bytes(8))) for task in tasks]
            mark = max(mark, int(min(lowest, default=lane.end)))
            if mark == lane.end:
                yield self.bronze.schema().as_arrow().empty_table(), lane.end
        while mark < lane.end:
            upto = min(mark + CATCH_UP_OFFSETS, lane.end)
            # Our own numbers: nothing here comes from an event.
            yield self.bronze.scan(f"{mine} and _offset >= {mark} and _offset < {upto}").to_arrow(), upto
            mark = upto

    def _send(self, lane: _Lane, rows: pa.Table, upto: int) -> None:
        """Publish the partition's rows beyond the mark, and move the mark, in one transaction."""
        producer = lane.producer
        # Below the mark lies what Bronze ingested again, after it was rolled back: readers have it already.
        mine = pc.and_(pc.equal(rows["_kafka_partition"], lane.partition), pc.greater_equal(rows["_offset"], lane.mark))
        ordered = rows.filter(mine).sort_by("_offset")
        upto = max(lane.mark, upto)
        producer.begin_transaction()
        for piece in _pieces(ordered):
            self._produce(producer, lane.partition, piece)
        producer.send_offsets_to_transaction([TopicPartition(self.source, lane.partition, upto)], self.group, TIMEOUT)
        reach("in-clean-transaction")
        producer.commit_transaction(TIMEOUT)
        reach("after-clean-commit")
        lane.mark = upto

    def _produce(self, producer: Producer, partition: int, rows: pa.Table) -> None:
        keys = rows[self.key].cast(pa.string()).cast(pa.binary()).to_pylist()
        times = pc.divide(rows["_ingested_at"].cast(pa.int64()), 1000).to_pylist()
        values = encode_json(rows.drop_columns([name for name in NOT_PUBLISHED if name in rows.column_names]))
        produce, topic = producer.produce, self.topic
        for key, value, at in zip(keys, values, times, strict=True):
            while True:
                try:
                    produce(topic, value, key, partition, timestamp=at)
                    break
                except BufferError:
                    # The queue is full: the broker sets the pace.
                    producer.poll(0.1)
        producer.poll(0)


def _pieces(rows: pa.Table) -> Iterator[pa.Table]:
    """Slices that are small enough to be encoded at once."""
    size = min(ENCODED_ROWS, max(1, rows.num_rows * ENCODED_BYTES // max(rows.nbytes, 1)))
    for start in range(0, rows.num_rows, size):
        yield rows.slice(start, size)


def _last_value(reader: Consumer) -> bytes | None:
    """The value of the last committed event from the reader's position to the partition's end."""
    last: bytes | None = None
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        for message in reader.consume(10_000, 0.2):
            if (error := message.error()) is None:
                last = message.value()
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - confluent's name of a public code.
                return last
            else:
                raise KafkaException(error)
    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001 - confluent's name of a public code.


def _ensure_topic(settings: Settings, contract: Contract) -> None:
    """Create the clean topic, and let it take every event that the source topic takes."""
    topic, rules = contract.clean_topic, contract.rules
    ensure_topics(settings, [replace(contract, stream=replace(rules, topic=topic))])
    admin = AdminClient({**client_config(settings), "log_level": "0"})
    limits: list[int] = []
    for name in (rules.topic, topic):
        [answer] = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name)]).values()
        limits.append(int(str(answer.result(TIMEOUT)["max.message.bytes"].value)))
    if limits[1] < 2 * limits[0]:
        # An event grows by its lookup columns; one that no longer fits would hold up its partition for ever.
        wider = ConfigEntry("max.message.bytes", str(2 * limits[0]), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[wider])
        [altered] = admin.incremental_alter_configs([resource]).values()
        try:
            altered.result(TIMEOUT)
        except KafkaException as error:
            logger.warning("topic=%s keeps its max.message.bytes=%d: %s", topic, limits[1], error.args[0])
