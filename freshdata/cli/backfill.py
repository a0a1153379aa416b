"""``freshdata backfill``."""

import os
import sys
from datetime import datetime
from typing import Annotated

import typer

Models = Annotated[
    list[str] | None, typer.Argument(help="Models to rebuild, with all that is downstream of them; all when left out.")
]
First = Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day; the first there is.")]
Last = Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day; the last there is.")]
Tenant = Annotated[
    str | None, typer.Option(help="Rebuild only this tenant's rows, in the models that tell tenants apart.")
]
Chunk = Annotated[int, typer.Option(min=1, metavar="DAYS", help="Days of one run.")]
Restart = Annotated[bool, typer.Option("--restart", help="Forget what an interrupted backfill has done.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON array of what each run did.")]


def backfill(
    models: Models = None,
    *,
    first: First = None,
    last: Last = None,
    tenant: Tenant = None,
    chunk: Chunk = 31,
    restart: Restart = False,
    as_json: AsJson = False,
) -> None:
    """Rebuild days of Silver and Gold from the layer before; interrupted, the same command continues."""
    arguments = [*(models or ()), "--chunk", str(chunk)]
    for option, day in (("--from", first), ("--to", last)):
        arguments += [option, day.date().isoformat()] if day else []
    arguments += ["--tenant", tenant] if tenant else []
    arguments += [option for option, wanted in (("--restart", restart), ("--json", as_json)) if wanted]
    # The code location is a package of its own; taking this process's place keeps the terminal and signals simple.
    os.execv(sys.executable, [sys.executable, "-m", "freshdata_assets.backfill", *arguments])  # noqa: S606 - no shell
