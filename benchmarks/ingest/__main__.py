"""``python -m benchmarks.ingest``: every contender on one topic, several rounds, interleaved."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.ingest import jvm_side, python_side
from benchmarks.ingest.events import Topic, fill, make_project, prepare_home
from benchmarks.ingest.events import events as generated
from benchmarks.ingest.measure import Contender, Run, Setup, measure, run_floor
from benchmarks.ingest.paced import Freshness, freshness
from benchmarks.ingest.report import Outcome, show, versions, write_json, write_results
from benchmarks.results import RESULTS, machine
from freshdata.errors import FreshDataError
from freshdata.services.kafka import local_broker
from freshdata.settings import Settings

CONTENDERS = [*python_side.CONTENDERS, *jvm_side.CONTENDERS]
COMMIT_SECONDS = 5.0  # long enough to cost a contender little
console = Console(stderr=True)


def main(arguments: list[str]) -> int:
    """Run the benchmark; returns the exit code."""
    options = _parser().parse_args(arguments)
    options.arguments = arguments
    # A plain kill ends the contenders and the broker too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = _chosen(options.only)
    if (load := os.getloadavg()[0]) > 1:
        console.print(f"[yellow]The machine is busy (load {load:.1f}): the numbers will say as much about that.")
    Settings().root.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=Settings().root, prefix="bench-") as scratch:
        try:
            if options.profile:
                _profile(options, Path(scratch))
                return 0
            outcome = _benchmark(options, chosen, Path(scratch))
        except FreshDataError as error:
            console.print(f"[red]{error}")
            return 1
        except KeyboardInterrupt:
            return 130
    show(outcome)
    write_json(outcome, options.json or Settings().root / "bench-ingest.json")
    # A part of the contenders is a look, not a result.
    results = options.results or (RESULTS if options.only == options.all else None)
    if results:
        write_results(outcome, results)
    return 0


def _parser() -> argparse.ArgumentParser:
    names = ",".join(contender.name for contender in CONTENDERS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description=__doc__)
    parser.add_argument("--events", type=int, default=3_000_000, help="events in the topic (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of every contender (default %(default)s)")
    parser.add_argument("--only", default=names, help="contenders to run, of %(default)s")
    parser.add_argument("--rate", type=int, default=5_000, help="events/s of the freshness runs (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=30, help="of a freshness run; 0: none (default %(default)s)")
    parser.add_argument("--json", type=Path, help="where every run is written (default .freshdata/bench-ingest.json)")
    parser.add_argument("--results", type=Path, help="Markdown file for the result (default, if all run: RESULTS.md)")
    parser.set_defaults(all=names)
    parser.add_argument("--profile", action="store_true", help="instead, show where one worker's processor time goes")
    return parser


def _chosen(names: str) -> list[Contender]:
    known = {contender.name: contender for contender in CONTENDERS}
    wanted = names.split(",")
    if unknown := set(wanted) - set(known):
        sys.exit(f"There is no contender {', '.join(sorted(unknown))}. Choose from {', '.join(known)}.")
    return [known[name] for name in known if name in wanted]


@contextmanager
def _platform(scratch: Path) -> Iterator[Settings]:
    """A broker of the benchmark's own, or the one that ``FRESHDATA_KAFKA_BOOTSTRAP`` names."""
    settings = Settings().for_home(scratch / "broker")
    with local_broker(settings) as address:
        yield settings.model_copy(update={"kafka_bootstrap": address})


def _benchmark(options: argparse.Namespace, chosen: list[Contender], scratch: Path) -> Outcome:
    with _platform(scratch) as platform, _bars() as bars:
        settings, topic = _filled(platform, options.events, scratch, bars)
        command = "python -m benchmarks.ingest " + " ".join(options.arguments)
        outcome = Outcome(command.strip(), topic, options.rounds, options.rate, machine() | versions(), chosen)
        paced = [contender for contender in chosen if contender.paced and options.seconds]
        task = bars.add_task("", total=options.rounds * len(chosen) + len(paced))
        for number in range(options.rounds):
            for contender in chosen:
                bars.update(task, description=f"round {number + 1}: {contender.label}")
                run = _round(contender, settings, topic, scratch / f"{contender.name}-{number}")
                outcome.runs.append(run)
                bars.console.print(_line(run))
                bars.advance(task)
        for contender in paced:
            bars.update(task, description=f"freshness: {contender.label}")
            fresh = _freshness(contender, platform, scratch / f"{contender.name}-paced", options.rate, options.seconds)
            outcome.freshness[contender.name] = fresh
            bars.console.print(_fresh_line(fresh))
            bars.advance(task)
    return outcome


def _freshness(contender: Contender, platform: Settings, folder: Path, rate: int, seconds: float) -> Freshness:
    try:
        return freshness(contender, platform, folder, rate, seconds)
    except Exception as error:  # noqa: BLE001 - one contender's failure must not cost the others' results.
        return Freshness(contender.name, problem=str(error) or type(error).__name__)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _profile(options: argparse.Namespace, scratch: Path) -> None:
    from benchmarks.ingest.profiling import profile

    with _platform(scratch) as platform:
        with _bars() as bars:
            settings, topic = _filled(platform, options.events, scratch, bars)
        profile(settings.for_home(scratch / "first"), topic.events)


def _filled(platform: Settings, events: int, scratch: Path, bars: Progress) -> tuple[Settings, Topic]:
    """The settings of the benchmark's own project, and its topic, filled."""
    name = f"bench.events.{scratch.name}"
    make_project(scratch / "project", name)
    settings = platform.model_copy(update={"project": scratch / "project"})
    prepare_home(settings.for_home(scratch / "first"))
    task = bars.add_task("filling the topic", total=events)
    topic = fill(settings, name, generated(events, seed=1), lambda sent: bars.advance(task, sent))
    bars.update(task, completed=events)
    return settings, topic


def _round(contender: Contender, settings: Settings, topic: Topic, folder: Path) -> Run:
    own = settings.for_home(folder / "home")
    prepare_home(own)
    contender.prepare()
    setup = Setup(own, topic, int(topic.events * contender.share), folder, COMMIT_SECONDS)
    try:
        return run_floor(contender, setup) if contender is python_side.FLOOR else measure(contender, setup)
    except Exception as error:  # noqa: BLE001 - one contender's failure must not cost the others' results.
        return Run(contender.name, problem=str(error) or type(error).__name__)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _line(run: Run) -> str:
    if run.problem:
        return f"{run.contender:>13}  [red]no result[/]: {run.problem}"
    return (
        f"{run.contender:>13}  {run.rate:>9,.0f} events/s  {run.per_cpu:>9,.0f} a CPU-second  "
        f"{run.memory / 1e6:>6,.0f} MB  {run.commits} commits"
    )


def _fresh_line(fresh: Freshness) -> str:
    if fresh.problem:
        return f"{fresh.contender:>13}  [red]no freshness[/]: {fresh.problem}"
    return f"{fresh.contender:>13}  visible after {fresh.p50:.2f} s (median), {fresh.p95:.2f} s (p95)"


def _bars() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
