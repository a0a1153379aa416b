"""A stream with a clean topic, the smallest worker there is for it, and what a reader of committed records sees.

Run as a program, this file is that worker: it consumes the stream, commits Bronze and publishes, as the real one does,
with nothing between that the tests do not need.
"""

import json
import time
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition

from freshdata.contracts import load_contracts
from freshdata.lake.catalog import bronze_schema, ensure_stream_tables, open_catalog
from freshdata.lake.commits import commit_batch
from freshdata.lake.files import write_data_files
from freshdata.lake.progress import PartitionProgress, Progress, read_progress
from freshdata.services.kafka import client_config, cluster_id, end_offsets, ensure_topics
from freshdata.settings import load_settings
from stream_workers import clean
from stream_workers.clean import CleanPublisher
from stream_workers.faults import reach

STREAM = "weather"
PARTITIONS = 2
BATCH = 40
START = datetime(2013, 1, 5, tzinfo=UTC)


class Stream:
    """The weather stream of an instance: its events, its Bronze table and what readers see of its clean topic."""

    def __init__(self, settings, name=STREAM):
        self.settings = settings
        self.contracts = load_contracts(settings.contracts_dir)
        self.contract = self.contracts[name]
        self.topic = self.contract.rules.topic
        ensure_topics(settings, [self.contract])
        self.bronze, _ = ensure_stream_tables(open_catalog(settings), self.contract, self.contracts)
        self.cluster = cluster_id(settings)

    def send(self, numbers, **config):
        """Send an event for each number; every seventh comes twice, and the second time adds nothing to Bronze."""
        producer = Producer({**client_config(self.settings), **config})
        for number in numbers:
            at = START + timedelta(minutes=number)
            event = {
                "observation_id": f"EWR-{number:08d}", "tenant_id": "EWR", "event_time": at.isoformat(),
                "weather_date": at.date().isoformat(), "temp": number / 10, "wind_speed": None, "visib": 10.0,
            }  # fmt: skip
            for _ in range(2 if number % 7 == 0 else 1):
                key, value = event["observation_id"].encode(), json.dumps(event).encode()
                producer.produce(
                    self.topic, value, key, partition=number % PARTITIONS, timestamp=int(at.timestamp() * 1000)
                )
        assert producer.flush(30) == 0

    def offsets(self):
        """Bronze's offset of each partition."""
        self.bronze.refresh()
        progress = read_progress(self.bronze)
        return {number: done.offset for number, done in progress.partitions.items()} if progress else {}

    def commit(self, rows, begin, done):
        """Commit one batch to Bronze as a worker does."""
        batch = Progress(self.cluster, self.topic, {number: PartitionProgress(end) for number, end in done.items()})
        commit_batch(self.bronze, write_data_files(self.bronze, rows), begin, batch)

    def stored(self):
        """Bronze's rows of each partition, in offset order, without what is not published."""
        self.bronze.refresh()
        rows = self.bronze.scan().to_arrow().sort_by("_offset").to_pylist()
        found = {number: [] for number in range(PARTITIONS)}
        for row in rows:
            at = int(row["_ingested_at"].timestamp() * 1000)
            plain = {name: value for name, value in row.items() if name not in clean.NOT_PUBLISHED}
            found[row["_kafka_partition"]].append((row["observation_id"].encode(), at, plain))
        return found

    def published(self):
        """What a reader of committed records sees of each partition."""
        found = {number: [] for number in range(PARTITIONS)}
        for number, events in found.items():
            for message in read_committed(self.settings, self.contract.clean_topic, number):
                value = json.loads(message.value())
                value["event_time"] = datetime.fromisoformat(value["event_time"])
                value["weather_date"] = datetime.fromisoformat(value["weather_date"]).date()
                events.append((message.key(), message.timestamp()[1], value))
        return found

    def assert_clean_is_bronze(self, events):
        stored, published = self.stored(), self.published()
        assert sum(len(rows) for rows in stored.values()) == events
        assert published == stored

    def publisher(self):
        return CleanPublisher(self.settings, self.contract, self.bronze)


def read_committed(settings, topic, partition):
    """The committed records of a partition, to its end."""
    config = {"group.id": "test", "isolation.level": "read_committed", "enable.partition.eof": True}
    consumer = Consumer({**client_config(settings), **config, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
    found = []
    deadline = time.monotonic() + 90
    try:
        while time.monotonic() < deadline:
            for message in consumer.consume(1000, 0.2):
                if message.error() is None:
                    found.append(message)
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    return found
    finally:
        consumer.close()
    raise AssertionError(f"the end of {topic} {partition} was not reached: a transaction is still open")


def batch(stream, numbers, begin):
    """Event rows of partition 0, one each offset from ``begin`` on, and where they end."""
    at = START
    rows = [
        {"observation_id": f"X-{number}", "tenant_id": "EWR", "event_time": at, "weather_date": at.date(),
         "_kafka_partition": 0, "_offset": begin + place, "_ingested_at": at, "_late": False,
         "ingestion_date": at.date()}
        for place, number in enumerate(numbers)
    ]  # fmt: skip
    schema = bronze_schema(stream.contract, stream.contracts)
    return pa.Table.from_pylist(rows, schema=schema), begin + len(rows)


def work(stream):
    """Consume to the end of the topic, a batch at a time, as a worker that owns every partition."""
    publisher = stream.publisher()
    begin = stream.offsets()
    publisher.assign(range(PARTITIONS))
    seen = set(stream.bronze.scan(selected_fields=("observation_id",)).to_arrow()["observation_id"].to_pylist())
    consumer = Consumer({**client_config(stream.settings), "group.id": "worker", "enable.auto.commit": False})
    position = {number: begin.get(number, 0) for number in range(PARTITIONS)}
    consumer.assign([TopicPartition(stream.topic, number, offset) for number, offset in position.items()])
    ends = end_offsets(stream.settings, stream.topic)
    while position != ends:
        messages = consumer.consume(BATCH, 1.0)
        if not messages:
            continue
        rows, begun = [], dict(position)
        for message in messages:
            position[message.partition()] = message.offset() + 1
            if message.key() in seen or message.key().decode() in seen:
                continue
            seen.add(message.key().decode())
            rows.append(as_row(message))
        arrow = pa.Table.from_pylist(rows, schema=bronze_schema(stream.contract, stream.contracts))
        # Bronze is sorted for its readers, not by offset.
        arrow = arrow.sort_by([("observation_id", "descending")])
        done = {number: offset for number, offset in position.items() if offset != begun[number]}
        stream.commit(arrow, {number: begun[number] for number in done}, done)
        reach("between-commits")
        publisher.publish(arrow, begun, done)
        publisher.settle()
    while any(publisher.behind().values()):
        publisher.settle()
    publisher.close()
    consumer.close()


def as_row(message):
    event = json.loads(message.value())
    at = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
    return event | {
        "event_time": datetime.fromisoformat(event["event_time"]),
        "weather_date": datetime.fromisoformat(event["weather_date"]).date(),
        "_kafka_partition": message.partition(),
        "_offset": message.offset(),
        "_ingested_at": at,
        "_late": message.offset() % 5 == 0,
        "ingestion_date": at.date(),
    }


if __name__ == "__main__":
    work(Stream(load_settings()))
