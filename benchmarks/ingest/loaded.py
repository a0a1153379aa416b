"""``python -m benchmarks.ingest.loaded``: how fresh one worker keeps Bronze at a high, steady rate."""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.ingest.paced import freshness
from benchmarks.ingest.python_side import WORKER
from benchmarks.results import machine, write_section
from freshdata.services.kafka import local_broker
from freshdata.settings import Settings

console = Console(stderr=True)


def main(arguments: list[str]) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest.loaded", description=__doc__)
    parser.add_argument("--rate", type=int, default=50_000, help="events a second (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="how long (default %(default)s)")
    options = parser.parse_args(arguments)
    facts = machine()
    Settings().root.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=Settings().root, prefix="bench-") as scratch:
        platform = Settings().for_home(Path(scratch) / "broker")
        with local_broker(platform) as address, console.status(f"{options.rate:,} events a second"):
            platform = platform.model_copy(update={"kafka_bootstrap": address})
            fresh = freshness(WORKER, platform, Path(scratch) / "loaded", options.rate, options.seconds)
    if fresh.problem:
        console.print(f"[red]{fresh.problem}")
        return 1
    command = " ".join(["python -m benchmarks.ingest.loaded", *arguments])
    lines = [
        (
            f"One worker, its default commit policy, {options.rate:,} events a second for {options.seconds:.0f} s: "
            f"from a record's timestamp to the commit that shows it. `{command}`"
        ),
        "",
        "| events | median s | p95 s | slowest s |",
        "|---|---|---|---|",
        f"| {fresh.events:,} | {fresh.p50:.2f} | {fresh.p95:.2f} | {fresh.worst:.2f} |",
    ]
    console.print("\n".join(lines))
    write_section("loaded", "Freshness of Bronze under load", lines, facts)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
