"""``freshdata key``."""

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="API keys of the event gateway: create, list and revoke them.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Tenant = Annotated[str, typer.Option(help="The tenant whose events the key may write.")]
Streams = Annotated[
    list[str] | None, typer.Option("--stream", help="A stream the key may write to; may be repeated. [default: all]")
]
Label = Annotated[str, typer.Option(help="What the key is for.")]


@app.command()
def create(*, tenant: Tenant, stream: Streams = None, label: Label = "", as_json: AsJson = False) -> None:
    """Create a key; it is shown now and never again."""
    import json

    from rich.console import Console
    from rich.markup import escape

    from freshdata.api_keys import create_key, keys_file
    from freshdata.contracts import load_contracts, stream_contract
    from freshdata.settings import load_settings

    settings = load_settings()
    contracts = load_contracts(settings.contracts_dir)
    for name in stream or ():
        stream_contract(contracts, name)
    key, token = create_key(keys_file(settings), tenant=tenant, streams=stream or (), label=label)
    if as_json:
        typer.echo(json.dumps({"id": key.id, "tenant": key.tenant, "streams": key.streams, "key": token}))
        return
    typer.echo(token)
    where = ", ".join(key.streams) or "all streams"
    Console(stderr=True, highlight=False).print(
        f"[green]✓[/green] Key {key.id} writes the events of {escape(tenant)} to {where}. "
        "[dim]Keep it: only its hash is stored.[/dim]"
    )


@app.command("list")
def list_keys(*, as_json: AsJson = False) -> None:
    """The keys, without their secrets."""
    import json

    from rich.markup import escape
    from rich.table import Table

    from freshdata.api_keys import keys_file, read_keys
    from freshdata.cli.output import console, json_value
    from freshdata.settings import load_settings

    keys = read_keys(keys_file(load_settings()))
    if as_json:
        shown = ("id", "tenant", "streams", "label", "created", "revoked")
        typer.echo(json.dumps([{name: getattr(key, name) for name in shown} for key in keys], default=json_value))
        return
    table = Table("key", "tenant", "streams", "label", "created", "revoked", header_style="bold")
    for key in keys:
        times = [f"{at:%Y-%m-%d %H:%M}" if at else "" for at in (key.created, key.revoked)]
        table.add_row(key.id, escape(key.tenant), ", ".join(key.streams) or "all", escape(key.label), *times)
    console().print(table)


@app.command()
def revoke(identifier: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, from `list`.")]) -> None:
    """Revoke a key: the gateway refuses it from now on."""
    from freshdata.api_keys import keys_file, revoke_key
    from freshdata.cli.output import console
    from freshdata.settings import load_settings

    key = revoke_key(keys_file(load_settings()), identifier)
    console().print(f"[green]✓[/green] Key {key.id} is revoked.")
