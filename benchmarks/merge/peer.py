"""A contender in a process of its own: asked one thing at a time, and watched while it works."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import psutil

from benchmarks.usage import Usage

POLL = 0.01  # seconds
# Looking at a process's memory costs milliseconds of two cores.
LOOK_EVERY = 0.1  # seconds
START_LIMIT = 300.0  # seconds


class Contender(Protocol):
    """What runs in the other process."""

    def close(self) -> None:
        """End whatever it has started."""


@dataclass(frozen=True)
class Measured:
    """One piece of work.

    Attributes:
        seconds: Time it took.
        cpu: Processor seconds, of all the contender's processes.
        memory: Their peak memory, in bytes (proportional set size).
        value: What it returned.
        problem: Why it has no result, or None.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    memory: int = 0
    value: Any = None
    problem: str | None = None


class Peer:
    """The handle of a contender.

    Attributes:
        dead: Why it does not work any more, or None.
    """

    def __init__(self, make: Callable[..., Contender], *arguments: object, log: Path) -> None:
        """Start a contender.

        Args:
            make: Makes it, in the other process.
            arguments: Its arguments.
            log: Where its output goes.
        """
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        log.parent.mkdir(parents=True, exist_ok=True)
        self._process = context.Process(target=_serve, args=(theirs, log, make, arguments), daemon=True)
        self._process.start()
        theirs.close()
        self.dead: str | None = None
        self.dead = self._wait(START_LIMIT, Usage([self._process.pid or 0])).problem

    def ask(self, method: str, *arguments: object, limit: float) -> Measured:
        """Call a method of the contender.

        Args:
            method: Its name.
            arguments: Its arguments.
            limit: Seconds after which it is ended.
        """
        if self.dead:
            return Measured(problem=self.dead)
        usage = Usage([self._process.pid or 0], LOOK_EVERY)
        before = usage.sample()
        self._connection.send((method, arguments))
        measured = self._wait(limit, usage)
        usage.look_around()
        return Measured(measured.seconds, usage.sample() - before, usage.peak, measured.value, measured.problem)

    def close(self) -> None:
        """End the contender."""
        if self._process.is_alive() and not self.dead:
            self._connection.send(None)
            self._process.join(30)
        self._kill()

    def _wait(self, limit: float, usage: Usage) -> Measured:
        deadline = time.monotonic() + limit
        try:
            while not self._connection.poll(POLL):
                usage.sample()
                if time.monotonic() > deadline:
                    self._kill()
                    self.dead = f"it took longer than {limit:.0f} s"
                    return Measured(problem=self.dead)
            seconds, value, problem = self._connection.recv()
        except (EOFError, OSError):
            self.dead = "its process ended"
            return Measured(problem=self.dead)
        return Measured(seconds, value=value, problem=problem)

    def _kill(self) -> None:
        if not self._process.is_alive():
            return
        process = psutil.Process(self._process.pid)
        for one in [process, *process.children(recursive=True)]:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        self._process.join()


def _serve(connection: Connection, log: Path, make: Callable[..., Contender], arguments: tuple[object, ...]) -> None:
    with log.open("ab") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
    contender: Contender | None = None

    def start() -> None:
        nonlocal contender
        contender = make(*arguments)

    connection.send(_timed(start))
    while contender is not None and (asked := connection.recv()) is not None:
        method, given = asked
        connection.send(_timed(lambda: getattr(contender, method)(*given)))  # noqa: B023 - called at once.
    if contender is not None:
        contender.close()


def _timed(work: Callable[[], object]) -> tuple[float, object, str | None]:
    started = time.perf_counter()
    try:
        value = work()
    except Exception as error:  # noqa: BLE001 - one contender's failure must not cost the others' results.
        sys.excepthook(*sys.exc_info())
        return time.perf_counter() - started, None, " ".join(str(error).split())[:300] or type(error).__name__
    return time.perf_counter() - started, value, None
