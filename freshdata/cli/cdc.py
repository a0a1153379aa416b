"""``freshdata cdc``."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from freshdata.cdc.health import Health

app = typer.Typer(no_args_is_help=True, help="Follow a database's tables, change by change.")
Source = Annotated[str | None, typer.Argument(help="Name of the source; not needed when there is only one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def add(
    *,
    dsn: Annotated[
        str, typer.Option(envvar="FRESHDATA_CDC_DSN", help="postgresql://user@host:port/database; PGPASSWORD counts.")
    ],
    tables: Annotated[
        str, typer.Option(help="Tables to follow, a,b,c; a schema other than public is named: s.t.")
    ] = "",
    name: Annotated[str | None, typer.Option(help="Name of the source. [default: the database's]")] = None,
    without: Annotated[list[str] | None, typer.Option(help="Column to leave out, table.column; repeat it.")] = None,
    avro: Annotated[
        bool | None, typer.Option("--avro/--json-values", help="How changes are written to Kafka. [default: JSON]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Follow tables of a PostgreSQL database; again, to follow more of them, or what has changed about them."""
    import json

    from freshdata.cdc.add import add as follow
    from freshdata.cli.output import console
    from freshdata.settings import load_settings

    output = console()
    wanted = [table.strip() for table in tables.split(",") if table.strip()]
    with output.status("Connecting") as status:
        added = follow(
            load_settings(),
            dsn=dsn,
            tables=wanted,
            name=name,
            without=without or (),
            avro=avro,
            tell=status.update,
        )
    if as_json:
        contracts = {table: contract.name for table, contract in added.contracts.items()}
        facts = {"source": added.source.name, "contracts": contracts, "written": added.written}
        typer.echo(json.dumps(facts | {"snapshots": added.snapshots, "advice": added.advice}))
        return
    for table, contract in added.contracts.items():
        what = f"contract {contract.version} written" if table in added.written else "as before"
        output.print(f"[green]✓[/green] {table} → [bold]{contract.table}[/bold]  [dim]{what}[/dim]")
    if added.snapshots:
        output.print(f"Read whole again beside the changes: {', '.join(added.snapshots)}.")
    for line in added.advice:
        output.print(f"[yellow]![/yellow] {line}")
    output.print(f"[dim]freshdata cdc status {added.source.name}[/dim]")


@app.command()
def status(source: Source = None, *, as_json: AsJson = False) -> None:
    """How each source's capture is; exit code 1 if one does not capture."""
    import json
    from dataclasses import asdict

    from freshdata.cdc.connector import Connect
    from freshdata.cdc.health import read_health
    from freshdata.cdc.source import known_source, read_sources
    from freshdata.cli.output import console
    from freshdata.settings import load_settings

    settings = load_settings()
    chosen = [known_source(settings, source)] if source else list(read_sources(settings).values())
    api = Connect(settings) if chosen else None
    found = [read_health(api, one) for one in chosen if api]
    if as_json:
        typer.echo(json.dumps([asdict(health) | {"ok": health.ok, "remedy": health.remedy} for health in found]))
    else:
        _show(console(), found)
    if not all(health.ok for health in found):
        raise typer.Exit(1)


@app.command()
def restart(source: Source = None) -> None:
    """Start a source's failed or stopped connector again."""
    from freshdata.cdc.connector import Connect
    from freshdata.cdc.source import known_source
    from freshdata.cli.output import console
    from freshdata.settings import load_settings

    settings = load_settings()
    chosen = known_source(settings, source)
    api = Connect(settings)
    api.resume(chosen.name)
    api.restart(chosen.name)
    with console().status("Starting"):
        api.wait_running(chosen.name)
    console().print(f"[green]✓[/green] {chosen.name} captures.")


@app.command()
def snapshot(
    tables: Annotated[list[str], typer.Argument(help="Captured tables, table or schema.table.")],
    *,
    source: Annotated[str | None, typer.Option(help="Name of the source; not needed when there is only one.")] = None,
) -> None:
    """Read captured tables whole again, in pieces beside the changes, which go on."""
    from freshdata.cdc.connector import Connect
    from freshdata.cdc.signals import read_whole
    from freshdata.cdc.source import known_source
    from freshdata.cli.output import console
    from freshdata.errors import CaptureError
    from freshdata.settings import load_settings

    settings = load_settings()
    chosen = known_source(settings, source)
    named = [table if "." in table else f"public.{table}" for table in tables]
    if unknown := [table for table in named if table not in chosen.tables]:
        raise CaptureError(
            chosen.name, [f"{', '.join(unknown)} is not captured"], remedy=f"Choose of: {', '.join(chosen.tables)}."
        )
    read_whole(Connect(settings), chosen, named)
    console().print(f"[green]✓[/green] Debezium is asked to read {', '.join(named)}; its rows arrive in the stream.")


@app.command()
def recover(source: Source = None) -> None:
    """Read a source's tables whole into a new replication slot, after changes were missed."""
    from freshdata.cdc.recovery import recover as begin_anew
    from freshdata.cdc.source import known_source
    from freshdata.cli.output import console
    from freshdata.settings import load_settings

    settings = load_settings()
    chosen = known_source(settings, source)
    with console().status("Beginning anew"):
        begin_anew(settings, chosen)
    console().print(f"[green]✓[/green] {chosen.name} captures again; its tables are read whole first.")


@app.command()
def remove(source: Source = None) -> None:
    """End a source's capture, and drop its replication slot; contracts and tables stay."""
    from freshdata.cdc.recovery import remove as end
    from freshdata.cdc.source import known_source
    from freshdata.cli.output import console
    from freshdata.settings import load_settings

    settings = load_settings()
    chosen = known_source(settings, source)
    with console().status("Removing"):
        left = end(settings, chosen)
    console().print(f"[green]✓[/green] {chosen.name} is not captured any more.")
    for line in left:
        console().print(f"[yellow]![/yellow] {line}")


@app.command()
def demo(
    *,
    seconds: Annotated[float, typer.Option(min=1, help="How long people use the shop.")] = 120,
    rate: Annotated[float, typer.Option(min=0.1, help="Their transactions a second.")] = 50,
) -> None:
    """Capture a shop's database while people use it, and compare Silver with it, row by row."""
    from freshdata.cli.demo import show
    from freshdata.demo.capture import CaptureDemo
    from freshdata.services.extras import Extra, prepare
    from freshdata.services.instance import choose_instance
    from freshdata.settings import load_settings

    settings = choose_instance(load_settings(), "shop")
    prepare(settings, Extra.CDC)
    run = CaptureDemo(settings, seconds=seconds, rate=rate)
    show(
        run,
        lambda tell, line: run.run(
            tell=tell, progress=lambda done: line.update(f"using the shop: {done['transactions']:,} transactions")
        ),
    )


def _show(output: "Console", found: "list[Health]") -> None:
    from rich.markup import escape
    from rich.table import Table

    if not found:
        output.print("No database is followed. [dim]freshdata cdc add[/dim]")
        return
    table = Table("source", "state", "tables", header_style="bold")
    for column in ("not captured", "kept by the database"):
        table.add_column(column, justify="right")
    for health in found:
        color = "green" if health.ok else "red"
        state = f"[{color}]{'CHANGES MISSED' if health.lost else health.state}[/{color}]"
        table.add_row(health.source, state, str(len(health.tables)), _bytes(health.lag), _bytes(health.retained))
    output.print(table)
    for health in found:
        for problem in (health.lost, health.unreachable, "" if health.lost else health.reason):
            if problem:
                output.print(f"[red]✗[/red] {health.source}: {escape(problem)}. [dim]{health.remedy}[/dim]")


def _bytes(count: int | None) -> str:
    if count is None:
        return "?"
    size = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"
