"""Run one contender on the filled topic: its rate between two commits, its processor time, its memory."""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ingest.events import Topic
from benchmarks.ingest.tables import Head, Summary, current_snapshot, distinct
from benchmarks.usage import Usage
from freshdata.services.processes import Child, Program
from freshdata.settings import Settings

POLL = 0.1  # seconds
TIMEOUT = 900.0  # seconds a run may take
WARM_UP = 0.1  # share of the work after which a JVM has compiled what matters


@dataclass(frozen=True)
class Setup:
    """What a contender gets to run on.

    Attributes:
        settings: An instance of its own on the shared broker, with a filled lookup table.
        topic: The topic to read.
        target: Records to read; the run ends when its table accounts for so many.
        folder: A folder of its own.
        commit_seconds: How often a contender that commits by the clock does so.
    """

    settings: Settings
    topic: Topic
    target: int
    folder: Path
    commit_seconds: float

    @property
    def bootstrap(self) -> str:
        """Kafka's address."""
        return self.settings.kafka_bootstrap or ""

    @property
    def log(self) -> Path:
        """Folder of the run's log files."""
        return self.folder / "logs"


@dataclass(frozen=True)
class Job:
    """A contender at work.

    Attributes:
        programs: What to run, by name.
        head: Finds its table.
        consumed: Records a snapshot's summary accounts for; None when it does not say.
        settled: Whether all its processes have their share of the work by now.
    """

    programs: dict[str, Program]
    head: Head
    consumed: Callable[[Summary], int | None]
    settled: Callable[[], bool] = lambda: True


@dataclass(frozen=True)
class Contender:
    """One way from Kafka into Iceberg.

    Attributes:
        name: Short name, for ``--only``.
        label: Name in tables.
        does: What it does with each event.
        share: Share of the topic it reads: a slow one would keep the others waiting.
        dedupes: Whether its table holds each event once.
        start: Prepares a run; None for the floor, which has no table.
        prepare: Called once before the first round (fetches programs).
        paced: Whether its freshness is measured.
    """

    name: str
    label: str
    does: str
    share: float
    dedupes: bool
    start: Callable[[Setup], Job]
    prepare: Callable[[], None] = lambda: None
    paced: bool = True


@dataclass(frozen=True)
class Mark:
    """A commit that became visible.

    Attributes:
        at: When, on this process's monotonic clock.
        consumed: Records the table accounts for since the beginning.
        cpu: Processor seconds the contender had used.
        settled: Whether all processes had their share of the work.
    """

    at: float
    consumed: int
    cpu: float
    settled: bool


@dataclass(frozen=True)
class Run:
    """The outcome of one run.

    Attributes:
        contender: Its name.
        events: Events between the two commits that are compared.
        seconds: Time between them.
        cpu: Processor seconds between them.
        memory: Peak memory of all processes, in bytes (proportional set size).
        commits: Commits in all.
        whole: Events, seconds and processor seconds of the whole run, start-up included.
        problem: Why the run has no result, or None.
    """

    contender: str
    events: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    memory: int = 0
    commits: int = 0
    whole: tuple[int, float, float] = (0, 0.0, 0.0)
    problem: str | None = None

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds if self.seconds else 0.0

    @property
    def per_cpu(self) -> float:
        """Events a processor second."""
        return self.events / self.cpu if self.cpu else 0.0


def start_all(stack: ExitStack, programs: dict[str, Program], logs: Path) -> list[Child]:
    """Start programs that the stack stops, last one first."""
    children = []
    for name, program in programs.items():
        child = Child(name, program, logs / f"{name}.log")
        stack.callback(child.stop)
        children.append(child)
    return children


def measure(contender: Contender, setup: Setup) -> Run:
    """Run a contender until its table accounts for all records of its share, and compare two commits.

    The first commits end the start-up and the last one may hold a rest that a timer had to flush, so the rate is that
    between the first one after a tenth of the work and the last but one, if there are enough of them.
    """
    job = contender.start(setup)
    marks: list[Mark] = []
    started = time.monotonic()
    with ExitStack() as stack:
        children = start_all(stack, job.programs, setup.log)
        usage = Usage([child.process.pid for child in children])
        problem = _watch(job, setup, children, usage, marks)
        whole = time.monotonic() - started, usage.sample()
    if not problem:
        problem = _wrong(contender, setup, job, marks[-1].consumed)
    if problem:
        return Run(contender.name, problem=problem)
    begin, end = _window(marks, started, setup.target)
    return Run(
        contender.name,
        events=end.consumed - begin.consumed,
        seconds=end.at - begin.at,
        cpu=end.cpu - begin.cpu,
        memory=usage.peak,
        commits=len(marks),
        whole=(marks[-1].consumed, *whole),
    )


def _window(marks: list[Mark], started: float, target: int) -> tuple[Mark, Mark]:
    """The two commits to compare."""
    warm = [mark for mark in marks if mark.settled and mark.consumed >= target * WARM_UP]
    settled = [mark for mark in marks if mark.settled]
    window = next((some for some in (warm, settled) if len(some) > 2), marks)
    if len(window) == 1:
        # Everything in one commit: the start-up cannot be told from the work.
        return Mark(started, 0, 0.0, settled=True), window[0]
    return window[0], window[-2] if len(window) > 2 else window[-1]


def _watch(job: Job, setup: Setup, children: list[Child], usage: Usage, marks: list[Mark]) -> str | None:
    """Note every commit until the target is reached; returns what went wrong."""
    seen: Path | None = None
    settled = False
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        ended = all(child.process.poll() is not None for child in children)
        if any(child.process.poll() for child in children):
            return next(child.last_line() for child in children if child.process.poll())
        cpu = usage.sample()
        metadata = job.head()
        if metadata is not None and metadata != seen and metadata.is_file():
            seen = metadata
            snapshot = current_snapshot(metadata)
            consumed = job.consumed(snapshot.summary) if snapshot else None
            settled = settled or job.settled()
            if consumed is not None and consumed > (marks[-1].consumed if marks else 0):
                marks.append(Mark(time.monotonic(), consumed, cpu, settled))
            if consumed is not None and consumed >= setup.target:
                return None
        elif ended:
            return f"it ended after {marks[-1].consumed if marks else 0:,} of {setup.target:,} events"
        time.sleep(POLL)
    return f"it took longer than {TIMEOUT:.0f} s for {setup.target:,} events"


def _wrong(contender: Contender, setup: Setup, job: Job, consumed: int) -> str | None:
    """What is wrong with the table, or None: a number counts only when the work behind it was done."""
    metadata = job.head()
    if metadata is None:
        return "its table is gone"
    rows, different = distinct(metadata, "event_id")
    if contender.dedupes and rows != different:
        return f"its table repeats {rows - different:,} events"
    if consumed == setup.topic.events:
        expected = setup.topic.distinct if contender.dedupes else setup.topic.events
        if rows != expected:
            return f"its table has {rows:,} rows, {expected:,} are right"
    return None


def run_floor(contender: Contender, setup: Setup) -> Run:
    """Run the floor, which measures itself from its first record on."""
    programs = contender.start(setup).programs
    with ExitStack() as stack:
        [child] = start_all(stack, programs, setup.log)
        usage = Usage([child.process.pid])
        while child.process.poll() is None:
            usage.sample()
            time.sleep(POLL)
    if child.process.returncode:
        return Run(contender.name, problem=child.last_line())
    own = json.loads(child.last_line())
    whole = (setup.target, time.monotonic() - child.started, usage.sample())
    return Run(contender.name, own["events"], own["seconds"], own["cpu"], usage.peak, whole=whole)
