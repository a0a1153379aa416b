"""``python -m benchmarks.commits``: the time of a commit, from the tenth to the ten thousandth, with maintenance on.

A real Iceberg table on a SQLite catalog, with the columns of the sample's flight events, takes commit after commit from
one writer, as a stream worker makes them, while the worker's maintenance runs beside it. What is timed is the commit
alone: the data files' metadata are a real batch's, under a new name each time, so that the manifests are what they
would be and the disk does not fill with rows that nobody reads.

The tenth commit is a single one, so it is measured on many fresh tables: commits 6 to 15 of one after each stretch of
the long run. What else the machine does at the time thus slows both alike; the last stretches are compared with the
fresh tables between them.
"""

import argparse
import copy
import json
import logging
import shutil
import sys
import tempfile
import time
import uuid
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.transforms import BucketTransform, IdentityTransform, Transform

from benchmarks.results import machine, write_section
from freshdata.contracts import load_contracts
from freshdata.lake.catalog import bronze_schema, ensure_table, open_catalog
from freshdata.lake.commits import commit_batch
from freshdata.lake.files import write_data_files
from freshdata.lake.maintenance import Retention
from freshdata.lake.progress import PartitionProgress, Progress
from freshdata.settings import PROJECT, Settings
from stream_workers.maintainer import Maintainer
from stream_workers.tuning import tune_process

TABLE = "bronze.flight_events"
BUCKETS = 32
# As the contracts have it: one file a tenant while they are few, one file a bucket when they are many.
MOST_TENANTS_BY_NAME = 100
KAFKA_PARTITIONS = 4
EARLY = range(5, 15)
WHOLE = 10_000  # commits
# Position of the path in a manifest's record of a data file.
FILE_PATH = 1
DAY = date(2013, 1, 1)


@dataclass(frozen=True)
class Window:
    """Commit times of a stretch of commits.

    Attributes:
        first: Number of its first commit.
        last: Number of its last commit.
        p50: Median, in milliseconds.
        p95: 95th percentile, in milliseconds.
        slowest: The slowest, in milliseconds.
        p95_cpu: 95th percentile of the CPU time, which a busy machine disturbs less.
        snapshots: Snapshots in the table's metadata at its end.
        manifests: Manifests of the current snapshot at its end.
    """

    first: int
    last: int
    p50: float
    p95: float
    slowest: float
    p95_cpu: float
    snapshots: int
    manifests: int


@dataclass(frozen=True)
class Outcome:
    """The result for a number of tenants.

    Attributes:
        tenants: Number of tenants.
        files: Data files a commit.
        windows: The tenth commit over fresh tables, then the stretches of the long run, then its end as a whole.
        ratio: p95 of the long run's end over p95 of the tenth commit.
        ratio_cpu: The same of the CPU time.
        seconds: Time the run took.
    """

    tenants: int
    files: int
    windows: list[Window]
    ratio: float
    ratio_cpu: float
    seconds: float


class Writer:
    """A table of its own, and commits to it."""

    def __init__(self, home: Path, tenants: int) -> None:
        self.settings = Settings().for_home(home)
        self.table = _table(self.settings, tenants)
        self.files = write_data_files(self.table, _rows(self.table, tenants))
        self.offset = 0

    def commit(self, after: float) -> tuple[float, float]:
        """Commit a batch of one file a partition; returns the milliseconds it took, and those of this process's CPU.

        Args:
            after: Seconds to wait before: a processor's caches do not stay warm between a worker's commits.
        """
        time.sleep(after)
        files = [_renamed(file) for file in self.files]
        done = PartitionProgress(self.offset + 1, 1_356_998_400_000_000 + self.offset, 1, 1)
        batch = Progress("cluster", "flight_events", dict.fromkeys(range(KAFKA_PARTITIONS), done))
        begin = dict.fromkeys(range(KAFKA_PARTITIONS), self.offset)
        started, busy = time.perf_counter(), time.process_time()
        commit_batch(self.table, files, begin, batch)
        self.offset += 1
        return (time.perf_counter() - started) * 1000, (time.process_time() - busy) * 1000

    def window(self, first: int, times: list[tuple[float, float]]) -> Window:
        """The commit times of a stretch that ends here."""
        head = self.table.current_snapshot()
        wall, busy = (sorted(column) for column in zip(*times, strict=True))
        p95 = int(len(times) * 0.95)
        return Window(
            first,
            first + len(times) - 1,
            round(wall[len(times) // 2], 1),
            round(wall[p95], 1),
            round(wall[-1], 1),
            round(busy[p95], 1),
            len(self.table.snapshots()),
            len(head.manifests(self.table.io)) if head else 0,
        )


def measure(tenants: int, options: argparse.Namespace, home: Path) -> Outcome:
    """Measure one number of tenants: a long run, and fresh tables in between."""
    started = time.perf_counter()
    writer = Writer(home / "long", tenants)
    maintainer = Maintainer(writer.settings, Retention(young=timedelta(seconds=options.young)))
    windows: list[Window] = []
    late: list[tuple[float, float]] = []
    early: list[tuple[float, float]] = []
    last = options.commits - options.compare
    try:
        for first in range(1, options.commits + 1, options.window):
            times = []
            for _ in range(options.window):
                times.append(writer.commit(after=options.pause))
                maintainer.committed(writer.table)
            windows.append(writer.window(first, times))
            _say(f"  {asdict(windows[-1])}")
            fresh = Writer(home / f"fresh-{first}", tenants)
            tenth = [fresh.commit(after=options.pause) for _ in range(EARLY.stop)][EARLY.start :]
            if first > last:
                late, early = late + times, early + tenth
    finally:
        maintainer.close()
    compared = writer.window(last + 1, late)
    base = replace(fresh.window(EARLY.start + 1, early), last=EARLY.stop)
    return Outcome(
        tenants,
        len(writer.files),
        [base, *windows, compared],
        round(compared.p95 / base.p95, 2),
        round(compared.p95_cpu / base.p95_cpu, 2),
        round(time.perf_counter() - started, 1),
    )


def _table(settings: Settings, tenants: int) -> Table:
    contracts = load_contracts(PROJECT / "contracts")
    by_tenant: Transform[Any, Any] = IdentityTransform()
    if tenants > MOST_TENANTS_BY_NAME:
        by_tenant = BucketTransform(BUCKETS)
    return ensure_table(
        open_catalog(settings),
        TABLE,
        bronze_schema(contracts["flight_events"], contracts),
        partition_by={"ingestion_date": IdentityTransform(), "tenant_id": by_tenant},
        sort_by=("event_time",),
    )


def _rows(table: Table, tenants: int) -> pa.Table:
    noon = datetime(2013, 1, 1, 12, tzinfo=UTC)
    event = {
        "event_type": "departed", "event_time": noon, "flight_date": DAY, "flight": 1, "sched_dep_time": 700,
        "scheduled_departure": noon, "tailnum": "N14228", "origin": "EWR", "dest": "IAH", "dep_delay": 2,
        "distance": 1400, "carrier_name": "United Air Lines Inc.", "_kafka_partition": 0, "_offset": 0,
        "_ingested_at": noon, "_late": False, "ingestion_date": DAY,
    }  # fmt: skip
    rows = [event | {"event_id": f"e{number}", "tenant_id": f"t{number:04}"} for number in range(tenants)]
    return pa.Table.from_pylist(rows, schema=table.schema().as_arrow())


def _renamed(file: DataFile) -> DataFile:
    renamed = copy.deepcopy(file)
    renamed[FILE_PATH] = f"{file.file_path.rpartition('/')[0]}/{uuid.uuid4()}.parquet"
    return renamed


def _say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    """Run the benchmark, print a table, and write JSON if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commits", description=__doc__.partition("\n")[0])
    parser.add_argument("--tenants", type=int, nargs="+", default=[20, 1000], help="numbers of tenants")
    parser.add_argument("--commits", type=int, default=WHOLE, help="commits of the long run")
    parser.add_argument("--window", type=int, default=100, help="commits a line")
    parser.add_argument("--compare", type=int, default=1000, help="commits at the end that are compared with the tenth")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between commits (a worker waits 2)")
    parser.add_argument("--young", type=float, default=0.5, help="seconds a snapshot is kept: as dense as the commits")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    logging.getLogger("pyiceberg").setLevel(logging.WARNING)
    tune_process()  # As a worker does.
    facts, command = machine(), " ".join(["python -m benchmarks.commits", *sys.argv[1:]])
    home = Path(tempfile.mkdtemp(prefix="freshdata-commits-"))
    try:
        outcomes = []
        for tenants in options.tenants:
            _say(f"{tenants} tenants")
            outcomes.append(measure(tenants, options, home / str(tenants)))
    finally:
        shutil.rmtree(home)
    lines = [
        f"Commits of one writer every {options.pause} s, with the worker's maintenance beside it. `{command}`",
        "",
        "| tenants | files a commit | commit | p50 ms | p95 ms | slowest ms | p95 CPU ms | snapshots | manifests |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for outcome in outcomes:
        shown = [*outcome.windows[:2], *outcome.windows[2 :: max(1, len(outcome.windows) // 8)], outcome.windows[-1]]
        lines += [
            f"| {outcome.tenants} | {outcome.files} | {w.first}-{w.last} | {w.p50} | {w.p95} | {w.slowest} "
            f"| {w.p95_cpu} | {w.snapshots} | {w.manifests} |"
            for w in dict.fromkeys(shown)
        ]
    lines.append("")
    lines += [
        f"- {outcome.tenants} tenants: p95 of the last {options.compare} commits is {outcome.ratio} times that of the "
        f"tenth, {outcome.ratio_cpu} times in CPU time; the run took {outcome.seconds:.0f} s."
        for outcome in outcomes
    ]
    _say("\n".join(lines))
    if options.commits >= WHOLE:
        # Fewer are a look, not a result.
        write_section("commits", "The cost of a commit as a table grows old", lines, facts)
    if options.json:
        options.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))


if __name__ == "__main__":
    main()
