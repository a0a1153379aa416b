"""Start a seed's processes.

A worker's imports take three seconds of a core, and a seed starts a dozen: most are forked from a process that has
imported everything. Some seeds start them as users do, with an interpreter of their own.
"""

import ctypes
import faulthandler
import multiprocessing
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from freshdata.settings import Settings
from stream_workers.faults import reach

# Reached when the SQLite catalog has committed, and nobody knows yet.
SQLITE_ANSWER = "catalog-answer"
PR_SET_PDEATHSIG = 1

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["stream_workers.__main__", "stream_workers.worker", __name__])


def start_worker(stream: str, environment: dict[str, str], log: Path, *, forked: bool) -> BaseProcess:
    """A worker of a stream; it ends with this process, and says where it hangs when it gets SIGABRT."""
    process = _context.Process(target=_work, args=(stream, environment, str(log), forked), daemon=True)
    process.start()
    return process


class Transformer:
    """A process that brings Silver and Gold up to date when it is told to, as the platform does.

    Args:
        settings: The instance.
        log: Its output.
    """

    def __init__(self, settings: Settings, log: Path) -> None:
        self.log = log
        self._mine, theirs = _context.Pipe()
        self._process = _context.Process(target=_transform, args=(settings, theirs, str(log)), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self) -> None:
        """Let it run every model once."""
        self._mine.send("run")

    def ended(self, seconds: float = 0.0) -> bool:
        """Whether it has run every model."""
        return self._mine.poll(seconds)

    def error(self) -> str:
        """Why the run that has ended failed, or nothing."""
        return str(self._mine.recv())

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.join()


def _enter(log: str) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with Path(log).open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    faulthandler.enable(2)


def _work(stream: str, environment: dict[str, str], log: str, forked: bool) -> None:  # noqa: FBT001 - of a process.
    _enter(log)
    if not forked:
        own = [sys.executable, "-X", "faulthandler", "-m", __name__, stream]
        os.execve(sys.executable, own, environment)  # noqa: S606 - it becomes the worker.
    os.environ.clear()
    os.environ.update(environment)
    _main(stream)


def _main(stream: str) -> None:
    from stream_workers.__main__ import main

    event.listen(Engine, "do_connect", _connect_breakably)
    sys.exit(main([stream]))


def _connect_breakably(dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
    if dialect.name == "sqlite":
        options["factory"] = _Breakable


class _Breakable(sqlite3.Connection):
    """A connection that can be told to fail after it did commit, as a disk that breaks in that moment makes it."""

    def commit(self) -> None:
        writes = self.in_transaction
        super().commit()
        if writes:
            try:
                reach(SQLITE_ANSWER)
            except OSError as error:
                raise sqlite3.OperationalError(f"disk I/O error: {error}") from error


def _transform(settings: Settings, orders: Connection, log: str) -> None:
    _enter(log)
    while True:
        orders.recv()
        try:
            _run_models(settings, print)
        except Exception as error:  # Whatever it is, the one who asked decides.
            orders.send(f"{type(error).__name__}: {error}")
        else:
            orders.send("")


def _run_models(settings: Settings, tell: Callable[[str], None]) -> None:
    from freshdata.transform.runner import open_runner

    with open_runner(settings) as runner:
        for model in runner.manifest:
            run = runner.run_live(model)
            tell(f"{model}: {run.rows} rows {run.note}")
            if failed := [audit for audit in run.audits if audit.blocking and not audit.passed]:
                raise AssertionError(f"{model}: {failed}")


if __name__ == "__main__":
    _main(sys.argv[1])
