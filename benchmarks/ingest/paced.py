"""How fresh a contender keeps its table: events come at a steady rate, and each is timed until a reader can see it."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from confluent_kafka import Producer

from benchmarks.ingest.events import PRODUCER, Topic, events, make_project, prepare_home, send
from benchmarks.ingest.measure import Contender, Job, Setup, start_all
from benchmarks.ingest.tables import appends, column, current_snapshot, files_by_snapshot, milliseconds
from freshdata.services.kafka import client_config
from freshdata.settings import Settings

SEED = 2
FIRST = 1_000  # events that start a contender up, not counted
COMMIT_SECONDS = 2.0
TICK = 0.02  # seconds between two bursts
POLL = 0.05  # seconds between two looks at the table
START_TIMEOUT = 180.0  # seconds until the first commit
END_TIMEOUT = 60.0  # seconds from the last event to its commit


@dataclass(frozen=True)
class Freshness:
    """Seconds from a record's timestamp to the commit that makes it visible.

    Attributes:
        contender: Its name.
        events: Events that were timed.
        p50: Median.
        p95: 95th percentile.
        worst: The longest.
        problem: Why there is no result, or None.
    """

    contender: str
    events: int = 0
    p50: float = 0.0
    p95: float = 0.0
    worst: float = 0.0
    problem: str | None = None


class _Pace(threading.Thread):
    """Sends the first events at once, and the rest at a steady rate when told to."""

    def __init__(self, settings: Settings, topic: Topic, rate: int) -> None:
        super().__init__(name="pace", daemon=True)
        self.rate = rate
        self.go = threading.Event()
        self.cancelled = False
        self.began = 0  # milliseconds since the epoch
        self._producer = Producer({**client_config(settings), **PRODUCER, "linger.ms": 5})
        self._topic = topic

    def run(self) -> None:
        """Send."""
        source = events(self._topic.events, SEED, now=True)
        self._send(source, FIRST)
        self.go.wait()
        self.began = time.time_ns() // 1_000_000
        started, sent = time.monotonic(), 0
        while sent < self._topic.events - FIRST and not self.cancelled:
            due = min(int((time.monotonic() - started) * self.rate), self._topic.events - FIRST)
            self._send(source, due - sent)
            sent = due
            time.sleep(TICK)
        self._producer.flush(30)

    def _send(self, source: Iterator[tuple[int, bytes]], count: int) -> None:
        for _ in range(count):
            event, value = next(source)
            send(self._producer, self._topic.name, event, value)
        self._producer.poll(0)


def freshness(contender: Contender, platform: Settings, folder: Path, rate: int, seconds: float) -> Freshness:
    """Run a contender on an empty topic that fills at a steady rate.

    Args:
        contender: The contender.
        platform: Settings of the broker.
        folder: An empty folder of the run's own.
        rate: Events a second.
        seconds: How long.
    """
    total = FIRST + int(rate * seconds)
    distinct = sum(number == event for number, (event, _) in enumerate(events(total, SEED, now=True)))
    topic = Topic(f"bench.{folder.name}.{folder.parent.name}", total, distinct, 0.0)
    make_project(folder / "project", topic.name)
    settings = platform.model_copy(update={"project": folder / "project"}).for_home(folder / "home")
    prepare_home(settings)
    contender.prepare()
    setup = Setup(settings, topic, total, folder, COMMIT_SECONDS)
    job = contender.start(setup)
    visible: dict[int, float] = {}
    pace = _Pace(settings, topic, rate)
    with ExitStack() as stack:
        children = start_all(stack, job.programs, setup.log)
        stack.callback(_end, pace)
        pace.start()
        if problem := _watch(job, pace, visible, total):
            told = next((child.last_line() for child in children if child.process.poll() is not None), problem)
            return Freshness(contender.name, problem=told)
    return _percentiles(contender.name, job, visible, pace.began)


def _end(pace: _Pace) -> None:
    pace.cancelled = True
    pace.go.set()
    pace.join()


def _watch(job: Job, pace: _Pace, visible: dict[int, float], total: int) -> str | None:
    """Note when each snapshot was first seen, until all events are in; returns what went wrong."""
    deadline = time.monotonic() + START_TIMEOUT
    seen: Path | None = None
    while time.monotonic() < deadline:
        metadata = job.head()
        if metadata is not None and metadata != seen:
            seen = metadata
            for snapshot_id in appends(metadata):
                visible.setdefault(snapshot_id, time.time())
            snapshot = current_snapshot(metadata)
            consumed = (job.consumed(snapshot.summary) if snapshot else None) or 0
            if consumed and not pace.go.is_set():
                pace.go.set()
                deadline = time.monotonic() + total / pace.rate + END_TIMEOUT
            if consumed >= total:
                return None
        time.sleep(POLL)
    return "its table did not get all events in time" if pace.go.is_set() else "it made no commit"


def _percentiles(name: str, job: Job, visible: dict[int, float], began: int) -> Freshness:
    metadata = job.head()
    if metadata is None:
        return Freshness(name, problem="its table is gone")
    waits = []
    for snapshot_id, files in files_by_snapshot(metadata).items():
        if snapshot_id in visible:
            times = milliseconds(column(files, "event_time"))
            waits.append(visible[snapshot_id] - times[times >= began] / 1000)
    waited = np.concatenate(waits)
    p50, p95, worst = (float(value) for value in np.percentile(waited, [50, 95, 100]))
    return Freshness(name, len(waited), p50, p95, worst)
