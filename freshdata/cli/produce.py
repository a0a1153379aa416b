"""``freshdata produce``."""

import signal
import threading
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
    *,
    months: Months = 1,
    disorder: Disorder = True,
    seed: Seed = 2013,
    speed: Speed = None,
    live: Live = False,
    history_days: HistoryDays = 7,
) -> None:
    """Replay the sample's events into Kafka; what has been sent already is not sent again."""
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
    for stream, kinds in summary.kinds.items():
        console.print(f"  {stream}: " + ", ".join(f"{count:,} {kind}" for kind, count in kinds.items()))
