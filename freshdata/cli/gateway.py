"""``freshdata gateway``."""

import os
import sys


def gateway() -> None:
    """Run the event gateway until it is stopped."""
    # It is a package of its own; taking this process's place keeps signals and exit codes simple.
    os.execv(sys.executable, [sys.executable, "-m", "serving_api.gateway"])  # noqa: S606 - no shell is wanted
