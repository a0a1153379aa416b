"""The worker's process: it can be stopped before it has begun."""

import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.streams import wait_for


def test_a_worker_ends_at_once_when_it_is_stopped_while_it_starts_even_where_its_parent_ignores_sigterm():
    """As the first process of a container, or the child of a Dagster that a shell put into the background."""
    command = f"trap '' TERM; exec {sys.executable} -m stream_workers flight_events"
    process = subprocess.Popen(["sh", "-c", command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: handles(process.pid, signal.SIGTERM), "a handler")
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def handles(pid, number):
    """Whether a process has a handler for a signal."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(caught[1], 16) & 1 << number - 1)
