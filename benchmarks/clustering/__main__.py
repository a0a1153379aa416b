"""``python -m benchmarks.clustering``: what queries for a plane or a destination read before and after a compaction.

The real year of flight events, repeated, is committed to a Bronze table as a worker commits it: batches in the order of
time, each sorted by itself. Then the table is rewritten sorted by ``tailnum``, and along a Z-order curve through
``tailnum`` and ``dest``. Counted are the files that PyIceberg plans, and the row groups that their statistics do not
rule out; DuckDB's time is compared within the run.
"""

import argparse
import random
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.expressions import EqualTo
from pyiceberg.table import Table
from pyiceberg.transforms import BucketTransform, IdentityTransform

from benchmarks.results import machine, write_section
from freshdata.contracts import load_contracts
from freshdata.lake.catalog import bronze_schema, ensure_table, open_catalog
from freshdata.lake.clustering import Clustering, Key
from freshdata.lake.commits import commit_batch
from freshdata.lake.compaction import compact
from freshdata.lake.files import write_data_files
from freshdata.lake.health import Thresholds
from freshdata.lake.progress import PartitionProgress, Progress
from freshdata.lake.query import connect
from freshdata.sample.flights import flight_events
from freshdata.settings import PROJECT, Settings

TABLE = "bronze.flight_events"
BATCH_ROWS = 250_000
TENANT_BUCKETS = 4
INGESTION_DAYS = 2
# Far enough for each repetition to be another year, on the same day of the week.
YEAR = timedelta(days=364)
QUERIES = ("tailnum", "dest")
VALUES = 20  # of each column, asked for one by one
REPEATS = 3
LAYOUTS = {
    "as committed": None,
    "sorted by tailnum": Clustering((Key("tailnum"), Key("event_time"))),
    "Z-order of tailnum, dest": Clustering((Key("tailnum"), Key("event_time")), ("tailnum", "dest")),
}


@dataclass(frozen=True)
class Read:
    """What one query must read, on average over the values asked for.

    Attributes:
        files: Files that PyIceberg plans.
        file_bytes: Their size.
        row_groups: Row groups of them whose statistics do not rule the value out.
        row_group_bytes: Their size.
        seconds: DuckDB's time for a query: the median.
    """

    files: float
    file_bytes: float
    row_groups: float
    row_group_bytes: float
    seconds: float


@dataclass(frozen=True)
class Layout:
    """A table in one order.

    Attributes:
        files: Its data files.
        bytes: Their size.
        seconds: Time that the compaction took; 0 for the table as committed.
        reads: Column asked for to what is read.
    """

    files: int
    bytes: int
    seconds: float
    reads: dict[str, Read]


def fill(settings: Settings, rows: int) -> Table:
    """Commit so many flight events, batch by batch."""
    contracts = load_contracts(PROJECT / "contracts")
    table = ensure_table(
        open_catalog(settings),
        TABLE,
        bronze_schema(contracts["flight_events"], contracts),
        partition_by={"ingestion_date": IdentityTransform(), "tenant_id": BucketTransform(TENANT_BUCKETS)},
        sort_by=("tailnum", "event_time"),
    )
    year = flight_events()
    year = year.take(pc.sort_indices(year["event_time"])).drop_columns(["suffix"])
    schema, done = table.schema().as_arrow(), 0
    batches = -(-rows // BATCH_ROWS)
    for number in range(batches):
        repetition, first = divmod(number * BATCH_ROWS, len(year))
        part = _batch(year, repetition, first, number, number * INGESTION_DAYS // batches)
        part = part.select(schema.names).cast(schema)
        progress = Progress("cluster", "flights", {0: PartitionProgress(done + len(part), accepted=len(part))})
        commit_batch(table, write_data_files(table, part), {0: done}, progress)
        done += len(part)
    return table


def _batch(year: pa.Table, repetition: int, first: int, number: int, day: int) -> pa.Table:
    """The year's events from one on, in its repetitions, as a worker would store them."""
    parts, missing = [], BATCH_ROWS
    while missing:
        part = year.slice(first, missing)
        shift = pa.scalar(YEAR * repetition)
        for name in ("event_time", "scheduled_departure"):
            moved = pc.add(part[name].cast(pa.timestamp("us", "UTC")), shift)
            part = part.set_column(part.column_names.index(name), name, moved)
        moved = pc.add(part["flight_date"].cast(pa.timestamp("us")), shift).cast(pa.date32())
        part = part.set_column(part.column_names.index("flight_date"), "flight_date", moved)
        parts.append(part)
        missing, first, repetition = missing - len(part), 0, repetition + 1
    rows = pa.concat_tables(parts)
    places = pa.array(range(number * BATCH_ROWS, (number + 1) * BATCH_ROWS))
    added = {
        "event_id": pc.utf8_lpad(places.cast(pa.string()), 12, "0"),
        "carrier_name": rows["tenant_id"],
        "_kafka_partition": pa.repeat(pa.scalar(0, pa.int32()), len(rows)),
        "_offset": places,
        "_ingested_at": rows["event_time"],
        "_late": pa.repeat(pa.scalar(value=False), len(rows)),
        "ingestion_date": pa.repeat(pa.scalar(date(2013, 1, 1) + timedelta(days=day)), len(rows)),
    }
    for name, values in added.items():
        rows = rows.append_column(name, values)
    return rows


def measure(settings: Settings, table: Table, values: dict[str, list[str]], seconds: float) -> Layout:
    """What the queries read of the table as it is."""
    tasks = list(table.refresh().scan().plan_files())
    return Layout(
        len(tasks),
        sum(task.file.file_size_in_bytes for task in tasks),
        seconds,
        {column: _read(settings, table, column, values[column]) for column in QUERIES},
    )


def _read(settings: Settings, table: Table, column: str, values: list[str]) -> Read:
    place = table.schema().column_names.index(column)
    files, groups, times = [], [], []
    for value in values:
        planned = [task.file for task in table.scan(row_filter=EqualTo(column, value)).plan_files()]  # type: ignore[call-arg]
        files.append((len(planned), sum(file.file_size_in_bytes for file in planned)))
        sizes = [size for file in planned for size in _row_groups(file.file_path.removeprefix("file://"), place, value)]
        groups.append((len(sizes), sum(sizes)))
    query = f"SELECT count(*), avg(dep_delay) FROM lake.{TABLE} WHERE {column} = ?"  # noqa: S608 - constants.
    with connect(settings) as connection:
        for number in range(REPEATS + 1):
            for value in values:
                started = time.perf_counter()
                connection.execute(query, [value]).fetchall()
                if number:  # The first round warms the file cache up.
                    times.append(time.perf_counter() - started)
    (many, size), (many_groups, group_size) = (
        map(statistics.mean, zip(*found, strict=True)) for found in (files, groups)
    )
    return Read(many, size, many_groups, group_size, statistics.median(times))


def _row_groups(path: str, place: int, value: str) -> list[int]:
    """Sizes of a file's row groups that may hold a value."""
    metadata = pq.ParquetFile(path).metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chosen = [group for group in groups if _may_hold(group.column(place).statistics, value)]
    return [sum(group.column(n).total_compressed_size for n in range(group.num_columns)) for group in chosen]


def _may_hold(statistics_of: pq.Statistics, value: str) -> bool:
    return not statistics_of.has_min_max or bool(statistics_of.min <= value <= statistics_of.max)


def lines(rows: int, target: int, layouts: dict[str, Layout]) -> list[str]:
    """The results as Markdown."""
    first = next(iter(layouts.values()))
    about = (
        f"{rows:,} flight events in {first.files} files, {INGESTION_DAYS} ingestion days and {TENANT_BUCKETS} tenant "
        f"buckets, queried for one of {VALUES} values; means of what must be read. Rewritten to files of {target} MB, "
        "in row groups of 131,072 rows. `python -m benchmarks.clustering`"
    )
    told = [
        about,
        "",
        "| query | layout | files | MB of files | row groups | MB of row groups | DuckDB's time |",
        "|---|---|---|---|---|---|---|",
    ]
    for column in QUERIES:
        base = first.reads[column]
        told += [
            f"| `{column} = ?` | {name} | {read.files:.1f} of {layout.files} | {read.file_bytes / 1e6:.1f} "
            f"| {read.row_groups:.1f} | {read.row_group_bytes / 1e6:.2f} | {read.seconds / base.seconds:.2f} |"
            for name, layout in layouts.items()
            for read in [layout.reads[column]]
        ]
    speeds = ", ".join(
        f"{name} {layout.seconds:.0f} s ({first.bytes / 1e6 / layout.seconds:.1f} MB/s)"
        for name, layout in layouts.items()
        if layout.seconds
    )
    sizes = ", ".join(f"{layout.bytes / 1e6:.0f} MB {name}" for name, layout in layouts.items())
    return [*told, "", f"Size: {sizes}. Rewriting: {speeds}."]


def main() -> None:
    """Measure, and write the results down."""
    parser = argparse.ArgumentParser(description="What selective queries read before and after a compaction.")
    parser.add_argument("--rows", type=int, default=20_000_000, help="flight events, in whole batches")
    parser.add_argument("--target", type=int, default=16, help="size of a compacted file in MB")
    parser.add_argument("--no-results", action="store_true", help="print only; leave RESULTS.md alone")
    options = parser.parse_args()
    facts, home = machine(), Path(tempfile.mkdtemp(prefix="clustering-"))
    try:
        settings = Settings().for_home(home)
        table = fill(settings, options.rows)
        year, chance = flight_events(), random.Random(7)  # noqa: S311 - the same values each time
        values = {
            column: chance.sample(sorted(set(year[column].drop_null().to_pylist())), VALUES) for column in QUERIES
        }
        layouts = {}
        for name, clustering in LAYOUTS.items():
            seconds = 0.0
            if clustering is not None:
                thresholds = Thresholds(everything=True, target_bytes=options.target * 1_000_000)
                seconds = compact(table, clustering, thresholds).seconds
            layouts[name] = measure(settings, table, values, seconds)
            print(name, layouts[name], file=sys.stderr)
            rows = sum(task.file.record_count for task in table.scan().plan_files())
            if rows < options.rows or rows >= options.rows + BATCH_ROWS:
                sys.exit(f"{rows:,} rows are in the table {name}")
    finally:
        shutil.rmtree(home)
    text = lines(rows, options.target, layouts)
    print("\n".join(text))
    if not options.no_results:
        write_section("clustering", "What clustering saves a selective query", text, facts)


if __name__ == "__main__":
    main()
