"""``freshdata snapshot``."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from freshdata.lake.tags import Tag

TableName = Annotated[str, typer.Argument(help="The table, as namespace.table.")]
TagName = Annotated[str | None, typer.Option("--tag", metavar="NAME", help="Put a new tag on the current snapshot.")]
SnapshotId = Annotated[int | None, typer.Option(help="Put it on this snapshot instead.")]
AsOf = Annotated[
    str | None, typer.Option(metavar="TIME", help="Put it on what the table held then: an ISO 8601 time, UTC if bare.")
]
DropName = Annotated[str | None, typer.Option("--drop", metavar="NAME", help="Remove a tag.")]
Limit = Annotated[int, typer.Option(min=1, help="Snapshots to list.")]
Json = Annotated[bool, typer.Option("--json", help="Print a JSON object; ids are text, they do not fit its numbers.")]


def snapshot(
    table: TableName,
    *,
    tag: TagName = None,
    snapshot_id: SnapshotId = None,
    as_of: AsOf = None,
    drop: DropName = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """List a table's tags and snapshots, tag a snapshot, or remove a tag."""
    from freshdata.lake.catalog import load_table, open_catalog
    from freshdata.lake.tags import create_tag, drop_tag, snapshot_at
    from freshdata.settings import load_settings

    if tag and drop:
        raise typer.BadParameter("either --tag or --drop")
    if not tag and (snapshot_id is not None or as_of is not None):
        raise typer.BadParameter("--snapshot-id and --as-of say where --tag goes")
    if snapshot_id is not None and as_of is not None:
        raise typer.BadParameter("either --snapshot-id or --as-of")
    found = load_table(open_catalog(load_settings()), table)
    if tag:
        chosen = snapshot_at(found, _time(as_of)) if as_of is not None else snapshot_id
        _show_one(found, create_tag(found, tag, snapshot_id=chosen), "tagged", as_json=as_json)
    elif drop:
        _show_one(found, drop_tag(found, drop), "dropped", as_json=as_json)
    else:
        _list(found, limit, as_json=as_json)


def _time(text: str) -> datetime:
    from datetime import UTC

    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no ISO 8601 time such as 2013-07-01T00:00", param_hint="--as-of"
        ) from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _show_one(table: "Table", tag: "Tag", done: str, *, as_json: bool) -> None:
    import json

    from freshdata.cli.output import console

    name = ".".join(table.name())
    if as_json:
        typer.echo(json.dumps({"table": name, done: _plain(tag)}))
    else:
        console().print(
            f"[green]✓[/green] {name}: {done} [bold]{tag.name}[/bold], "
            f"snapshot {tag.snapshot_id} of {tag.committed:%Y-%m-%d %H:%M:%S} UTC"
        )


def _list(table: "Table", limit: int, *, as_json: bool) -> None:
    import json

    from rich.table import Table as Shown

    from freshdata.cli.output import console
    from freshdata.lake.history import history
    from freshdata.lake.tags import list_tags

    tags, past = list_tags(table), history(table, limit=limit)
    if as_json:
        snapshots = [
            {"snapshot_id": str(entry.snapshot_id), "at": entry.at.isoformat(), "tags": entry.tags}
            for entry in past.entries
        ]
        content = {"table": past.table, "tags": [_plain(tag) for tag in tags], "snapshots": snapshots}
        typer.echo(json.dumps(content))
        return
    shown = Shown("tag", "snapshot", "committed (UTC)", "kept until (UTC)", header_style="bold", title=past.table)
    for tag in tags:
        until = f"{tag.expires:%Y-%m-%d %H:%M}" if tag.expires else "dropped"
        shown.add_row(tag.name, str(tag.snapshot_id), f"{tag.committed:%Y-%m-%d %H:%M:%S}", until)
    output = console()
    output.print(shown)
    listed = Shown("snapshot", "committed (UTC)", "tags", header_style="bold")
    for entry in past.entries:
        listed.add_row(str(entry.snapshot_id), f"{entry.at:%Y-%m-%d %H:%M:%S}", ", ".join(entry.tags))
    output.print(listed)
    output.print(f"[dim]What made them: freshdata history {past.table}[/dim]")


def _plain(tag: "Tag") -> dict[str, str | None]:
    return {
        "name": tag.name,
        "snapshot_id": str(tag.snapshot_id),
        "committed": tag.committed.isoformat(),
        "expires": tag.expires.isoformat() if tag.expires else None,
    }
