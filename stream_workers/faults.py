"""Named points at which a test kills a worker for real, to prove that a restart repeats and loses nothing."""

import os
import signal

VARIABLE = "FRESHDATA_KILL_AT"


def reach(point: str) -> None:
    """Die by SIGKILL here if ``FRESHDATA_KILL_AT`` names this point."""
    if os.environ.get(VARIABLE) == point:
        os.kill(os.getpid(), signal.SIGKILL)
