"""The ``freshdata`` command. Commands import what they need when they run, so that ``--help`` answers at once."""

import sys

import typer

from freshdata.cli import (
    backfill,
    cdc,
    contract,
    demo,
    environments,
    forget,
    gateway,
    history,
    key,
    maintain,
    produce,
    quarantine,
    query,
    rebuild,
    replay,
    services,
    snapshot,
    stream,
    verify,
    views,
    worker,
)
from freshdata.errors import FreshDataError

app = typer.Typer(
    name="freshdata",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Data that is fresh, fast and right: from a data contract to Kafka, Iceberg, checks and lineage.",
    epilog="Start with [bold]freshdata demo[/bold], then [bold]freshdata up[/bold].",
)
app.command(help="Run the main job on real data, end to end, and check every number.")(demo.demo)
app.command(help="Start the platform and leave it running.")(services.up)
app.command(help="Stop the platform.")(services.down)
app.command(help="What runs, on which port, and how fresh each table is.")(services.status)
app.command(help="Replay the sample's events into Kafka, or send a file to a stream.")(produce.produce)
app.command(help="Run the stream worker of one stream until it is stopped.")(worker.worker)
app.command(help="Run the event gateway, the HTTP door to Kafka, until it is stopped.")(gateway.gateway)
app.command(help="Compare Kafka, Bronze, quarantine, Silver and Gold row by row.")(verify.verify)
app.command(help="Rebuild a stream's Bronze from Kafka beside the live tables, check it, and swap.")(replay.replay)
app.command(help="Rebuild days of Silver and Gold from the layer before.")(backfill.backfill)
app.command(help="Build a layer's tables anew beside the live ones, reconcile them, and swap.")(rebuild.rebuild)
app.command(help="Build your models beside production, and compare the two.")(environments.plan)
app.command(help="Deploy an environment's models to production.")(environments.promote)
app.command(help="Take back the last promotion, or one model to its version before.")(environments.rollback)
app.command(help="List the environments, and what production follows; remove one.")(environments.environments)
app.command(help="Keep tables small: compact, merge manifests, expire snapshots, remove orphans.")(maintain.maintain)
app.command(help="Erase a person from all layers, snapshots and files, and prove it.")(forget.forget)
app.command(help="Run SQL over the lake.")(query.query)
app.command(help="List the serving views, or print one's SELECT for Spark, Trino, …")(views.views)
app.command(help="List a table's tags and snapshots, tag a snapshot, or remove a tag.")(snapshot.snapshot)
app.command(help="What made a table's rows: each commit's code, run and upstream, or its Kafka offsets.")(
    history.history
)
app.add_typer(cdc.app, name="cdc")
app.add_typer(contract.app, name="contract")
app.add_typer(key.app, name="key")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(stream.app, name="stream")


def main() -> None:
    """Entry point: a mistake of the user's ends in one line and exit code 1, never in a traceback."""
    try:
        app()
    except FreshDataError as error:
        from rich.console import Console

        Console(stderr=True).print(f"[red]✗[/red] {error.message} [dim]{error.remedy}[/dim]", highlight=False)
        sys.exit(1)
