"""``python -m tests.chaos``: many seeds, several at once, each share with a broker of its own; one result."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.results import machine, write_section
from freshdata.settings import PROJECT
from tests.chaos.conftest import DEFAULT_SEEDS, summary

WHOLE = 200  # Seeds; fewer are a look, not a result.


def main() -> int:
    """Run the seeds; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=DEFAULT_SEEDS)
    parser.add_argument("--jobs", type=int, default=1, help="shares that run at once (default %(default)s)")
    asked = parser.parse_args()
    facts = machine()
    with TemporaryDirectory() as scratch:
        reports = [Path(scratch) / f"{share}.json" for share in range(asked.jobs)]
        running = [_start(list(range(share, asked.seeds, asked.jobs)), path) for share, path in enumerate(reports)]
        codes = [share.wait() for share in running]
        outcomes = [one for path in reports if path.is_file() for one in json.loads(path.read_text())["outcomes"]]
    result = summary(sorted(outcomes, key=lambda one: one["seed"]))
    path = PROJECT / ".freshdata" / f"chaos-{asked.seeds}.json"
    path.write_text(json.dumps({**result, "outcomes": outcomes}, indent=2, default=str))
    sys.stdout.write("\n".join([*_lines(result), f"written to {path}", ""]))
    if asked.seeds >= WHOLE:
        lines = [f"`make chaos SEEDS={asked.seeds} JOBS={asked.jobs}`", "", *_lines(result)]
        write_section("chaos", "Seeded chaos, every row compared", lines, facts)
    return max(codes, default=0) or len(outcomes) != asked.seeds


def _start(seeds: list[int], report: Path) -> "subprocess.Popen[bytes]":
    chosen = [argument for seed in seeds for argument in ("--seed", str(seed))]
    command = [sys.executable, "-m", "pytest", "tests/chaos", *chosen, "--chaos-report", str(report)]
    return subprocess.Popen(command, cwd=PROJECT)


def _lines(result: dict[str, Any]) -> list[str]:
    counted = ("seeds", "passed", "faults injected", "sent", "compared", "lost", "duplicated", "changed")
    failed = [f"| failed seed {one['seed']} | `{one['again']}` |" for one in result["failed"]]
    rows = [f"| {name} | {result[name]:,} |" for name in counted] + failed
    layers = [f"| {layer}: rows compared | {count:,} |" for layer, count in result["rows"].items()]
    return ["| what | how many |", "|---|---|", *rows, *layers]


if __name__ == "__main__":
    sys.exit(main())
