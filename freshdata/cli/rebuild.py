"""``freshdata rebuild``."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from freshdata.transform.rebuild import Rebuilt

Layer = Annotated[str, typer.Option(help="silver or gold: the layer to replay from the one before.")]
Models = Annotated[list[str] | None, typer.Argument(help="Just these models of the layer; all when left out.")]
First = Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day; the first there is.")]
Last = Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day; the last there is.")]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Swap even if rows are not made from the layer before any more.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON array of what became of each table.")]


def rebuild(
    models: Models = None,
    *,
    layer: Layer,
    first: First = None,
    last: Last = None,
    allow_missing: AllowMissing = False,
    as_json: AsJson = False,
) -> None:
    """Build a layer's tables anew from the layer before, beside the live ones; reconcile them, and swap."""
    import json
    from dataclasses import asdict

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from freshdata.errors import TransformError
    from freshdata.settings import load_settings
    from freshdata.transform.runner import open_runner

    days = (first.date() if first else None, last.date() if last else None)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    done = []
    with open_runner(load_settings()) as runner, Progress(*columns, console=Console(stderr=True)) as bars:
        known = [info.name for info in runner.manifest.values() if info.layer == layer]
        chosen = [name for name in known if not models or name in models]
        if not known or len(chosen) < len(models or ()):
            layers = sorted({info.layer for info in runner.manifest.values()})
            raise TransformError(
                f"of layer {layer}",
                f"{', '.join(set(models or ()) - set(known)) or 'of this project'} does not exist.",
                remedy=f"Layers are {', '.join(layers)}"
                + (f"; models of {layer}: {', '.join(known)}." if known else "."),
            )
        for name in chosen:
            task = bars.add_task(name, total=None)
            done.append(
                runner.rebuild(
                    name,
                    days,
                    allow_missing=allow_missing,
                    advance=lambda built, total, task=task: bars.update(task, completed=built, total=total),  # type: ignore[misc]
                )
            )
    if as_json:
        typer.echo(json.dumps([asdict(outcome) for outcome in done], default=str))
    else:
        _show(done)


def _show(done: "list[Rebuilt]") -> None:
    from rich.table import Table

    from freshdata.cli.output import console

    table = Table("table", "days", header_style="bold")
    for heading in ("rows", "gained", "lost"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for one in done:
        days = f"{one.days[0]} to {one.days[1]}" if one.days else "all"
        told = "swapped" if one.snapshot_id else "equal, left as it is"
        table.add_row(one.model, days, f"{one.rows:,}", f"{one.gained:,}", f"{one.lost:,}", told)
    console().print(table)
    if any(one.snapshot_id for one in done):
        console().print(
            "The next live run takes what has changed further. [dim]freshdata verify compares all layers.[/dim]"
        )
