"""``freshdata produce``."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

Months = Annotated[int, typer.Option(min=1, max=12, help="Months of 2013 to replay.")]
Disorder = Annotated[bool, typer.Option(help="Add duplicates, out-of-order, late and broken messages.")]
Seed = Annotated[int, typer.Option(help="Seed of the disorder: equal seeds make equal messages.")]
Speed = Annotated[
    float | None, typer.Option(min=0.001, help="Simulated seconds a second. [default: all at once; 3600 live]")
]
Live = Annotated[bool, typer.Option("--live", help="Move the sample to the present and keep it flowing until stopped.")]
HistoryDays = Annotated[int, typer.Option(min=0, max=365, help="Live: days before today that are sent first.")]


def produce(
    stream: Annotated[str | None, typer.Argument(help="Stream to send a file to; the sample's when left out.")] = None,
    *,
    file: Annotated[Path | None, typer.Option(help="File of JSON Lines with the stream's events.")] = None,
    months: Months = 1,
    disorder: Disorder = True,
    seed: Seed = 2013,
    speed: Speed = None,
    live: Live = False,
    history_days: HistoryDays = 7,
) -> None:
    """Replay the sample's events into Kafka, what it lacks of them; or send a file to a stream of your own."""
    if stream is not None or file is not None:
        _send(stream, file)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from freshdata.sample.replay import produce_live, replay
    from freshdata.settings import load_settings

    settings = load_settings()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if live:
        typer.echo(f"Sending the live sample to {settings.home}; stop it with Ctrl-C.")
        produce_live(settings, speed=speed or 3600, history_days=history_days, disorder=disorder, seed=seed, stop=stop)
        return
    console = Console(highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("Sending", total=None)
        summary = replay(
            settings,
            months=months,
            disorder=disorder,
            seed=seed,
            speed=speed,
            stop=stop,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    console.print(f"[bold]{summary.sent:,}[/bold] messages sent, the newest of {summary.last:%Y-%m-%d %H:%M} UTC.")
    for name, kinds in summary.kinds.items():
        console.print(f"  {name}: " + ", ".join(f"{count:,} {kind}" for kind, count in kinds.items()))


def _send(stream: str | None, file: Path | None) -> None:
    from rich.console import Console

    from freshdata.cli.output import console
    from freshdata.contracts import load_contracts, stream_contract
    from freshdata.errors import ConfigError
    from freshdata.settings import load_settings
    from freshdata.streams.send import send_file

    if stream is None or file is None:
        raise ConfigError(
            "A stream and a file belong together.", remedy="Write `freshdata produce STREAM --file FILE.jsonl`."
        )
    settings = load_settings()
    contract = stream_contract(load_contracts(settings.contracts_dir), stream)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        status.update(f"Sending: {done:,}")

    with Console(stderr=True).status("Sending") as status:
        sent = send_file(settings, contract, file, advance)
    console().print(f"[bold]{sent.messages:,}[/bold] messages sent to {contract.rules.topic}.")
    if sent.keyless:
        console().print(f"{sent.keyless:,} of them have no key, and go to quarantine.")
