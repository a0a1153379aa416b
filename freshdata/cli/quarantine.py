"""``freshdata quarantine``."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from freshdata.contracts import Contract
    from freshdata.quarantine import Place, Problem, Quarantine, RejectedEvent
    from freshdata.quarantine.corrections import Correction
    from freshdata.quarantine.replay import Outcome
    from freshdata.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Look at the events that broke their contract, and send them again.")
SHOWN = 20
MOST_EXAMPLES = 5

Stream = Annotated[str, typer.Argument(help="Name of the stream contract.")]
AnyStream = Annotated[str | None, typer.Argument(help="Name of the stream contract; all streams when left out.")]
Places = Annotated[
    list[str] | None, typer.Argument(metavar="[PARTITION:OFFSET]...", help="Only the events at these places.")
]
Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="Only events whose reason contains this text.")]
Limit = Annotated[
    int | None, typer.Option(min=1, help=f"Events to show, the newest. [default: {SHOWN}; all with --json]")
]
Everything = Annotated[bool, typer.Option("--all", help="All rejected events of the stream.")]
Again = Annotated[bool, typer.Option("--again", help="Also what was sent again before; name the events.")]
Source = Annotated[
    str | None, typer.Option("--from", metavar="FILE", help="Send the edited lines of `show --json`; - reads stdin.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON array with an object for each stream and reason.")]
AsLines = Annotated[
    bool, typer.Option("--json", help="Print a line of JSON for each event; edit it for replay --from.")
]
AsObject = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("list")
def list_rejected(stream: AnyStream = None, *, as_json: AsJson = False) -> None:
    """What was rejected, by reason: how many events, how many still wait, since when, and an example."""
    import json
    from dataclasses import asdict

    from freshdata.cli.output import console, json_value
    from freshdata.contracts import load_contracts
    from freshdata.lake.catalog import open_catalog
    from freshdata.quarantine import Quarantine
    from freshdata.settings import load_settings

    settings = load_settings()
    contracts = load_contracts(settings.contracts_dir)
    streams = [_contract(settings, stream)] if stream else [one for one in contracts.values() if one.stream]
    catalog = open_catalog(settings)
    found = {contract.name: Quarantine(catalog, contract).problems() for contract in streams}
    if as_json:
        rows = [asdict(one) | {"example": str(one.example)} for problems in found.values() for one in problems]
        typer.echo(json.dumps(rows, default=json_value))
        return
    output = console()
    for name, problems in found.items():
        if problems:
            output.print(_problems(name, problems))
        else:
            output.print(f"{name}: no event was rejected.")


@app.command()
def show(
    stream: Stream, places: Places = None, *, reason: Reason = None, limit: Limit = None, as_json: AsLines = False
) -> None:
    """The rejected events themselves, the newest first: key, reason, contract version, time and payload."""
    from freshdata.cli.output import console
    from freshdata.quarantine.corrections import to_line

    quarantine = _quarantine(stream)
    chosen = quarantine.select(_places(stream, places), reason)
    count = min(chosen.num_rows, limit or (chosen.num_rows if as_json else SHOWN))
    newest = chosen.sort_by([(name, "descending") for name in ("ingested_at", "partition", "offset")]).slice(0, count)
    if as_json:
        for event in quarantine.events(newest):
            typer.echo(to_line(event))
        return
    output = console()
    for event in quarantine.events(newest):
        _print_event(output, event)
    if not chosen.num_rows:
        output.print(f"{stream}: no event was rejected.")
    elif newest.num_rows < chosen.num_rows:
        output.print(f"[dim]{chosen.num_rows - newest.num_rows:,} older ones: --limit, or --reason TEXT.[/dim]")


@app.command()
def replay(
    stream: Stream,
    places: Places = None,
    *,
    reason: Reason = None,
    everything: Everything = False,
    source: Source = None,
    again: Again = False,
    as_json: AsObject = False,
) -> None:
    """Send rejected events again, unchanged or corrected; exit code 1 if some are refused still."""
    from freshdata.quarantine.replay import Choice, replay_rejected
    from freshdata.settings import load_settings

    chosen = bool(places) or reason is not None
    if chosen + everything + (source is not None) != 1:
        raise typer.BadParameter("name events as PARTITION:OFFSET or by --reason, or say --all, or --from FILE")
    if again and not (places or source):
        raise typer.BadParameter("--again needs the events by name: PARTITION:OFFSET, or --from FILE")
    settings = load_settings()
    contract = _contract(settings, stream)
    corrections = _corrections(stream, source) if source is not None else ()
    choice = Choice(_places(stream, places), reason, corrections, again=again)
    with _progress() as progress:
        outcome = replay_rejected(settings, contract, choice, progress=progress)
    _print_json(stream, outcome) if as_json else _print_outcome(contract, outcome)
    if outcome.refused or outcome.failed:
        raise typer.Exit(1)


def _contract(settings: "Settings", stream: str) -> "Contract":
    from freshdata.contracts import load_contracts, stream_contract

    return stream_contract(load_contracts(settings.contracts_dir), stream)


def _quarantine(stream: str) -> "Quarantine":
    from freshdata.lake.catalog import open_catalog
    from freshdata.privacy import load_secret
    from freshdata.quarantine import Quarantine
    from freshdata.settings import load_settings

    settings = load_settings()
    return Quarantine(open_catalog(settings), _contract(settings, stream), load_secret(settings))


def _places(stream: str, texts: list[str] | None) -> "tuple[Place, ...]":
    from freshdata.errors import QuarantineError
    from freshdata.quarantine import Place

    found = []
    for text in texts or ():
        place = Place.parse(text)
        if place is None:
            raise QuarantineError(
                stream,
                f"{text!r} is no event's place.",
                remedy=f"Write PARTITION:OFFSET, as `freshdata quarantine show {stream}` does.",
            )
        found.append(place)
    return tuple(found)


def _corrections(stream: str, source: str) -> "tuple[Correction, ...]":
    from freshdata.errors import QuarantineError
    from freshdata.quarantine.corrections import read_corrections

    try:
        content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise QuarantineError(
            stream, f"{source} cannot be read: {error.strerror}.", remedy="Name a file, or - for standard input."
        ) from error
    name = "standard input" if source == "-" else source
    return tuple(read_corrections(stream, content.split(b"\n"), name))


def _problems(stream: str, problems: "list[Problem]") -> "Table":
    from rich.markup import escape
    from rich.table import Table

    from freshdata.quarantine.payload import printable

    table = Table(header_style="bold", title=stream, title_justify="left")
    table.add_column("reason", overflow="fold")
    for column in ("events", "waiting"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("first", "newest", "example"):
        table.add_column(column, no_wrap=True)
    for problem in problems:
        table.add_row(
            escape(printable(problem.reason)),
            f"{problem.events:,}",
            f"{problem.waiting:,}",
            f"{problem.first:%Y-%m-%d %H:%M}",
            f"{problem.newest:%Y-%m-%d %H:%M}",
            str(problem.example),
        )
    return table


def _print_event(output: "Console", event: "RejectedEvent") -> None:
    from rich.markup import escape

    from freshdata.quarantine.payload import printable, readable

    again = event.replayed
    how = "corrected, " if again and again.corrected else ""
    sent = f"  [green]sent again {how}{again.at:%Y-%m-%d %H:%M:%S}, as {again.place}[/green]" if again else ""
    key = "[dim]none[/dim]" if event.key is None else escape(printable(event.key.decode(errors="backslashreplace")))
    output.print(
        f"[cyan]●[/cyan] [bold]{event.place}[/bold]  {event.ingested_at:%Y-%m-%d %H:%M:%S} UTC  "
        f"contract {event.contract_version}{sent}",
        soft_wrap=True,
    )
    output.print(f"  [dim]key[/dim]     {key}", soft_wrap=True)
    output.print(f"  [dim]reason[/dim]  {escape(printable(event.reason))}", soft_wrap=True)
    for line in readable(event.payload).split("\n"):
        output.print(f"    {escape(line)}", soft_wrap=True)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar of the events that are done, on standard error, once the first of several portions is."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sending", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_json(stream: str, outcome: "Outcome") -> None:
    import json

    content = {
        "stream": stream,
        "contract_version": outcome.contract_version,
        "sent": [{"at": str(place), "as": str(now)} for place, now in outcome.sent],
        "sent_before": outcome.before,
        "refused": [{"at": str(place), "reason": reason} for place, reason in outcome.refused],
        "failed": [{"at": str(place), "error": error} for place, error in outcome.failed],
    }
    typer.echo(json.dumps(content))


def _print_outcome(contract: "Contract", outcome: "Outcome") -> None:
    from freshdata.cli.output import console

    output, stream = console(), contract.name
    if outcome.before:
        output.print(f"{outcome.before:,} were sent again before, and not now. [dim]Name them with --again.[/dim]")
    _print_by_words(output, "are still refused and were not sent", outcome.refused)
    _print_by_words(output, "were not taken by Kafka", outcome.failed)
    if outcome.refused and outcome.contract_version != contract.version:
        output.print(
            f"[yellow]![/yellow] They were judged by version {outcome.contract_version}, which is published; the file "
            f"has {contract.version}. [dim]freshdata contract publish {stream}[/dim]"
        )
    if outcome.refused:
        output.print(f"[dim]Correct them: freshdata quarantine show {stream} --json, then replay --from FILE.[/dim]")
    if outcome.sent:
        output.print(
            f"[green]✓[/green] {len(outcome.sent):,} sent to {contract.rules.topic}; its worker takes them in. "
            f"[dim]freshdata status · freshdata quarantine list {stream}[/dim]"
        )
    elif not (outcome.before or outcome.refused or outcome.failed):
        output.print(f"{stream}: no event was rejected.")


def _print_by_words(output: "Console", what: str, events: "list[tuple[Place, str]]") -> None:
    from rich.markup import escape

    from freshdata.quarantine.payload import printable
    from freshdata.quarantine.problems import problem_of

    places: dict[str, list[Place]] = {}
    for place, words in events:
        places.setdefault(problem_of(words), []).append(place)
    for words, found in places.items():
        first = ", ".join(map(str, found[:MOST_EXAMPLES])) + (" …" if len(found) > MOST_EXAMPLES else "")
        output.print(f"[red]✗[/red] {len(found):,} {what} ({first}): {escape(printable(words))}", soft_wrap=True)
