"""A real worker tells how it is, and outlives a lake that refuses its commits."""

import json
import sqlite3
import urllib.error
import urllib.request
from datetime import datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families

from freshdata.lake.catalog import open_catalog
from tests.streams import (
    BROKEN,
    assert_verified,
    caught_up,
    disorderly,
    flight_event,
    owners,
    send,
    wait_for,
    wait_until_caught_up,
    worker,
)

pytestmark = pytest.mark.integration


def get(settings, path):
    """An answer of the running worker; empty before it serves."""
    files = list(settings.metrics_dir.glob("flight_events-*.json"))
    if not files:
        return 0, ""
    [target] = json.loads(files[0].read_text())[0]["targets"]
    try:
        with urllib.request.urlopen(f"http://{target}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def sample(settings, name, **labels):
    """The sum of a metric's samples that have these labels."""
    families = text_string_to_metric_families(get(settings, "/metrics")[1])
    found = [s for family in families for s in family.samples if s.name == f"freshdata_{name}"]
    return sum(s.value for s in found if labels.items() <= s.labels.items())


def ready(settings):
    return get(settings, "/readyz")[0] == 200


def test_metrics_agree_with_what_is_stored(streaming, environment):
    records = disorderly(600, seed=31)
    records += [(f"bad-{n}".encode(), value, records[0][2]) for n, value in enumerate(BROKEN)]
    for number in range(600, 680):  # Forty carriers more.
        event = flight_event(number, tenant_id=f"{number % 40 + 10}")
        at = datetime.fromisoformat(event["event_time"])
        records.append((event["event_id"].encode(), json.dumps(event).encode(), at))
    send(streaming, records)
    log = streaming.home / "worker.log"
    with worker(streaming, environment(streaming)):
        wait_for(lambda: ready(streaming), "readiness", log)
        done = wait_until_caught_up(streaming).total()
        wait_for(lambda: sample(streaming, "commits_total"), "the commit's metrics", log)
        wait_for(lambda: sample(streaming, "dedupe_index_keys") == done.accepted, "the index size", log)
        outcomes = [sample(streaming, "events_total", outcome=o) for o in ("accepted", "duplicate", "rejected", "late")]
        assert outcomes == [done.accepted, done.duplicates, done.rejected, done.late]
        assert sample(streaming, "freshness_seconds_count") == done.accepted
        assert sample(streaming, "commit_seconds_count") == sample(streaming, "commits_total")
        assert sample(streaming, "assigned_partitions") == 4
        files = open_catalog(streaming).load_table("bronze.flight_events").inspect.files()
        assert sample(streaming, "files_written_total") == files.num_rows > 32
        assert sample(streaming, "bytes_written_total") == sum(files["file_size_in_bytes"].to_pylist())
        assert sample(streaming, "consumer_lag_records") == 0
        assert sample(streaming, "watermark_delay_seconds") > 0
        assert get(streaming, "/healthz") == (200, "ok\n")
    assert list(streaming.metrics_dir.iterdir()) == []
    assert log.read_text().count("tenantPartition: bucket(32)") == 1


def test_a_worker_outlives_a_lake_that_refuses_commits(streaming, environment):
    """The catalog is locked for longer than a worker may be silent: it stays a member, and takes nothing more."""
    catalog = f"sqlite:///{streaming.home}/catalog.db?timeout=0.5"
    child = environment(streaming) | {
        "FRESHDATA_CATALOG_URI": catalog,
        "FRESHDATA_KAFKA_CONFIG": json.dumps({"session.timeout.ms": "6000", "max.poll.interval.ms": "6000"}),
    }
    log = streaming.home / "worker.log"
    send(streaming, disorderly(300, seed=41))
    with worker(streaming, child):
        wait_until_caught_up(streaming)
        wait_for(lambda: ready(streaming), "readiness", log)
        lock = sqlite3.connect(streaming.home / "catalog.db", isolation_level=None)
        try:
            lock.execute("BEGIN EXCLUSIVE")
            send(streaming, disorderly(300, seed=42, first=300))
            wait_for(lambda: sample(streaming, "lake_refusals_total"), "a refused commit", log)
            status, reason = get(streaming, "/readyz")
            assert status == 503
            assert "the lake takes no commits: OperationalError" in reason
            held = sample(streaming, "open_rows")
            send(streaming, disorderly(300, seed=43, first=600))
            # One, two and four seconds apart: longer than the group waits for a worker that does not poll.
            wait_for(lambda: sample(streaming, "lake_refusals_total") >= 4, "further attempts", log)
            assert sample(streaming, "open_rows") == held <= 300
            assert owners(streaming) == [{0, 1, 2, 3}]
            assert get(streaming, "/healthz")[0] == 200
        finally:
            lock.close()
        wait_for(lambda: caught_up(streaming), "catching up", log)
        wait_for(lambda: ready(streaming), "readiness", log)
    assert log.read_text().count("assigned stream=") == 1
    assert assert_verified(streaming)["accepted"] == 900


def test_a_commit_whose_answer_is_lost_and_a_restore_that_fails_are_made_good(streaming, environment):
    fault, log = streaming.home / "fault", streaming.home / "worker.log"
    child = environment(streaming) | {"FRESHDATA_FAULT_FILE": str(fault)}
    streaming.home.mkdir(parents=True)
    fault.write_text("fail after-commit")
    send(streaming, disorderly(300, seed=51))
    with worker(streaming, child):
        wait_for(lambda: not fault.exists(), "the lost answer", log)
        # The next attempt finds its own rows in the table, and the worker restores its partitions from there.
        fault.write_text("fail during-index-rebuild")
        wait_for(lambda: not fault.exists(), "the failure of the restore", log)
        wait_for(lambda: sample(streaming, "commit_conflicts_total") and ready(streaming), "readiness", log)
        send(streaming, disorderly(300, seed=52, first=300))
        wait_until_caught_up(streaming)
    assert "what=commit" in log.read_text()
    assert "what=restore" in log.read_text()
    assert log.read_text().count("assigned stream=") == 1
    assert assert_verified(streaming)["accepted"] == 600
