"""Named points at which a test kills or holds a real worker, to prove that nothing is repeated or lost."""

import os
import signal
import time
from pathlib import Path

KILL_AT = "FRESHDATA_KILL_AT"
HOLD_AT = "FRESHDATA_HOLD_AT"


def reach(point: str) -> None:
    """Die here by SIGKILL if ``FRESHDATA_KILL_AT`` names this point; wait if ``FRESHDATA_HOLD_AT`` does.

    ``FRESHDATA_HOLD_AT=point:/a/path`` holds the worker for as long as that file is there. Kafka's client goes on
    sending its heartbeats meanwhile, as in a slow commit, so the worker stays the owner of its partitions.
    """
    if os.environ.get(KILL_AT) == point:
        os.kill(os.getpid(), signal.SIGKILL)
    held_at, _, path = os.environ.get(HOLD_AT, "").partition(":")
    while held_at == point and Path(path).exists():
        time.sleep(0.05)
