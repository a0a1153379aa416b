"""What the benchmark tells: a table, JSON, a section of RESULTS.md and a bar chart."""

import json
import re
import subprocess
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.ingest.events import Topic
from benchmarks.ingest.measure import Contender, Run
from benchmarks.ingest.paced import Freshness
from benchmarks.results import write_section
from freshdata.settings import PROJECT

PACKAGES = ("confluent-kafka", "msgspec", "numpy", "pyarrow", "pyiceberg", "quixstreams")
OWN = ("worker", "worker2")
HERE = Path(__file__).parent
HEADINGS = ("contender", "does", "events/s", "lowest - highest", "events/CPU-s", "of the floor", "peak MB", "p95 s")
CHART = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="13">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="10" y="22" font-weight="bold">Events a processor second, Kafka to Iceberg (more is better)</text>
{bars}
</svg>
"""
BAR = """\
<text x="205" y="{text}" text-anchor="end">{label}</text>
<rect x="215" y="{top}" width="{length:.1f}" height="20" fill="{colour}"/>
<text x="{end:.1f}" y="{text}">{value}</text>"""
LONGEST_BAR = 400  # pixels


@dataclass
class Outcome:
    """Everything that was measured.

    Attributes:
        command: The command that measured it.
        topic: The topic.
        rounds: Rounds of each contender.
        rate: Events a second of the freshness runs.
        machine: What it ran on.
        contenders: The contenders, in order.
        runs: All runs.
        freshness: Freshness by contender.
    """

    command: str
    topic: Topic
    rounds: int
    rate: int
    machine: dict[str, str]
    contenders: list[Contender]
    runs: list[Run] = field(default_factory=list)
    freshness: dict[str, Freshness] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A contender's result: the medians of its rounds.

    Attributes:
        contender: The contender.
        rate: Events a second.
        per_cpu: Events a processor second.
        spread: Lowest and highest rate.
        memory: Highest peak memory, in bytes.
        problem: Why there is no result, or None.
    """

    contender: Contender
    rate: float = 0.0
    per_cpu: float = 0.0
    spread: tuple[float, float] = (0.0, 0.0)
    memory: int = 0
    problem: str | None = None


def versions() -> dict[str, str]:
    """The versions of what the contenders are made of."""
    java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
    return {
        "java": (re.findall(r'version "(.*?)"', java.stderr) or ["unknown"])[0],
        **{package: version(package) for package in PACKAGES},
        **_jvm_versions(),
    }


def _jvm_versions() -> dict[str, str]:
    poms = [(PROJECT / "pom.xml").read_text(), (HERE / "pom.xml").read_text()]
    flink = (HERE / "jvm" / "requirements.txt").read_text()
    found = dict(re.findall(r"<([a-z]+)\.version>(.+?)<", "".join(poms)))
    found |= dict(re.findall(r"^apache-(flink)-libraries==(\S+)", flink, re.MULTILINE))
    return {name: found[name] for name in ("kafka", "flink", "iceberg", "connect") if name in found}


def rows(outcome: Outcome) -> list[Row]:
    """The result of each contender: a single failed round makes it none."""
    found = []
    for contender in outcome.contenders:
        runs = [run for run in outcome.runs if run.contender == contender.name]
        problem = next((run.problem for run in runs if run.problem), None)
        if problem or not runs:
            found.append(Row(contender, problem=problem or "it was not run"))
            continue
        rates = [run.rate for run in runs]
        per_cpu = median(run.per_cpu for run in runs)
        memory = max(run.memory for run in runs)
        found.append(Row(contender, median(rates), per_cpu, (min(rates), max(rates)), memory))
    return found


def cells(outcome: Outcome) -> list[tuple[str, ...]]:
    """The table's cells, under :data:`HEADINGS`."""
    results = rows(outcome)
    floor = next((row.per_cpu for row in results if row.contender.name == "floor"), 0.0)
    lines: list[tuple[str, ...]] = []
    for row in results:
        fresh = outcome.freshness.get(row.contender.name)
        age = "-" if fresh is None else f"no result: {fresh.problem}" if fresh.problem else f"{fresh.p95:.2f}"
        name = (row.contender.label, row.contender.does)
        if row.problem:
            lines.append((*name, f"no result: {row.problem}", "-", "-", "-", "-", age))
            continue
        low, high = row.spread
        measured = (f"{row.rate:,.0f}", f"{low:,.0f} - {high:,.0f}", f"{row.per_cpu:,.0f}")
        of_floor = f"{row.per_cpu / floor:.0%}" if floor else "-"
        lines.append((*name, *measured, of_floor, f"{row.memory / 1e6:,.0f}", age))
    return lines


def verdict(outcome: Outcome) -> str | None:
    """This project's best against the best peer, in events a processor second; None when either has no result."""
    results = [row for row in rows(outcome) if row.problem is None and row.contender.name != "floor"]
    own = [row for row in results if row.contender.name in OWN]
    peers = [row for row in results if row.contender.name not in OWN]
    if not own or not peers:
        return None
    worker, peer = max(own, key=lambda row: row.per_cpu), max(peers, key=lambda row: row.per_cpu)
    fastest = max(own, key=lambda row: row.rate), max(peers, key=lambda row: row.rate)
    return (
        f"{worker.contender.label} handles {worker.per_cpu / peer.per_cpu:.1f} times the events a processor second of "
        f"the best peer ({peer.contender.label}); by the clock, {fastest[0].contender.label} is "
        f"{fastest[0].rate / fastest[1].rate:.1f} times as fast as {fastest[1].contender.label}."
    )


def show(outcome: Outcome) -> None:
    """Print the table."""
    table = Table(title=_title(outcome))
    for number, heading in enumerate(HEADINGS):
        if heading != "does":
            table.add_column(heading, justify="right" if number > 1 else "left")
    for line in cells(outcome):
        table.add_row(line[0], *line[2:])
    console = Console()
    console.print(table)
    if told := verdict(outcome):
        console.print(told)


def write_json(outcome: Outcome, path: Path) -> None:
    """Write every run."""
    content: dict[str, Any] = {
        "command": outcome.command,
        "machine": outcome.machine,
        "topic": asdict(outcome.topic),
        "runs": [asdict(run) | {"rate": run.rate, "per_cpu": run.per_cpu} for run in outcome.runs],
        "freshness": [asdict(fresh) for fresh in outcome.freshness.values()],
    }
    path.write_text(json.dumps(content, indent=1))


def write_results(outcome: Outcome, path: Path) -> None:
    """Replace the benchmark's section of a Markdown file, and the chart beside it."""
    chart = path.with_name("ingest.svg")
    chart.write_text(_chart(rows(outcome)))
    lines = [
        f"{_title(outcome)}. `{outcome.command}`",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|---" * len(HEADINGS) + "|",
        *("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in cells(outcome)),
        "",
        *([verdict(outcome) or "", ""] if verdict(outcome) else []),
        f"p95 s: record timestamp to visible commit at {outcome.rate:,} events a second, all committing every 2 s.",
        "",
        f"![Events a processor second]({chart.name})",
    ]
    write_section("ingest", "Kafka to Iceberg", lines, outcome.machine, path)


def _title(outcome: Outcome) -> str:
    topic = outcome.topic
    repeats = 1 - topic.distinct / topic.events
    return (
        f"{topic.events:,} JSON events of {topic.mean_bytes:.0f} bytes, {repeats:.0%} repeats, 4 partitions; "
        f"medians of {outcome.rounds} interleaved rounds"
    )


def _chart(results: list[Row]) -> str:
    shown = [row for row in results if row.problem is None]
    longest = max((row.per_cpu for row in shown), default=1.0)
    bars = []
    for number, row in enumerate(shown):
        top = 40 + number * 30
        length = row.per_cpu / longest * LONGEST_BAR
        colour = "#2f6fde" if row.contender.name in OWN else "#b8bec9" if row.contender.name == "floor" else "#e08a2f"
        value = f"{row.per_cpu:,.0f}"
        place = {"top": top, "text": top + 15, "length": length, "end": 223 + length}
        bars.append(BAR.format(label=row.contender.label, colour=colour, value=value, **place))
    return CHART.format(width=720, height=50 + 30 * len(shown), bars="\n".join(bars))
