"""What a worker serves over HTTP: metrics in Prometheus' format, health and readiness."""

import json
import os
import socket
import urllib.error
import urllib.request
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families

from freshdata.errors import ServiceError
from freshdata.lake.progress import PartitionProgress
from stream_workers.metrics import Health, Metrics, MetricsServer

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def metrics():
    return Metrics("flight_events")


@pytest.fixture
def served(instance, metrics):
    """A server, its health, and a reader of all its samples."""
    health = Health(limit=60)
    server = MetricsServer(instance, "flight_events", metrics, health)

    def samples():
        families = text_string_to_metric_families(get(server.port, "/metrics")[1])
        return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}

    yield server, health, samples
    server.close()


def ages(*seconds):
    column = pa.array([int((NOW - age) * 1_000_000) for age in seconds], pa.int64())
    return pa.chunked_array([column.cast(pa.timestamp("us", "UTC"))])


def test_a_commit_shows_in_every_metric_of_it(served, metrics):
    _, _, samples = served
    stream = ("stream", "flight_events")
    done = [PartitionProgress(9, None, 10, 6, 3, 1, 2), PartitionProgress(5, None, 5, 5, 0, 0, 0)]
    metrics.committed(
        done, [ages(0.2, 3.0), ages(7200, -5)], reason="age", seconds=0.3, now=NOW, files=4, size=900, retries=2
    )
    found = samples()
    outcomes = {"accepted": 11, "duplicate": 3, "rejected": 1, "late": 2}
    assert {name: found["freshdata_events_total", ("outcome", name), stream] for name in outcomes} == outcomes
    assert found["freshdata_commits_total", ("reason", "age"), stream] == 1
    assert found["freshdata_commit_seconds_count", stream] == 1
    assert found["freshdata_files_written_total", stream] == 4
    assert found["freshdata_bytes_written_total", stream] == 900
    assert found["freshdata_commit_retries_total", stream] == 2
    # An event that a producer's fast clock dates into the future is fresh, not negative.
    buckets = {bound: found["freshdata_freshness_seconds_bucket", ("le", bound), stream] for bound in ("0.1", "0.25")}
    assert buckets == {"0.1": 1, "0.25": 2}
    assert found["freshdata_freshness_seconds_bucket", ("le", "3.0"), stream] == 3
    assert found["freshdata_freshness_seconds_bucket", ("le", "+Inf"), stream] == 4
    assert found["freshdata_freshness_seconds_sum", stream] == pytest.approx(7203.2)


def test_every_outcome_is_there_before_its_first_event(served):
    _, _, samples = served
    assert sum(key[0] == "freshdata_events_total" for key in samples()) == 4


def test_a_partition_that_was_given_up_is_reported_no_more(served, metrics):
    _, _, samples = served
    for lag in ({0: 10, 1: 20}, {1: 5}):
        metrics.observed(assigned=len(lag), lag=lag, index=7, open_partitions=3, open_rows=9)
    lags = {key: value for key, value in samples().items() if key[0] == "freshdata_consumer_lag_records"}
    assert list(lags.values()) == [5]
    assert samples()["freshdata_dedupe_index_keys", ("stream", "flight_events")] == 7


def test_health_and_readiness_say_what_is_wrong(served):
    server, health, _ = served
    assert get(server.port, "/healthz") == (200, "ok\n")
    assert get(server.port, "/readyz") == (503, "no partitions assigned yet\n")
    health.not_ready = ""
    assert get(server.port, "/readyz") == (200, "ok\n")
    health.limit = 0
    assert get(server.port, "/healthz")[0] == 503
    assert get(server.port, "/readyz")[0] == 503
    health.limit = 60
    health.polled()
    assert get(server.port, "/healthz")[0] == 200
    assert get(server.port, "/")[0] == 404


def test_prometheus_finds_the_server_in_a_file_of_its_own(instance, served):
    server, _, _ = served
    [path] = instance.metrics_dir.glob("*.json")
    assert path.stem == f"flight_events-{os.getpid()}"
    [entry] = json.loads(path.read_text())
    assert entry["targets"] == [f"127.0.0.1:{server.port}"]


def test_the_file_of_a_killed_worker_goes_with_the_next_start(instance, metrics):
    instance.metrics_dir.mkdir(parents=True)
    stale = instance.metrics_dir / f"flight_events-{2**22 + 1}.json"  # Above the highest process id of Linux.
    stale.write_text("[]")
    server = MetricsServer(instance, "flight_events", metrics, Health(60))
    assert not stale.exists()
    server.close()
    assert list(instance.metrics_dir.iterdir()) == []


def test_a_port_that_is_taken_is_explained(instance, metrics):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = instance.model_copy(update={"metrics_port": taken.getsockname()[1]})
        with pytest.raises(ServiceError, match="FRESHDATA_METRICS_PORT"):
            MetricsServer(settings, "flight_events", metrics, Health(60))
