"""The live aggregates example, run as a program on a real broker: the hours it closes, and what it leaves out."""

import json
import signal
import subprocess
import sys
from collections import defaultdict
from datetime import datetime, timedelta
from statistics import fmean

import pyarrow as pa
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from freshdata.lake.catalog import bronze_schema
from freshdata.services.kafka import client_config
from freshdata.settings import PROJECT
from tests.clean import Stream, read_committed
from tests.streams import flight_event, wait_for

pytestmark = pytest.mark.integration

MIDNIGHT = datetime.fromisoformat("2013-01-05T00:00:00+00:00")
ORIGINS = ("EWR", "JFK", "LGA")
PARTITIONS = 4


class Flights(Stream):
    """The flight stream, published as a worker publishes it."""

    def __init__(self, settings):
        super().__init__(settings, "flight_events")
        self.clean = self.publisher()
        self.clean.assign(range(PARTITIONS))
        self.position = dict.fromkeys(range(PARTITIONS), 0)
        self.sent = 0

    def publish(self, events):
        """Commit (hour, origin, delay) events to Bronze and publish them, spread over the partitions."""
        begin, rows = dict(self.position), []
        for hour, origin, delay, *kind in events:
            at = MIDNIGHT + timedelta(hours=hour)
            event = flight_event(self.sent, origin=origin, dep_delay=delay, event_type=(kind or ["departed"])[0])
            partition = self.sent % PARTITIONS
            place = {"_kafka_partition": partition, "_offset": self.position[partition], "_late": False}
            times = {"event_time": at, "scheduled_departure": at, "_ingested_at": at}
            rows.append(event | place | times | {"flight_date": at.date(), "ingestion_date": at.date()})
            self.position[partition] += 1
            self.sent += 1
        arrow = pa.Table.from_pylist(rows, schema=bronze_schema(self.contract, self.contracts))
        self.commit(arrow, begin if self.offsets() else {}, self.position)
        self.clean.publish(arrow, begin, self.position)
        assert not any(self.clean.behind().values())

    def abort(self, events):
        """Leave events of an aborted transaction in the topic, as a killed worker does."""
        producer = Producer({**client_config(self.settings), "transactional.id": "killed"})
        producer.init_transactions(30)
        producer.begin_transaction()
        for hour, origin, delay in events:
            at = (MIDNIGHT + timedelta(hours=hour)).isoformat()
            event = flight_event(0, origin=origin, dep_delay=delay, event_time=at)
            producer.produce(self.contract.clean_topic, json.dumps(event), b"x", 0)
        producer.flush(30)
        producer.abort_transaction(30)

    def closed(self):
        """The hours the example has published, by (hour, origin)."""
        topic = f"{self.topic}.by_origin_hour"
        hours = {}
        for partition in range(PARTITIONS):
            for message in read_committed(self.settings, topic, partition):
                value = json.loads(message.value())
                hour = (datetime.fromisoformat(value["hour"]) - MIDNIGHT) / timedelta(hours=1)
                assert message.key().decode() == value["origin"]
                assert (hour, value["origin"]) not in hours, "an hour was closed twice"
                hours[hour, value["origin"]] = (value["departures"], value["mean_delay"])
        return hours

    def read(self):
        """Whether the example has read, and committed, every event of the clean topic."""
        topic = self.contract.clean_topic
        last = {p: read_committed(self.settings, topic, p)[-1].offset() for p in range(PARTITIONS)}
        consumer = Consumer({**client_config(self.settings), "group.id": f"{self.topic}.by_origin_hour"})
        try:
            stored = consumer.committed([TopicPartition(topic, partition) for partition in last], 30)
            return all(done.offset > last[done.partition] for done in stored)
        finally:
            consumer.close()


def expected(*groups):
    delays = defaultdict(list)
    for hour, origin, delay, *kind in [event for group in groups for event in group]:
        if not kind:
            delays[float(int(hour)), origin].append(delay)
    return {window: (len(values), pytest.approx(fmean(values))) for window, values in delays.items()}


def test_hours_close_with_the_right_values_and_late_events_are_counted(streaming, environment):
    flights = Flights(streaming)
    early = [(n * 2.9 / 30, ORIGINS[n % 3], n * 7 % 40 - 5) for n in range(30)]
    arrivals = [(1.5, "EWR", None, "arrived")] * 4
    in_time = [(5.25, origin, 100) for origin in ORIGINS]
    # Six hours are allowed: at half past nine, the hours before three o'clock have closed, and no other.
    closing = [(9.5, origin, 0) for origin in ORIGINS]
    too_late = [(1.25, "EWR", 1000), (1.75, "EWR", 1000), (2.5, "JFK", 1000)]
    not_too_late = [(5.75, origin, 50) for origin in ORIGINS]
    last = [(20.0, origin, 0) for origin in ORIGINS]

    flights.publish(early + arrivals)
    flights.abort([(1.5, "EWR", 3000)] * 3 + [(30.0, "EWR", 0)])
    program = [sys.executable, PROJECT / "examples" / "live_aggregates.py", "--from-beginning"]
    log = streaming.home / "example.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            program, env=environment(streaming), stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        wait_for(lambda: process.poll() is not None or flights.read(), "reading the first events", log)
        flights.publish(in_time + closing)
        first = expected(early)
        wait_for(lambda: process.poll() is not None or len(flights.closed()) >= len(first), "closing", log)
        assert flights.closed() == first
        flights.publish(too_late + not_too_late)
        wait_for(lambda: process.poll() is not None or flights.read(), "reading the late events", log)
        flights.publish(last)
        everything = expected(early, in_time, closing, not_too_late)
        wait_for(lambda: process.poll() is not None or len(flights.closed()) >= len(everything), "closing", log)
        assert flights.closed() == everything
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(30)
        flights.clean.close()
    lines = [json.loads(line) for line in output.splitlines()]
    assert lines[-1] == {"late": {"EWR": 2, "JFK": 1}}
    shown = [(line["origin"], line["hour"]) for line in lines if "departures" in line]
    assert len(shown) == len(set(shown)) == len(everything)
