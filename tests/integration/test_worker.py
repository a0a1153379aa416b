"""A real worker on a real broker: what was sent, what is stored, and what happens to the rest."""

import json
import subprocess
import sys
from datetime import datetime, timedelta

import pytest

from freshdata.lake.catalog import open_catalog
from freshdata.lake.progress import summary_property
from freshdata.services.kafka import client_config, end_offsets
from tests.streams import (
    assert_verified,
    disorderly,
    flight_contract,
    flight_event,
    owners,
    progress,
    send,
    wait_for,
    wait_until_caught_up,
    worker,
)

pytestmark = pytest.mark.integration

# In a process of its own: the answer's objects of confluent-kafka 2.x crash Python's garbage collector.
DELETE_RECORDS = """
import json, os, sys
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
config, topic, offsets = json.loads(sys.argv[1])
upto = [TopicPartition(topic, int(number), offset) for number, offset in offsets.items()]
admin = AdminClient(config)
for deleted in admin.delete_records(upto).values():
    deleted.result(30)
os._exit(0)
"""


def test_every_record_is_accounted_for(streaming, environment):
    records = disorderly(3000, seed=1)
    send(streaming, records)
    with worker(streaming, environment(streaming)):
        wait_until_caught_up(streaming)
    counts = assert_verified(streaming)
    valid = {key for key, _, _ in records if key.startswith(b"UA-")}
    assert counts["consumed"] == len(records)
    assert counts["accepted"] == len(valid) == 3000
    assert counts["rejected"] == sum(not key.startswith(b"UA-") for key, _, _ in records)
    assert 0 < counts["late"] < 3000


def test_rows_are_partitioned_sorted_and_carry_their_origin(streaming, environment):
    send(streaming, disorderly(500, seed=2))
    with worker(streaming, environment(streaming)):
        wait_until_caught_up(streaming)
    table = open_catalog(streaming).load_table("bronze.flight_events")
    assert [field.name for field in table.spec().fields] == ["ingestion_date", "tenant_id"]
    rows = table.scan().to_arrow()
    for row in rows.to_pylist():
        assert row["ingestion_date"] == row["_ingested_at"].date()
    for task in table.scan().plan_files():
        tails = table.scan(f"tenant_id = '{task.file.partition[1]}'").to_arrow()["tailnum"].to_pylist()
        assert len(tails) >= task.file.record_count
    assert summary_property(table.current_snapshot(), "freshdata.watermark") is not None


def test_rejected_records_keep_their_bytes_and_reason(streaming, environment):
    at = datetime.fromisoformat(flight_event(1)["event_time"])
    future = flight_event(2, event_time=(at + timedelta(days=400)).isoformat())
    sent = {
        b"k1": None,
        b"k2": b"",
        b"k3": b"{",
        b"k4": json.dumps(flight_event(4, flight="x")).encode(),
        b"k5": json.dumps(flight_event(5, origin="ewr")).encode(),
        future["event_id"].encode(): json.dumps(future).encode(),
        b"another-key": json.dumps(flight_event(6)).encode(),
        b"k7": json.dumps(flight_event(7) | {"unknown": 1}).encode(),
        b"k8": b"[" * 100_000,
        b"k9": b"\xff",
    }
    good = flight_event(9)
    records = [(key, value, at) for key, value in sent.items()]
    records += [(None, json.dumps(flight_event(8)).encode(), at)]
    send(streaming, [*records, (good["event_id"].encode(), json.dumps(good).encode(), at)])
    with worker(streaming, environment(streaming)):
        done = wait_until_caught_up(streaming).total()
    assert (done.accepted, done.rejected) == (1, len(records))
    # An event time in the far future must not move the watermark.
    assert done.max_event_time == datetime.fromisoformat(good["event_time"]).timestamp() * 1_000_000
    stored = open_catalog(streaming).load_table("quarantine.flight_events").scan().to_arrow().to_pylist()
    assert {row["key"]: row["payload"] for row in stored} == sent | {None: records[-1][1]}
    reasons = {row["key"]: row["reason"] for row in stored}
    assert "tombstone" in reasons[b"k1"]
    assert "empty" in reasons[b"k2"]
    assert "$.flight" in reasons[b"k4"]
    assert "$.origin" in reasons[b"k5"]
    assert "after the record's timestamp" in reasons[future["event_id"].encode()]
    assert "message key" in reasons[b"another-key"]
    assert "unknown" in reasons[b"k7"]


def test_a_second_worker_shares_the_partitions_and_nothing_is_repeated(streaming, environment):
    send(streaming, disorderly(1500, seed=3))
    with worker(streaming, environment(streaming)):
        wait_until_caught_up(streaming)
        with worker(streaming, environment(streaming)):
            send(streaming, disorderly(1500, seed=4, first=1500))
            wait_until_caught_up(streaming)
        send(streaming, disorderly(500, seed=5, first=3000))
        wait_until_caught_up(streaming)
    assert assert_verified(streaming)["accepted"] == 3500


def test_partitions_that_come_back_after_they_were_paused_are_read_on(streaming, environment):
    """A lake that refuses commits pauses them; Kafka's client keeps them paused while another worker has them."""
    fault, log = streaming.home / "fault", streaming.home / "worker.log"
    send(streaming, disorderly(300, seed=21))
    with worker(streaming, environment(streaming), FRESHDATA_FAULT_FILE=str(fault)):
        wait_until_caught_up(streaming)
        fault.write_text("fail after-data-files")
        send(streaming, disorderly(300, seed=22, first=300))

        def refusing(condition):
            # Each refusal takes the file away; the next attempt is a second away at least.
            fault.write_text("fail after-data-files")
            return condition()

        wait_for(lambda: "refused stream" in log.read_text(), "a refused commit", log)
        with worker(streaming, environment(streaming)):
            shared = lambda: sorted(map(len, owners(streaming))) == [2, 2]  # noqa: E731 - one use
            wait_for(lambda: refusing(shared), "two owners", log)
            fault.unlink(missing_ok=True)
            wait_until_caught_up(streaming)
        wait_for(lambda: owners(streaming) == [{0, 1, 2, 3}], "one owner", log)
        send(streaming, disorderly(300, seed=23, first=600))
        wait_until_caught_up(streaming)
    assert assert_verified(streaming)["accepted"] == 900


def test_a_new_table_begins_where_the_log_begins(streaming, environment):
    """Kafka's retention has taken the first records of the topic before the worker's first start."""
    topic = flight_contract(streaming).rules.topic
    send(streaming, disorderly(400, seed=24))
    middle = {number: end // 2 for number, end in end_offsets(streaming, topic).items()}
    asked = json.dumps([client_config(streaming), topic, middle])
    subprocess.run([sys.executable, "-c", DELETE_RECORDS, asked], check=True, timeout=60)
    with worker(streaming, environment(streaming)):
        wait_until_caught_up(streaming)
        send(streaming, disorderly(100, seed=25, first=400))
        wait_until_caught_up(streaming)
    consumed = sum(end_offsets(streaming, topic).values()) - sum(middle.values())
    assert progress(streaming).total().consumed == consumed


def test_a_duplicate_is_recognised_after_a_restart(streaming, environment):
    records = disorderly(300, seed=6)
    send(streaming, records)
    with worker(streaming, environment(streaming)):
        wait_until_caught_up(streaming)
    send(streaming, records)
    with worker(streaming, environment(streaming)):
        wait_until_caught_up(streaming)
    counts = assert_verified(streaming)
    assert counts["accepted"] == 300
    assert counts["consumed"] == 2 * len(records)
    assert progress(streaming).total().accepted == 300
