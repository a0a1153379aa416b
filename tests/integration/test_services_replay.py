"""The replay puts into Kafka exactly what the ledger says, however often it is killed."""

import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pyarrow.compute as pc
import pytest
import xxhash
from confluent_kafka import Consumer, TopicPartition

from freshdata.clock import instance_clock
from freshdata.contracts import load_contracts
from freshdata.errors import AlreadyRunningError, ConfigError, FreshDataError
from freshdata.sample.ledger import Ledger
from freshdata.sample.lookups import load_lookups
from freshdata.sample.replay import produce_live, replay
from freshdata.sample.timeline import Timeline, historical_plan
from freshdata.services.kafka import client_config, end_offsets

pytestmark = pytest.mark.integration


def in_kafka(settings):
    """Every record of the sample's topics: (topic, partition, offset) to (key, hash of the value, timestamp)."""
    records = {}
    for contract in load_contracts(settings.contracts_dir).values():
        if contract.stream:
            topic = contract.rules.topic
            for partition, end in end_offsets(settings, topic).items():
                consumer = Consumer(client_config(settings) | {"group.id": "reader", "log_level": "0"})
                consumer.assign([TopicPartition(topic, partition, 0)])
                read = 0
                while read < end:
                    for message in consumer.consume(min(5000, end - read), timeout=30):
                        value = message.value()
                        assert value is not None  # An empty message is empty, not a tombstone.
                        content = (message.key(), xxhash.xxh3_128_hexdigest(value), message.timestamp()[1])
                        records[topic, partition, message.offset()] = content
                        read += 1
                consumer.close()
    return records


def in_ledger(settings):
    rows = Ledger(settings.home).read().to_pylist()
    return {
        (row["topic"], row["partition"], row["offset"]): (
            row["key"], row["payload_hash"], int(row["sent_at"].timestamp() * 1000),
        )
        for row in rows
    }  # fmt: skip


def test_kafka_holds_what_the_ledger_says(streaming):
    calls = []
    summary = replay(
        streaming, months=1, disorder=True, seed=5, progress=lambda done, total: calls.append((done, total))
    )
    ledger = Ledger(streaming.home).read()
    assert in_kafka(streaming) == in_ledger(streaming)
    assert summary.sent == len(ledger) == sum(sum(kinds.values()) for kinds in summary.kinds.values())
    assert summary.kinds["flight_events"]["real"] == 2 * 27_004 - 521
    assert calls[-1] == (summary.sent, summary.sent)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    clock = instance_clock(streaming.home)
    assert (clock.now(), clock.start.isoformat()) == (summary.last, "2013-01-01")
    assert summary.last == pc.max(ledger["sent_at"]).as_py()

    again = replay(streaming, months=1, disorder=True, seed=5)
    assert again.sent == summary.sent
    assert len(in_kafka(streaming)) == summary.sent
    with pytest.raises(ConfigError, match="another selection"):
        replay(streaming, months=2, disorder=True, seed=5)


def test_a_killed_producer_repeats_and_loses_nothing(streaming, environment):
    command = [sys.executable, "-m", "freshdata.cli", "produce", "--seed", "5", "--speed", "200000"]
    contracts = load_contracts(streaming.contracts_dir)
    for _ in range(2):
        before = len(in_ledger(streaming))
        with subprocess.Popen(command, env=environment(streaming), stdout=subprocess.DEVNULL) as producer:
            deadline = time.monotonic() + 60
            while len(in_ledger(streaming)) < before + 1000:
                assert producer.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            with pytest.raises(AlreadyRunningError):
                replay(streaming, months=1, disorder=True, seed=5)
            producer.send_signal(signal.SIGKILL)
    # The worst moment: Kafka has messages that the ledger does not know of.
    newest = max(Ledger(streaming.home).folder.glob("part-*"))
    newest.unlink()
    replay(streaming, months=1, disorder=True, seed=5)
    assert in_kafka(streaming) == in_ledger(streaming)
    timeline = Timeline(contracts, historical_plan(1, disorder=True, seed=5))
    planned = sum(len(timeline.chunk(number)) for number in range(5))
    seqs = Ledger(streaming.home).read()["seq"].to_pylist()
    assert len(seqs) == len(set(seqs)) == planned


def test_the_live_sample_catches_up_with_the_present_and_continues(streaming):
    stop = threading.Event()
    begun = datetime.now(UTC)
    failures = []

    def run(speed):
        try:
            produce_live(streaming, speed=speed, history_days=1, stop=stop)
        except FreshDataError as error:
            failures.append(error)

    def newest():
        rows = Ledger(streaming.home).read()
        return pc.max(rows["sent_at"]).as_py() if len(rows) else datetime.min.replace(tzinfo=UTC)

    for round_number in range(2):
        stop.clear()
        thread = threading.Thread(target=run, args=(1_000_000.0,))
        thread.start()
        deadline = time.monotonic() + 60
        while newest() < begun - timedelta(hours=4) and not failures:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        stop.set()
        thread.join(60)
        assert not failures
        assert newest() <= datetime.now(UTC), f"the future was sent in round {round_number}"
        assert in_kafka(streaming) == in_ledger(streaming)
    seqs = Ledger(streaming.home).read()["seq"].to_pylist()
    assert seqs == sorted(set(seqs))
    clock = instance_clock(streaming.home)
    assert not clock.simulated
    assert clock.start == (begun - timedelta(days=1)).date()


def test_lookups_are_written_once(instance, contracts):
    assert load_lookups(instance, contracts) == ["lookup.airlines", "lookup.airports", "lookup.planes"]
    assert load_lookups(instance, contracts) == []
