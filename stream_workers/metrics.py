"""A worker's metrics for Prometheus, and its health: one small HTTP server on loopback.

Everything is updated once a poll or once a commit, never for a single event.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pyarrow as pa
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from freshdata.errors import ServiceError
from freshdata.lake.progress import PartitionProgress
from freshdata.services.metrics_target import write_target
from freshdata.settings import Settings

HOST = "127.0.0.1"
BATCH_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
COMMIT_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
FRESHNESS_SECONDS = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 300.0, 3600.0)
OUTCOMES = ("accepted", "duplicate", "rejected", "late")


class Metrics:
    """What a worker has done and how far behind it is. Every sample carries the stream's name.

    Attributes:
        registry: The metrics, of this worker only.
    """

    def __init__(self, stream: str) -> None:
        self.registry = CollectorRegistry()
        self._stream = stream
        self._lag = self._gauge("consumer_lag_records", "Records of a Kafka partition not yet processed.", "partition")
        self._watermark = self._gauge("watermark_delay_seconds", "Present time less the stream's watermark.")
        self._index = self._gauge("dedupe_index_keys", "Keys in the dedupe index of the partitions owned.")
        self._open = self._gauge("open_partitions", "Table partitions in the batch that is being filled.")
        self._open_rows = self._gauge("open_rows", "Rows in the batch that is being filled.")
        self._behind = self._gauge("unpublished_offsets", "Offsets the clean topic is behind Bronze.", "partition")
        self._assigned = self._gauge("assigned_partitions", "Kafka partitions owned and restored.")
        self._ready = self._gauge("ready", "1 when the worker is ready: see /readyz.")
        self._events = self._counter(
            "events", "Events committed, by outcome; a late one is an accepted one too.", "outcome"
        )
        self._commits = self._counter("commits", "Commits, by what made them due.", "reason")
        self._conflicts = self._counter("commit_conflicts", "Batches given up because another worker was first.")
        self._retries = self._counter("commit_retries", "Commits tried again.")
        self._refusals = self._counter("lake_refusals", "Times that the lake could not be read or written.")
        self._unread = self._counter("registry_refusals", "Times that the registry did not tell a schema.")
        self._files = self._counter("files_written", "Data files committed.")
        self._bytes = self._counter("bytes_written", "Bytes of the data files committed.")
        self._misses = self._counter(
            "enrichment_misses",
            "Events committed whose key the lookup does not hold: its columns are null.",
            "lookup",
            "key",
        )
        self._batch = self._histogram("batch_seconds", "Time to process what one poll took.", BATCH_SECONDS)
        self._commit = self._histogram("commit_seconds", "Time of a commit, its files included.", COMMIT_SECONDS)
        self._lagging: set[int] = set()
        self._freshness = _Freshness(stream)
        self.registry.register(self._freshness)
        for outcome in OUTCOMES:  # A counter that is absent until its first event cannot be alerted on.
            self._events.labels(stream, outcome)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"freshdata_{name}", text, ("stream", *labels), registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"freshdata_{name}", text, ("stream", *labels), registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(f"freshdata_{name}", text, ("stream",), buckets=buckets, registry=self.registry)

    def processed(self, seconds: float) -> None:
        """What one poll took was processed in this time."""
        self._batch.labels(self._stream).observe(seconds)

    def committed(
        self,
        done: Iterable[PartitionProgress],
        ingested_at: Iterable[pa.ChunkedArray],
        *,
        reason: str,
        seconds: float,
        now: float,
        files: int = 0,
        size: int = 0,
        retries: int = 0,
        misses: Mapping[tuple[str, str], int] | None = None,
    ) -> None:
        """A batch was committed.

        Args:
            done: What it consumed of each partition.
            ingested_at: Kafka timestamps of its Bronze rows.
            reason: What made it due.
            seconds: Duration of the commit.
            now: Present time, in seconds since the epoch.
            files: Data files written.
            size: Their bytes.
            retries: Attempts beyond the first.
            misses: Lookup and key column to the events committed whose key the lookup does not hold.
        """
        for part in done:
            counts = (part.accepted, part.duplicates, part.rejected, part.late)
            for outcome, count in zip(OUTCOMES, counts, strict=True):
                self._events.labels(self._stream, outcome).inc(count)
        self._commits.labels(self._stream, reason).inc()
        self._commit.labels(self._stream).observe(seconds)
        self._files.labels(self._stream).inc(files)
        self._bytes.labels(self._stream).inc(size)
        self._retries.labels(self._stream).inc(retries)
        for labels, count in (misses or {}).items():
            self._misses.labels(self._stream, *labels).inc(count)
        for times in ingested_at:
            self._freshness.observe(now - times.cast(pa.int64()).to_numpy() / 1_000_000)

    def conflicted(self) -> None:
        """A batch was given up: another worker had committed its offsets."""
        self._conflicts.labels(self._stream).inc()

    def refused(self) -> None:
        """The lake could not be read or written."""
        self._refusals.labels(self._stream).inc()

    def unread(self) -> None:
        """The registry did not tell a schema that messages name."""
        self._unread.labels(self._stream).inc()

    def observed(self, *, assigned: int, lag: dict[int, int], index: int, open_partitions: int, open_rows: int) -> None:
        """The loop's state by now.

        Args:
            assigned: Number of Kafka partitions owned and restored.
            lag: Kafka partition to the records that are still to be processed, where it is known.
            index: Keys in the dedupe index.
            open_partitions: Table partitions in the open batch.
            open_rows: Rows in the open batch.
        """
        for partition in self._lagging - lag.keys():  # Another worker's to report by now.
            self._lag.remove(self._stream, str(partition))
        self._lagging = set(lag)
        for partition, records in lag.items():
            self._lag.labels(self._stream, str(partition)).set(records)
        self._assigned.labels(self._stream).set(assigned)
        self._index.labels(self._stream).set(index)
        self._open.labels(self._stream).set(open_partitions)
        self._open_rows.labels(self._stream).set(open_rows)

    def unpublished(self, offsets: dict[int, int]) -> None:
        """The clean topic is this far behind Bronze, by partition."""
        self._behind.clear()
        for partition, behind in offsets.items():
            self._behind.labels(self._stream, str(partition)).set(behind)

    def watermark_delay(self, seconds: float) -> None:
        """The stream's watermark is this far behind the present."""
        self._watermark.labels(self._stream).set(seconds)

    def ready(self, *, ready: bool) -> None:
        """Whether the worker is ready."""
        self._ready.labels(self._stream).set(ready)


class _Freshness(Collector):
    """Histogram of the time from a record's Kafka timestamp to its commit; takes whole columns at once.

    The library's own takes one value at a time: at a hundred thousand events a second that costs more than the commit.
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._counts = np.zeros(len(FRESHNESS_SECONDS) + 1, dtype=np.int64)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, seconds: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> None:
        """Add the ages of rows."""
        ages = np.maximum(seconds, 0.0)
        places = np.searchsorted(FRESHNESS_SECONDS, ages, side="left")
        with self._lock:
            self._counts += np.bincount(places, minlength=len(self._counts))
            self._sum += float(ages.sum())

    def collect(self) -> Iterator[Metric]:
        """The histogram as Prometheus reads it: cumulative counts."""
        text = "Time from an accepted event's Kafka timestamp to its commit."
        family = HistogramMetricFamily("freshdata_freshness_seconds", text, labels=["stream"])
        with self._lock:
            counts, total = np.cumsum(self._counts).tolist(), self._sum
        bounds = [*(str(bound) for bound in FRESHNESS_SECONDS), "+Inf"]
        family.add_metric([self._stream], list(zip(bounds, counts, strict=True)), total)
        yield family


class Health:
    """Whether the loop lives and whether it does its work; written by the loop, read by the server.

    Attributes:
        limit: Seconds without a poll after which the loop counts as stuck.
        not_ready: Why the worker is not ready; empty when it is.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.not_ready = "no partitions assigned yet"
        self._polled = time.monotonic()

    def polled(self) -> None:
        """The loop polls now."""
        self._polled = time.monotonic()

    @property
    def unhealthy(self) -> str:
        """Why the loop is not healthy; empty when it is."""
        silent = time.monotonic() - self._polled
        return f"no poll for {silent:.0f} s" if silent > self.limit else ""


class MetricsServer:
    """Serves ``/metrics``, ``/healthz`` and ``/readyz`` in a thread until closed.

    Where it listens is written to a file of its own in ``metrics_dir``.

    Attributes:
        port: The port it listens on.
    """

    def __init__(self, settings: Settings, stream: str, metrics: Metrics, health: Health) -> None:
        try:
            self._server = ThreadingHTTPServer((HOST, settings.metrics_port or 0), _handler(metrics, health))
        except OSError as error:
            raise ServiceError(
                "metrics",
                f"Port {settings.metrics_port} for the metrics of {stream} cannot be used: {error.strerror}.",
                remedy="Set FRESHDATA_METRICS_PORT to a port of this worker's own, or to 0: it then takes a free one.",
            ) from error
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._file = write_target(settings, stream, self.port, job="freshdata-worker")
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True).start()

    def close(self) -> None:
        """Stop serving, and remove the file."""
        self._server.shutdown()
        self._server.server_close()
        self._file.unlink(missing_ok=True)


def _handler(metrics: Metrics, health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, generate_latest(metrics.registry), CONTENT_TYPE_LATEST)
            elif self.path in ("/healthz", "/readyz"):
                problem = health.unhealthy or (health.not_ready if self.path == "/readyz" else "")
                self._answer(503 if problem else 200, f"{problem or 'ok'}\n".encode(), "text/plain; charset=utf-8")
            else:
                self._answer(404, b"Try /metrics, /healthz or /readyz.\n", "text/plain; charset=utf-8")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: a scrape every few seconds would bury the worker's own log."""

    return Handler
