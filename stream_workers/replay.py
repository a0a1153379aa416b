"""``python -m stream_workers.replay STREAM``: rebuild a stream's tables from Kafka, or bridge a re-created topic."""

import argparse
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from freshdata.contracts import load_contracts, stream_contract
from freshdata.errors import FreshDataError
from freshdata.replay import keep_rows
from freshdata.services.kafka import local_broker
from freshdata.settings import Settings, load_settings
from stream_workers.rebuild import Advance, Replay, Request, Tell, listed


def main(arguments: list[str]) -> int:
    """Run a replay, or bridge a re-created topic.

    Args:
        arguments: The stream's name and the options of ``freshdata replay``.

    Returns:
        The exit code: 0 when it is done, 1 for a failure, 2 for a mistake in the call, 130 when interrupted.
    """
    parser = argparse.ArgumentParser(prog="python -m stream_workers.replay")
    parser.add_argument("stream")
    parser.add_argument("--from-offset", type=int, default=0)
    parser.add_argument("--to-table")
    parser.add_argument("--allow-missing", action="store_true")
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(highlight=False, soft_wrap=True)
    try:
        settings = load_settings()
        with local_broker(settings):
            if asked.keep:
                _keep(settings, asked.stream, asked.from_offset, console.print)
            else:
                request = Request(asked.stream, asked.from_offset, asked.to_table, asked.allow_missing)
                with _bar(console) as advance:
                    Replay(settings, request, tell=console.print, advance=advance).run()
    except FreshDataError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]✗[/red] {error.message} {error.remedy}")
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; the live table is whole. The same command continues.")
        return 130
    return 0


def _keep(settings: Settings, stream: str, from_offset: int, tell: Tell) -> None:
    contracts = load_contracts(settings.contracts_dir)
    contract = stream_contract(contracts, stream)
    offsets = keep_rows(settings, contract, contracts, from_offset)
    tell(f"{contract.table} keeps its rows and continues at " + listed(offsets) + ".")
    tell(
        f"Records whose key it has seen within {contract.rules.dedupe_window} (event time) are left out as duplicates."
    )


@contextmanager
def _bar(console: Console) -> Iterator[Advance]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("Preparing", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total or None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
