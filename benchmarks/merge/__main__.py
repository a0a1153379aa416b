"""``python -m benchmarks.merge``: incremental merges against peers, reads after them, and live runs."""

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.merge.contenders import KINDS
from benchmarks.merge.live import measure_live
from benchmarks.merge.merges import measure_merges
from benchmarks.merge.reads import measure_reads
from benchmarks.merge.report import Outcome, as_json, lines, versions
from benchmarks.results import machine, write_section
from freshdata.settings import Settings

WHOLE = 1_000_000  # rows of a partition
PARTS = "merge,reads,live"
NAMES = ",".join(kind.name for kind in KINDS)
console = Console(stderr=True)


SECTIONS = {PARTS: ("merge", "Incremental merges"), "reads": ("merge-reads", "Reads after merges")}


def main(arguments: list[str]) -> int:
    """Run the benchmark; returns the exit code."""
    options = _parser().parse_args(arguments)
    # A plain kill ends the contenders too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logging.getLogger("pyiceberg").setLevel(logging.WARNING)
    if (load := os.getloadavg()[0]) > 1:
        console.print(f"[yellow]The machine is busy (load {load:.1f}): the numbers will say as much about that.")
    facts = machine() | versions()
    command = " ".join(["python -m benchmarks.merge", *arguments])
    outcome = Outcome(options.rows, options.rows // 10, options.rows * 10, options.rounds)
    Settings().root.mkdir(exist_ok=True)
    try:
        _measure(options, outcome)
    except KeyboardInterrupt:
        return 130
    told = [f"`{command}`", "", *lines(outcome)]
    print("\n".join(told))
    path = options.json or Settings().root / "bench-merge.json"
    path.write_text(json.dumps({"command": command, "machine": facts} | as_json(outcome), indent=1))
    # A smaller table, or another part than these, is a look, not a result.
    section = SECTIONS.get(options.only)
    if section and (options.contenders, options.rows >= WHOLE) == (NAMES, True) and not outcome.problems:
        write_section(*section, told, facts)
    return 1 if outcome.problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.merge", description=__doc__)
    about = "rows of a partition; batches have a tenth, the large partition of live runs ten times as many"
    parser.add_argument("--rows", type=int, default=WHOLE, help=f"{about} (default %(default)s)")
    parser.add_argument("--partitions", type=int, nargs="+", default=[1, 20, 200], help="partitions in the table")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of everything (default %(default)s)")
    parser.add_argument("--limit", type=float, default=120, help="seconds a merge may take (default %(default)s)")
    parser.add_argument("--only", default=PARTS, help="parts to run, of %(default)s")
    parser.add_argument("--contenders", default=NAMES, help="contenders of the merge, of %(default)s")
    parser.add_argument("--json", type=Path, help="where every run is written (default .freshdata/bench-merge.json)")
    return parser


def _measure(options: argparse.Namespace, outcome: Outcome) -> None:
    kinds = [kind for kind in KINDS if kind.name in options.contenders.split(",")]
    rows, rounds = options.rows, options.rounds
    sizes = [rows // 1_000, rows // 100, rows]

    def merge(home: Path, bars: Progress) -> None:
        outcome.merges = measure_merges(
            kinds, options.partitions, home, bars, rows=rows, batch=outcome.batch, rounds=rounds, limit=options.limit
        )

    def reads(home: Path, bars: Progress) -> None:
        outcome.reads = measure_reads(rows, outcome.batch, rounds, home, bars)

    def live(home: Path, bars: Progress) -> None:
        outcome.runs = measure_live(outcome.present, sizes, rounds, home, bars)

    parts: dict[str, Callable[[Path, Progress], None]] = {"merge": merge, "reads": reads, "live": live}
    for name in options.only.split(","):
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with (
            tempfile.TemporaryDirectory(dir=Settings().root, prefix="bench-") as home,
            Progress(*columns, console=console) as bars,
        ):
            try:
                parts[name](Path(home), bars)
            except Exception as error:  # noqa: BLE001 - one part's failure must not cost the others' results.
                outcome.problems[name] = " ".join(str(error).split()) or type(error).__name__
                console.print_exception()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
