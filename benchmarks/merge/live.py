"""Live runs after little and much news, into a partition that is large and into one that is empty."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from benchmarks.merge.contenders import Live
from benchmarks.merge.lake import BRONZE, SILVER, Lake, State, days, make_lake
from benchmarks.merge.merges import told
from benchmarks.merge.peer import Measured, Peer
from benchmarks.merge.rows import news

LIMIT = 900.0  # seconds
# One carrier: its rows of one day are one partition of Bronze.
CARRIERS = 1


@dataclass(frozen=True)
class Run:
    """One live run.

    Attributes:
        rows: New rows.
        full: Whether they came into a large partition.
        measured: What it took.
    """

    rows: int
    full: bool
    measured: Measured


def measure_live(rows: int, sizes: list[int], rounds: int, home: Path, bars: Progress) -> list[Run]:
    """Every amount of news, into both partitions, several rounds, interleaved.

    Args:
        rows: Rows that the large partition holds.
        sizes: Numbers of new rows.
        rounds: Rounds.
        home: A folder for the lakes.
        bars: Shows how far it is.
    """
    filling = bars.add_task("filling a partition", total=2 * rows)
    lakes = {False: make_lake(home / "empty", CARRIERS), True: make_lake(home / "full", CARRIERS)}
    lakes[True].fill(BRONZE, days(1), rows, lambda done: bars.advance(filling, done))
    for lake in lakes.values():
        lake.follow()
    lakes[True].fill(SILVER, days(1), rows, lambda done: bars.advance(filling, done))
    bases = {full: lake.state() for full, lake in lakes.items()}
    found = []
    task = bars.add_task("", total=rounds * len(sizes) * len(lakes))
    with ExitStack() as stack:
        peers = {}
        for full, lake in lakes.items():
            peers[full] = Peer(Live, lake.settings, log=home / f"{full}.log")
            stack.callback(peers[full].close)
            _run(peers[full], lake, bases[full], sizes[0], rows)  # It is warm now.
        for number in range(rounds):
            for size in sizes:
                for full, lake in lakes.items():
                    into = f"a partition of {rows if full else 0:,}"
                    bars.update(task, description=f"round {number + 1}: {size:,} rows into {into}")
                    run = Run(size, full, _run(peers[full], lake, bases[full], size, rows))
                    found.append(run)
                    bars.console.print(f"{size:>10,} rows into {into:<24}  {told(run.measured)}")
                    bars.advance(task)
    return found


def _run(peer: Peer, lake: Lake, base: State, size: int, present: int) -> Measured:
    lake.restore(base)
    batch = news(size, present)
    lake.land(batch)
    measured = peer.ask("merge", limit=LIMIT)
    if measured.problem:
        return measured
    wrong = lake.wrong(lake.merged([batch]), base)
    return Measured(problem=wrong) if wrong else measured
