"""``freshdata worker``."""

import os
import sys
from typing import Annotated

import typer


def worker(stream: Annotated[str, typer.Argument(help="Name of the stream contract.")]) -> None:
    """Run the stream worker of one stream until it is stopped."""
    # The worker is a package of its own; taking this process's place keeps signals and exit codes simple.
    os.execv(sys.executable, [sys.executable, "-m", "stream_workers", stream])  # noqa: S606 - no shell is wanted
