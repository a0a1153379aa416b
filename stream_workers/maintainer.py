"""Maintain a stream's tables beside its worker, in a process of its own.

A thread would share the interpreter's lock with the worker, and merging manifests is pure Python. The price is the
child's memory. It lives on its end of a pipe: when the worker is gone, however it went, the child reads the pipe's end
and leaves.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable

from pydantic import TypeAdapter
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from freshdata.lake.catalog import open_catalog
from freshdata.lake.maintenance import Retention, maintain
from freshdata.settings import Settings

# A commit costs 1 % more for each snapshot or manifest that gathers meanwhile.
COMMITS_BETWEEN = 5
# Orphans are no hurry, and finding them reads all of a table's manifests.
ORPHANS_EVERY_SECONDS = 3600.0
RESTART_AFTER_SECONDS = 60.0
STOP_SECONDS = 2.0
# Lower than the worker's, not lowest: on a machine that is full for minutes, the snapshots would pile up meanwhile.
NICENESS = 5
RETENTION = TypeAdapter(Retention)

logger = logging.getLogger(__name__)


class Maintainer:
    """Asks a child process to maintain tables as commits pile up; nothing here waits for it.

    The worker that owns partition 0 uses it; another one does not start the child.
    """

    def __init__(self, settings: Settings, retention: Retention | None = None) -> None:
        self._settings = settings
        self._retention = retention or Retention()
        self._child: subprocess.Popen[bytes] | None = None
        self._started = float("-inf")
        self._asked: dict[str, int] = {}

    @property
    def pid(self) -> int | None:
        """The child's process id, or None while there is none."""
        return self._child.pid if self._child and self._child.poll() is None else None

    def committed(self, table: Table) -> None:
        """Ask for a table's maintenance if enough commits, whoever's, have been made since it was asked for last.

        Args:
            table: The table, as it is after a commit.
        """
        name, now = ".".join(table.name()), table.metadata.next_sequence_number()
        if now - self._asked.get(name, 0) < COMMITS_BETWEEN:
            return
        try:
            self._ask(name)
        except OSError as error:
            # A full pipe is a child that has enough to do; a broken one is a child that died.
            logger.warning("maintenance not asked for table=%s error=%s", name, error)
        self._asked[name] = now

    def close(self) -> None:
        """End the child; what it is doing is finished if that is quick."""
        child, self._child = self._child, None
        if child is None:
            return
        try:
            child.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            # It may be killed at any point: what it commits is whole, and what it left is swept.
            child.kill()
            child.wait()

    def _ask(self, name: str) -> None:
        if self.pid is None:
            if time.monotonic() - self._started < RESTART_AFTER_SECONDS:
                return
            self._started = time.monotonic()
            # The settings may hold passwords: they go through the pipe, never into the list of processes.
            self._child = subprocess.Popen([sys.executable, "-m", "stream_workers.maintainer"], stdin=subprocess.PIPE)
            self._write(self._settings.model_dump_json(), RETENTION.dump_json(self._retention).decode())
        self._write(name)

    def _write(self, *lines: str) -> None:
        if self._child and self._child.stdin:
            pipe = self._child.stdin.fileno()
            os.set_blocking(pipe, False)
            os.write(pipe, "".join(f"{line}\n" for line in lines).encode())


def serve(lines: Iterable[str]) -> None:
    """Maintain each table that is named, until there are no more lines.

    Args:
        lines: The settings, the retention, then table names.
    """
    requests = (line.strip() for line in lines)
    catalog = open_catalog(Settings.model_validate_json(next(requests)))
    retention = RETENTION.validate_json(next(requests))
    swept: dict[str, float] = {}
    for name in requests:
        sweep = time.monotonic() - swept.get(name, float("-inf")) >= ORPHANS_EVERY_SECONDS
        _maintain(catalog, name, retention, orphans=sweep)
        if sweep:
            swept[name] = time.monotonic()


def _maintain(catalog: Catalog, name: str, retention: Retention, *, orphans: bool) -> None:
    try:
        done = maintain(catalog, name, retention, orphans=orphans)
    except Exception:
        # Nothing that fails here may cost more than a larger table: it is tried again with the next commits.
        logger.exception("maintenance failed table=%s", name)
        return
    if done.expired or done.merged or done.orphans:
        logger.info(
            "maintained table=%s expired=%d merged=%d orphans=%d snapshots=%d manifests=%d seconds=%.3f",
            name,
            done.expired,
            done.merged,
            done.orphans,
            done.snapshots,
            done.manifests,
            done.seconds,
        )


def main() -> None:
    """Serve the worker at the other end of standard input."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    # It warns of each old metadata file that the worker's own commit has removed first.
    logging.getLogger("pyiceberg").setLevel(logging.ERROR)
    # Ctrl-C reaches the whole group; this process ends when its worker has.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    serve(sys.stdin)


if __name__ == "__main__":
    main()
