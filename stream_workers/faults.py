"""Named points at which a test kills, holds or breaks a real worker, to prove that nothing is repeated or lost."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

KILL_AT = "FRESHDATA_KILL_AT"
HOLD_AT = "FRESHDATA_HOLD_AT"
FAULT_FILE = "FRESHDATA_FAULT_FILE"


def reach(point: str) -> None:
    """Die, wait or fail here when the environment asks for it; otherwise do nothing.

    ``FRESHDATA_KILL_AT=point`` kills the worker by SIGKILL. ``FRESHDATA_HOLD_AT=point:/a/path`` holds it for as long as
    that file is there. Kafka's client goes on sending its heartbeats meanwhile, as in a slow commit, so the worker
    stays the owner of its partitions.

    ``FRESHDATA_FAULT_FILE=/a/path`` names a file by which a worker that runs already is told the same: it holds an
    action and a point, as in ``kill before-commit``. ``kill`` and ``fail`` take the file away and happen once; a
    ``hold`` lasts until the file is taken away, and says that it has begun by a file ``/a/path.reached``.

    Args:
        point: Name of the point.

    Raises:
        OSError: the file asks for ``fail``: an error that the worker did not expect at this point.
    """
    if os.environ.get(KILL_AT) == point:
        os.kill(os.getpid(), signal.SIGKILL)
    held_at, _, path = os.environ.get(HOLD_AT, "").partition(":")
    if held_at == point:
        _hold(Path(path))
    if asked := os.environ.get(FAULT_FILE):
        _obey(Path(asked), point)


def _obey(file: Path, point: str) -> None:
    action = ""
    with suppress(FileNotFoundError):
        action, _, asked_for = file.read_text().partition(" ")
        if asked_for != point:
            return
    if action == "hold":
        reached = Path(f"{file}.reached")
        reached.touch()
        _hold(file)
        reached.unlink(missing_ok=True)
    elif action:
        # Once: the successor reads the same file, and so may another thread in this moment.
        try:
            file.unlink()
        except FileNotFoundError:
            return
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(f"broken on purpose at {point}")


def _hold(file: Path) -> None:
    while file.exists():
        time.sleep(0.05)
