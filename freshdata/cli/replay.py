"""``freshdata replay``."""

import os
import sys
from typing import Annotated

import typer

Stream = Annotated[str, typer.Argument(help="Name of the stream contract.")]
FromOffset = Annotated[int, typer.Option(min=0, help="Offset at which each Kafka partition is read from.")]
ToTable = Annotated[
    str | None, typer.Option(metavar="NAME", help="Leave the result as bronze.NAME and quarantine.NAME; swap nothing.")
]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Swap even if rows of the live table are not in Kafka any more.")
]
Keep = Annotated[
    bool,
    typer.Option("--keep", help="Rebuild nothing: keep the rows, and continue in a re-created topic from its start."),
]


def replay(
    stream: Stream,
    *,
    from_offset: FromOffset = 0,
    to_table: ToTable = None,
    allow_missing: AllowMissing = False,
    keep: Keep = False,
) -> None:
    """Rebuild a stream's Bronze and quarantine from Kafka beside the live tables, check them, and swap."""
    arguments = [stream, "--from-offset", str(from_offset)]
    arguments += ["--to-table", to_table] if to_table else []
    arguments += ["--allow-missing"] if allow_missing else []
    arguments += ["--keep"] if keep else []
    # The worker is a package of its own; taking this process's place keeps the terminal, signals and exit codes simple.
    os.execv(sys.executable, [sys.executable, "-m", "stream_workers.replay", *arguments])  # noqa: S606 - no shell
