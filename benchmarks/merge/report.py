"""What the benchmark tells: three tables, and for each goal whether it is reached."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from statistics import median
from typing import Any

from benchmarks.merge.contenders import KINDS, jvm_versions
from benchmarks.merge.live import Run
from benchmarks.merge.merges import Merge
from benchmarks.merge.peer import Measured
from benchmarks.merge.reads import MERGES, READERS, SELECTIVE, TABLES, Read
from benchmarks.merge.rows import REPEATED, UPDATED

OWN, UPSERT, SPARK = "live", "upsert", ("spark", "spark-mor")
PACKAGES = ("duckdb", "pyarrow", "pyiceberg", "sqlmesh")
FASTER_THAN_UPSERT = 10.0
SLOWER_WHEN_LARGER = 1.3
SLOWER_READS = 1.5


@dataclass
class Outcome:
    """Everything that was measured.

    Attributes:
        rows: Rows of a partition.
        batch: Rows of a batch.
        present: Rows of the large partition of the live runs.
        rounds: Rounds of each contender.
        merges: The merges.
        reads: The readings.
        runs: The live runs.
        problems: Parts that could not be measured, and why.
    """

    rows: int
    batch: int
    present: int
    rounds: int
    merges: list[Merge] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Median:
    """The medians of several measurements.

    Attributes:
        seconds: Of the time.
        spread: Its lowest and highest.
        cpu: Of the processor seconds.
        memory: The highest peak memory, in bytes.
        problem: Why there is no result, or None: a single failed round makes it none.
    """

    seconds: float = 0.0
    spread: tuple[float, float] = (0.0, 0.0)
    cpu: float = 0.0
    memory: int = 0
    problem: str | None = None

    def cells(self) -> list[str]:
        """Time, its spread, processor seconds and memory, for a table."""
        if self.problem:
            return [f"no result: {self.problem}", "-", "-", "-"]
        low, high = self.spread
        return [f"{self.seconds:.3f}", f"{low:.3f} - {high:.3f}", f"{self.cpu:.2f}", f"{self.memory / 1e6:,.0f}"]


def middle(found: Iterable[Measured]) -> Median:
    """The medians of some measurements."""
    measured = list(found)
    problem = next((one.problem for one in measured if one.problem), None if measured else "it was not run")
    if problem:
        return Median(problem=problem)
    seconds = [one.seconds for one in measured]
    spread = min(seconds), max(seconds)
    return Median(median(seconds), spread, median(one.cpu for one in measured), max(one.memory for one in measured))


def ratio(one: Median, other: Median, of: Callable[[Median], float] = lambda found: found.seconds) -> float | None:
    """How many times the other one is in the first; None when either has no result."""
    return None if one.problem or other.problem or not of(other) else of(one) / of(other)


def versions() -> dict[str, str]:
    """The versions of what the contenders are made of."""
    return {package: version(package) for package in PACKAGES} | jvm_versions()


def lines(outcome: Outcome) -> list[str]:
    """The Markdown of all parts that were run."""
    parts = (_merges(outcome), _reads(outcome), _live(outcome))
    told = [line for part in parts if part for line in [*part, ""]]
    told += [f"- {part}: no result: {problem}" for part, problem in outcome.problems.items()]
    return told[:-1] if told and not told[-1] else told


def _merges(outcome: Outcome) -> list[str]:
    if not outcome.merges:
        return []
    found = {
        (kind.name, count): middle(
            merge.measured for merge in outcome.merges if (merge.kind, merge.partitions) == (kind.name, count)
        )
        for kind in KINDS
        for count in sorted({merge.partitions for merge in outcome.merges})
        if any(merge.kind == kind.name for merge in outcome.merges)
    }
    labels = {kind.name: kind.label for kind in KINDS}
    head = ["contender", "partitions", "s", "lowest - highest", "CPU s", "peak MB", "times the live run's", "in CPU s"]
    rows = [
        [
            labels[name],
            str(count),
            *one.cells(),
            *(times(ratio(one, found[OWN, count], of)) for of in (_seconds, _cpu) if (OWN, count) in found),
        ]
        for (name, count), one in sorted(found.items(), key=lambda item: item[0][1])
    ]
    return [
        f"### A batch of {outcome.batch:,} rows into a partition of {outcome.rows:,}",
        "",
        (
            f"{REPEATED:.1%} of the batch are an older version of another row of it, {UPDATED:.1%} a newer version of "
            f"a row that is there; event ids are random. Medians of {outcome.rounds} interleaved rounds, each "
            "contender warm. The live run also finds what is new, audits it and counts the rows; the peers are told "
            "the batch, and Spark the partition. After each merge the rows were equal to the right ones."
        ),
        "",
        *table(head[: len(rows[0])], rows),
        "",
        *_merge_goals(found),
    ]


def _merge_goals(found: dict[tuple[str, int], Median]) -> list[str]:
    sizes = sorted({count for _, count in found})
    told = []
    for count in sizes:
        own, upsert = found.get((OWN, count)), found.get((UPSERT, count))
        if own and upsert:
            goal = f"at least {FASTER_THAN_UPSERT:.0f} times faster than `Table.upsert`, {count} partitions"
            told.append(_goal(goal, ratio(upsert, own), lambda times: times >= FASTER_THAN_UPSERT, upsert.problem))
        peers = [found[name, count] for name in SPARK if (name, count) in found]
        if own and peers:
            best = min(peers, key=lambda one: (bool(one.problem), one.seconds))
            goal = f"faster than Spark, {count} partitions"
            told.append(_goal(goal, ratio(best, own), lambda times: times > 1, best.problem))
    if len(sizes) > 1 and (OWN, sizes[0]) in found:
        goal = f"cost within {SLOWER_WHEN_LARGER} times when the table is {sizes[-1] // sizes[0]} times larger"
        small, large = found[OWN, sizes[0]], found[OWN, sizes[-1]]
        told.append(_within(goal, ratio(large, small), SLOWER_WHEN_LARGER, large.problem or small.problem))
    return told


def _reads(outcome: Outcome) -> list[str]:
    if not outcome.reads:
        return []
    rows, goals = [], []
    for reader in READERS:
        for selective, what in SELECTIVE.items():
            merged, kept, compacted = (
                middle(
                    read.measured
                    for read in outcome.reads
                    if (read.reader, read.selective, read.table) == (reader, selective, name)
                )
                for name in TABLES
            )
            slower, looked_after = ratio(merged, compacted), ratio(kept, compacted)
            rows.append([reader, what, *_two(merged, kept, compacted), times(slower), times(looked_after)])
            goal = f"{reader} reads {what} within {SLOWER_READS} times"
            goals.append(_within(goal, slower, SLOWER_READS, merged.problem or compacted.problem))
            upkept = f"{goal}, once the platform has looked after the table"
            goals.append(_within(upkept, looked_after, SLOWER_READS, kept.problem or compacted.problem))
    columns = ["reader", "reads", "merged, ms", "looked after, ms", "compacted, ms", "merged", "looked after"]
    return [
        f"### Reads after {MERGES} such merges, after the upkeep they call for, and after a whole compaction",
        "",
        *table(columns, rows),
        "",
        *goals,
    ]


def _two(*found: Median) -> list[str]:
    return [f"no result: {one.problem}" if one.problem else f"{one.seconds * 1000:.0f}" for one in found]


def _live(outcome: Outcome) -> list[str]:
    if not outcome.runs:
        return []
    rows, goals = [], []
    for size in sorted({run.rows for run in outcome.runs}):
        empty, full = (
            middle(run.measured for run in outcome.runs if (run.rows, run.full) == (size, large))
            for large in (False, True)
        )
        slower = ratio(full, empty)
        rows.append([f"{size:,}", "an empty one", *empty.cells(), "", ""])
        rows.append(
            [f"{size:,}", f"{outcome.present:,}", *full.cells(), times(slower), times(ratio(full, empty, _cpu))]
        )
        goal = f"{size:,} new rows cost within {SLOWER_WHEN_LARGER} times of what they cost in an empty partition"
        goals.append(_within(goal, slower, SLOWER_WHEN_LARGER, full.problem or empty.problem))
    return [
        "### A live run after new rows, by the rows the partition holds",
        "",
        *table(["new rows", "into", "s", "lowest - highest", "CPU s", "peak MB", "times", "in CPU s"], rows),
        "",
        *goals,
    ]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    body = ("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows)
    return ["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *body]


def times(found: float | None) -> str:
    """A ratio, for a table."""
    return "-" if found is None else f"{found:.2f}"


def _seconds(found: Median) -> float:
    return found.seconds


def _cpu(found: Median) -> float:
    return found.cpu


def _within(goal: str, found: float | None, most: float, problem: str | None) -> str:
    return _goal(goal, found, lambda times: times <= most, problem)


def _goal(goal: str, found: float | None, reached: Callable[[float], bool], problem: str | None) -> str:
    if found is None:
        return f"- Goal, {goal}: **not known** ({problem})."
    return f"- Goal, {goal}: **{'reached' if reached(found) else 'not reached'}** ({found:.2f} times)."


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Everything that was measured, for a file."""
    return asdict(outcome)
