"""``freshdata history``."""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from freshdata.lake.history import Entry, History

TableName = Annotated[str, typer.Argument(help="The table, as namespace.table.")]
Day = Annotated[
    datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only commits that touched this day's partition.")
]
Limit = Annotated[int, typer.Option(min=1, help="Commits to show.")]
Json = Annotated[bool, typer.Option("--json", help="Print a JSON object; ids are text, they do not fit its numbers.")]


def history(table: TableName, *, day: Day = None, limit: Limit = 20, as_json: Json = False) -> None:
    """What made a table's rows: each commit, with its model's code, run and upstream, or its Kafka offsets."""
    import json

    from freshdata.cli.output import console
    from freshdata.lake.catalog import load_table, open_catalog
    from freshdata.lake.history import history as table_history
    from freshdata.settings import load_settings

    found = load_table(open_catalog(load_settings()), table)
    past = table_history(found, day=day.date() if day else None, limit=limit)
    if as_json:
        typer.echo(json.dumps(_plain(past)))
        return
    output = console()
    for line in _lines(past):
        output.print(line, soft_wrap=True)


def _lines(past: "History") -> Iterator[str]:
    yield f"[bold]{past.table}[/bold]" + (f", {past.day}" if past.day else "")
    for entry in past.entries:
        tags = "".join(f" [yellow]\\[{tag}][/yellow]" for tag in entry.tags)
        yield (
            f"[cyan]●[/cyan] {entry.at:%Y-%m-%d %H:%M:%S}  {entry.operation}  "
            f"[green]+{entry.rows_added}[/green] [red]-{entry.rows_removed}[/red]  [dim]{entry.snapshot_id}[/dim]{tags}"
        )
        yield from (f"    {line}" for line in _maker(entry))
    if past.sources:
        yield f"The rows of {past.day} that are live now:"
    known = {entry.snapshot_id: entry for entry in past.entries}
    for source in past.sources:
        rows = f"  {source.rows} in {source.files} file{'s' if source.files > 1 else ''}, by {source.snapshot_id}"
        if source.expired:
            # A change of the model's code rebuilds all rows, so that the version holds though the snapshot is gone.
            yield f"{rows}, which has expired" + (f"; code {past.fingerprint}" if past.fingerprint else "")
        else:
            made = known.get(source.snapshot_id)
            yield rows + (f" of {made.at:%Y-%m-%d %H:%M:%S}" if made else "")
    if past.more:
        yield "[dim]There are older ones: --limit.[/dim]"
    elif past.expired:
        yield "[dim]What came before has expired.[/dim]"


def _maker(entry: "Entry") -> Iterator[str]:
    if model := entry.model:
        parts = [model.mode, f"days {model.interval.replace(',', ', ')}" if model.interval else ""]
        parts += [f"code {model.fingerprint}", f"commit {model.commit}" if model.commit else ""]
        parts += [f"run {model.run}", f"Dagster {model.dagster_run}" if model.dagster_run else ""]
        yield " · ".join(filter(None, parts))
        yield "from " + ", ".join(f"{name} {snapshot}" for name, snapshot in model.upstream.items())
    if worker := entry.worker:
        ranges = (
            f"{number} [{'…' if first is None else first}, {last})"
            for number, (first, last) in sorted(worker.offsets.items())
        )
        yield "offsets by partition  " + (", ".join(ranges) or "none")
        if worker.counts is not None:
            yield ", ".join(f"{count} {outcome}" for outcome, count in worker.counts.items())


def _plain(past: "History") -> dict[str, Any]:
    return {
        "table": past.table,
        "day": past.day.isoformat() if past.day else None,
        "commits": [_plain_entry(entry) for entry in past.entries],
        "more": past.more,
        "expired": past.expired,
        "fingerprint": past.fingerprint,
        "sources": [vars(source) | {"snapshot_id": str(source.snapshot_id)} for source in past.sources],
    }


def _plain_entry(entry: "Entry") -> dict[str, Any]:
    content = vars(entry) | {"snapshot_id": str(entry.snapshot_id), "at": entry.at.isoformat()}
    if entry.model:
        upstream = {name: str(snapshot) for name, snapshot in entry.model.upstream.items()}
        content["model"] = vars(entry.model) | {"upstream": upstream}
    if entry.worker:
        content["worker"] = vars(entry.worker)
    return content
