"""``python -m benchmarks.ingest.memory``: the memory of one worker that remembers ten million keys of 1,000 tenants."""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.ingest.events import STREAM, events, fill, make_project, prepare_home
from benchmarks.ingest.measure import Run, Setup, measure
from benchmarks.ingest.python_side import WORKER
from benchmarks.ingest.tables import files_by_snapshot, sql_head
from benchmarks.results import machine, write_section
from freshdata.services.kafka import local_broker
from freshdata.settings import Settings

BUCKETS = 32
console = Console(stderr=True)


def main(arguments: list[str]) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest.memory", description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000, help="events, all with keys of their own")
    parser.add_argument("--tenants", type=int, default=1_000)
    options = parser.parse_args(arguments)
    facts = machine()
    Settings().root.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=Settings().root, prefix="bench-") as scratch:
        run, most_files = _measure(Path(scratch), options.events, options.tenants)
    if run.problem:
        console.print(f"[red]{run.problem}")
        return 1
    command = " ".join(["python -m benchmarks.ingest.memory", *arguments])
    lines = [
        (
            f"{options.events:,} events, each with a key of its own and all inside the dedupe window, of "
            f"{options.tenants:,} tenants in {BUCKETS} buckets; one worker on 4 partitions. `{command}`"
        ),
        "",
        "| peak memory (proportional set size) | most files of a commit | events/s | events/CPU-s |",
        "|---|---|---|---|",
        f"| {run.memory / 2**30:.2f} GiB | {most_files} | {run.rate:,.0f} | {run.per_cpu:,.0f} |",
    ]
    console.print("\n".join(lines))
    write_section("memory", "Memory of a worker", lines, facts)
    return 0


def _measure(scratch: Path, count: int, tenants: int) -> tuple[Run, int]:
    with local_broker(Settings().for_home(scratch / "broker")) as address, _bars() as bars:
        name = f"bench.memory.{scratch.name}"
        make_project(scratch / "project", name)
        contract = scratch / "project" / "contracts" / "events.odcs.yaml"
        named, bucketed = (
            f"{{property: tenantPartition, value: {value}}}" for value in ("tenant", f"bucket({BUCKETS})")
        )
        contract.write_text(contract.read_text().replace(named, bucketed))
        settings = Settings().for_home(scratch / "home")
        settings = settings.model_copy(update={"kafka_bootstrap": address, "project": scratch / "project"})
        prepare_home(settings)
        task = bars.add_task("filling the topic", total=count)
        stream = events(count, seed=3, tenants=tenants, repeats=0.0)
        topic = fill(settings, name, stream, lambda sent: bars.advance(task, sent))
        bars.update(task, description="the worker reads it", completed=count)
        run = measure(WORKER, Setup(settings, topic, count, scratch, 0.0))
        metadata = sql_head(settings.home / "catalog.db", "bronze", STREAM)()
        return run, max(map(len, files_by_snapshot(metadata).values())) if metadata else 0


def _bars() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
