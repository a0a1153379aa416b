"""Where one worker's processor time goes, sampled: a tracing profiler would change what it measures."""

import os
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.table import Table

from benchmarks.ingest.events import STREAM
from benchmarks.ingest.python_side import worker_consumed
from benchmarks.ingest.tables import current_snapshot, sql_head
from freshdata.settings import PROJECT, Settings
from stream_workers.worker import Worker

INTERVAL = 0.002  # seconds
OURS = tuple(str(PROJECT / package) + os.sep for package in ("stream_workers", "freshdata"))
NATIVE = "threads of librdkafka and Arrow"
OUTSIDE = "Python threads outside the project (PyIceberg's writers)"
LONGEST = 40  # lines of the table


class Sampler(threading.Thread):
    """Charges each thread's processor time to the project's functions on its stack.

    Attributes:
        own: Seconds by innermost project function: what it does itself and in libraries.
        inside: Seconds by function, callees of the project included.
    """

    def __init__(self) -> None:
        super().__init__(name="sampler", daemon=True)
        self.own: defaultdict[str, float] = defaultdict(float)
        self.inside: defaultdict[str, float] = defaultdict(float)
        self._ended = threading.Event()

    def run(self) -> None:
        """Sample until :meth:`end`."""
        clocks: dict[int, float] = {}
        me = threading.get_ident()
        charged, begin = 0.0, time.process_time()
        while not self._ended.wait(INTERVAL):
            for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the interpreter offers no other way.
                spent = _thread_time(ident)
                used = spent - clocks.get(ident, spent)
                clocks[ident] = spent
                charged += used
                if ident != me:
                    self._charge(frame, used)
        self.own[NATIVE] = self.inside[NATIVE] = max(0.0, time.process_time() - begin - charged)

    def end(self) -> None:
        """Stop sampling."""
        self._ended.set()
        self.join()

    def _charge(self, frame: FrameType | None, seconds: float) -> None:
        stack = []
        while frame is not None:
            if frame.f_code.co_filename.startswith(OURS):
                where = Path(frame.f_code.co_filename).relative_to(PROJECT)
                stack.append(f"{where}:{frame.f_code.co_qualname}")
            frame = frame.f_back
        self.own[stack[0] if stack else OUTSIDE] += seconds
        for name in set(stack):
            self.inside[name] += seconds


def profile(settings: Settings, events: int) -> None:
    """Run a worker in this process until it has committed the topic, and print where its processor time went."""
    worker = Worker(settings, STREAM)
    head = sql_head(settings.home / "catalog.db", "bronze", STREAM)

    def watch() -> None:
        while True:
            metadata = head()
            snapshot = current_snapshot(metadata) if metadata else None
            if snapshot and (worker_consumed(snapshot.summary) or 0) >= events:
                worker.stop()
                return
            time.sleep(0.1)

    threading.Thread(target=watch, daemon=True).start()
    sampler = Sampler()
    sampler.start()
    started = time.perf_counter()
    worker.run()
    seconds = time.perf_counter() - started
    sampler.end()
    _show(sampler, events, seconds)


def _thread_time(ident: int) -> float:
    try:
        return time.clock_gettime(time.pthread_getcpuclockid(ident))
    except OSError:  # The thread has ended meanwhile.
        return 0.0


def _show(sampler: Sampler, events: int, seconds: float) -> None:
    total = sum(sampler.own.values())
    title = f"{events:,} events in {seconds:.1f} s, {total:.1f} CPU-seconds: {events / total:,.0f} a CPU-second"
    table = Table(title=title)
    table.add_column("function")
    for name in ("CPU-s inside", "CPU-s itself and in libraries", "us an event"):
        table.add_column(name, justify="right")
    for name, inside in sorted(sampler.inside.items(), key=lambda item: -item[1])[:LONGEST]:
        own = sampler.own[name]
        table.add_row(name, f"{inside:.2f}", f"{own:.2f}", f"{own / events * 1e6:.2f}")
    table.add_row(OUTSIDE, "", f"{sampler.own[OUTSIDE]:.2f}", f"{sampler.own[OUTSIDE] / events * 1e6:.2f}")
    Console().print(table)
