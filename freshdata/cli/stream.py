"""``freshdata stream``."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from freshdata.settings import Settings
    from freshdata.streams.new import NewStream
    from freshdata.streams.samples import Sample

app = typer.Typer(no_args_is_help=True, help="Make a new stream from real events.")


@app.callback()
def _commands() -> None:
    """Keep ``new`` a command of its own, though it is the only one."""


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the stream: its contract, tables and models.")],
    *,
    sample: Annotated[Path | None, typer.Option(help="A file of JSON Lines: one event on each line.")] = None,
    topic: Annotated[str | None, typer.Option(help="A Kafka topic whose messages are the events.")] = None,
    table: Annotated[
        str | None, typer.Option(help="An Iceberg table of the catalog whose rows are what the events will carry.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Field that identifies an event, and is the message key.")] = None,
    version: Annotated[str | None, typer.Option(help="Field that orders the versions of a key.")] = None,
    event_time: Annotated[str | None, typer.Option(help="Field that says when an event happened.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Field that says whose an event is.")] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="FIELD=TYPE, such as price=decimal(10,2); repeatable.")
    ] = None,
    partitions: Annotated[int | None, typer.Option(min=1, max=10_000, help="Kafka partitions.")] = None,
    granularity: Annotated[str | None, typer.Option(help="Bronze partitions by day or hour.")] = None,
    tenant_partition: Annotated[str | None, typer.Option(help="tenant, or bucket(N).")] = None,
    lateness: Annotated[str | None, typer.Option(help="How late an event may be: PT6H.")] = None,
    freshness: Annotated[str | None, typer.Option(help="How old a tenant's newest event may be: PT1H.")] = None,
    owner: Annotated[str | None, typer.Option(help="Team or address that owns the data.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write files anew that exist already.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be written.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Infer a stream from real events, and write its contract, Silver and Gold models, unit tests and checks.

    What it guesses it says, with the reason; an option overrides each guess.
    """
    from freshdata.settings import load_settings
    from freshdata.streams.model import Choices
    from freshdata.streams.new import check_name, new_stream

    settings = load_settings()
    check_name(name)
    found = _sample(settings, sample, topic, table)
    choices = Choices(
        key=key,
        version=version,
        event_time=event_time,
        tenant=tenant,
        types=_types(types or []),
        partitions=partitions,
        granularity=granularity,
        tenant_partition=tenant_partition,
        lateness=_duration("--lateness", lateness),
        freshness=_duration("--freshness", freshness),
        owner=owner,
    )
    made = new_stream(settings, name, found, choices, overwrite=overwrite, write=not dry_run)
    if as_json:
        _print_json(settings, made, written=not dry_run)
    else:
        _print(settings, made, written=not dry_run, file=sample)


def _sample(settings: "Settings", file: Path | None, topic: str | None, table: str | None) -> "Sample":
    from freshdata.errors import SampleError
    from freshdata.streams.samples import read_file, read_table, read_topic

    if sum(each is not None for each in (file, topic, table)) != 1:
        raise SampleError(
            "A stream is made from one sample.", remedy="Give one of --sample FILE.jsonl, --topic T and --table T."
        )
    if file is not None:
        return read_file(file)
    return read_topic(settings, topic) if topic is not None else read_table(settings, str(table))


def _types(given: list[str]) -> dict[str, str]:
    from freshdata.errors import SampleError

    pairs = [each.partition("=") for each in given]
    if wrong := [name + sign for name, sign, kind in pairs if not (name and kind)]:
        raise SampleError(
            f"--type {wrong[0]} names no field and type.", remedy="Write FIELD=TYPE: price=decimal(10,2)."
        )
    return {name: kind for name, _, kind in pairs}


def _duration(name: str, value: str | None) -> timedelta | None:
    from freshdata.contracts.heartbeat import read_duration

    return None if value is None else read_duration("to be", name, value)


def _print_json(settings: "Settings", made: "NewStream", *, written: bool) -> None:
    import json
    from dataclasses import asdict

    typer.echo(
        json.dumps(
            {
                "stream": made.contract.name,
                "written": written,
                "files": [str(path.relative_to(settings.project)) for path in made.files],
                "sample": {"source": made.inferred.sample.source, "events": len(made.inferred.sample.rows)},
                "decisions": [asdict(each) for each in made.inferred.decisions],
            }
        )
    )


def _print(settings: "Settings", made: "NewStream", *, written: bool, file: Path | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    from freshdata.cli.output import console

    output, inferred = console(), made.inferred
    shown = Table("", "what", "guess", "because", header_style="bold")
    for each in inferred.decisions:
        mark = "[yellow]?[/yellow]" if each.review else "[green]✓[/green]"
        shown.add_row(mark, escape(each.what), escape(each.value), escape(each.why))
    output.print(f"{inferred.name}, from {len(inferred.sample.rows):,} events of {inferred.sample.source}:")
    output.print(shown)
    output.print("[yellow]?[/yellow] Look at these: the sample does not prove them. Options and the files change them.")
    for path in made.files:
        output.print(f"{'[green]✓[/green] wrote' if written else 'would write'} {path.relative_to(settings.project)}")
    if written:
        send = f"freshdata produce {inferred.name} --file {file}" if file else "its worker reads the topic"
        output.print(f"Next: [bold]freshdata up[/bold], then [bold]{send}[/bold].")
