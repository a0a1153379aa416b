"""Merge one batch into one partition of tables that hold few and many."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from benchmarks.merge.contenders import Kind
from benchmarks.merge.lake import SILVER, Lake, State, days, make_lake
from benchmarks.merge.peer import Measured, Peer
from benchmarks.merge.rows import news
from freshdata.errors import PrerequisiteError

CARRIERS = 20


@dataclass(frozen=True)
class Merge:
    """One merge.

    Attributes:
        kind: Name of the contender.
        partitions: Partitions in the table.
        measured: What it took.
    """

    kind: str
    partitions: int
    measured: Measured


class _Field:
    """The contenders at their start, on one lake."""

    def __init__(self, lake: Lake, states: dict[int, State], limit: float, logs: Path, stack: ExitStack) -> None:
        self.lake, self.states, self.limit, self.logs, self.stack = lake, states, limit, logs, stack
        self.batch = news(0, 0)
        self.peers: dict[str, Peer] = {}
        self.out: dict[tuple[str, int], str] = {}

    def merge(self, kind: Kind, partitions: int) -> Measured:
        """One merge of the batch into the table as it was filled, checked; one that takes too long is not repeated."""
        if problem := self.out.get((kind.name, partitions)) or self.out.get((kind.name, 0)):
            return Measured(problem=problem)
        peer = self._peer(kind)
        if peer is None:
            return Measured(problem=self.out[kind.name, 0])
        measured = self._merge(kind, peer, partitions)
        if peer.dead:
            self.out[kind.name, partitions] = peer.dead
            del self.peers[kind.name]
        return measured

    def _merge(self, kind: Kind, peer: Peer, partitions: int) -> Measured:
        base = self.states[partitions]
        self.lake.restore(base)
        if kind.prepare and (problem := peer.ask(kind.prepare, limit=self.limit).problem):
            return Measured(problem=problem)
        measured = peer.ask("merge", limit=self.limit)
        if measured.problem:
            return measured
        wrong = self.lake.wrong(self.lake.merged([self.batch]), base)
        return Measured(problem=wrong) if wrong else measured

    def _peer(self, kind: Kind) -> Peer | None:
        """The contender, warm: it has merged once."""
        if kind.name not in self.peers:
            try:
                kind.fetch()
            except PrerequisiteError as error:
                self.out[kind.name, 0] = f"skipped: {error}"
                return None
            peer = Peer(kind.make, self.lake.settings, *kind.arguments, log=self.logs / f"{kind.name}.log")
            self.stack.callback(peer.close)
            if problem := peer.dead or self._merge(kind, peer, min(self.states)).problem:
                self.out[kind.name, 0] = problem
                return None
            self.peers[kind.name] = peer
        return self.peers[kind.name]


def measure_merges(
    kinds: list[Kind],
    partitions: list[int],
    home: Path,
    bars: Progress,
    *,
    rows: int,
    batch: int,
    rounds: int,
    limit: float,
) -> list[Merge]:
    """Every contender at every size of the table, several rounds, interleaved.

    Args:
        kinds: The contenders.
        partitions: Numbers of partitions.
        home: A folder for the lake.
        bars: Shows how far it is.
        rows: Rows of a partition.
        batch: Rows of the batch.
        rounds: Rounds.
        limit: Seconds a merge may take.
    """
    lake = make_lake(home, CARRIERS)
    lake.follow()
    landed = news(batch, rows)
    lake.land(landed)
    states: dict[int, State] = {}
    filling = bars.add_task("filling partitions", total=max(partitions) * rows)
    for count in sorted(partitions):
        lake.fill(SILVER, days(count)[max(states, default=0) :], rows, lambda done: bars.advance(filling, done))
        states[count] = lake.state()
    found = []
    task = bars.add_task("", total=rounds * len(partitions) * len(kinds))
    with ExitStack() as stack:
        field = _Field(lake, states, limit, home / "logs", stack)
        field.batch = landed
        for number in range(rounds):
            for count in sorted(partitions):
                for kind in kinds:
                    bars.update(task, description=f"round {number + 1}: {kind.label}, {count} partitions")
                    merge = Merge(kind.name, count, field.merge(kind, count))
                    found.append(merge)
                    bars.console.print(f"{kind.name:>10} {count:>4} partitions  {told(merge.measured)}")
                    bars.advance(task)
    return found


def told(measured: Measured) -> str:
    """A measurement in words."""
    if measured.problem:
        return f"[red]no result[/]: {measured.problem}"
    return f"{measured.seconds:>7.2f} s  {measured.cpu:>7.2f} CPU-s  {measured.memory / 1e6:>6,.0f} MB"
