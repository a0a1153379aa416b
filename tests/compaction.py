"""A small table in days, what is written to it, and what its files are."""

from datetime import date
from pathlib import Path

import pyarrow as pa
from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table

from freshdata.lake.clustering import Clustering, Key
from freshdata.lake.commits import commit_batch
from freshdata.lake.files import write_data_files
from freshdata.lake.health import Thresholds
from freshdata.lake.progress import PartitionProgress, Progress, read_progress

NAME = "silver.sample"
DAYS = (date(2013, 1, 1), date(2013, 1, 2))
SCHEMA = pa.schema([pa.field("day", pa.date32()), pa.field("key", pa.int64()), pa.field("value", pa.string())])
BY_KEY = Clustering((Key("key"),))
NOW = Thresholds(small_files=2, delete_files=1)
MERGE = """
MERGE INTO lake.silver.sample AS t USING (SELECT CAST(? AS DATE) AS day, unnest(?) AS key, ? AS value) AS n
ON t.day = n.day AND t.key = n.key
WHEN MATCHED THEN UPDATE SET value = n.value
WHEN NOT MATCHED THEN INSERT VALUES (n.day, n.key, n.value)
"""


def commit(table: Table, *keys: int, day: date = DAYS[0], value: str = "a") -> int:
    """Commit rows as a worker does; returns the snapshot."""
    table.refresh()
    recorded = read_progress(table) if table.current_snapshot() else None
    begin = recorded.partitions[0].offset if recorded else 0
    rows = pa.Table.from_pylist([{"day": day, "key": key, "value": value} for key in keys], schema=SCHEMA)
    batch = Progress("cluster", "topic", {0: PartitionProgress(begin + len(keys), accepted=len(keys))})
    commit_batch(table, write_data_files(table, rows), {0: begin}, batch)
    return table.current_snapshot().snapshot_id


def fill(table: Table, commits: int = 5) -> None:
    """Two days of five rows a commit, in no order of the keys."""
    for number in range(commits):
        for day in DAYS:
            commit(table, *(number + commits * place for place in (4, 2, 0, 3, 1)), day=day)


def merge(duck, day: date, keys: list[int], value: str) -> None:
    duck.execute(MERGE, [day, keys, value])


def rows(table: Table) -> list[tuple]:
    return sorted(tuple(row.values()) for row in table.refresh().scan().to_arrow().to_pylist())


def duck_rows(duck) -> list[tuple]:
    return sorted(duck.execute("FROM lake.silver.sample").fetchall())


def files(table: Table, content: ManifestContent = ManifestContent.DATA) -> list:
    head = table.refresh().current_snapshot()
    return [
        entry
        for manifest in head.manifests(table.io)
        if manifest.content == content
        for entry in manifest.fetch_manifest_entry(table.io)
    ]


def on_disk(table: Table) -> set[Path]:
    return set(Path(table.location().removeprefix("file://")).rglob("*.parquet"))


def local(entry) -> str:
    return entry.data_file.file_path.removeprefix("file://")


def both_days(table: Table, *keys: int) -> None:
    """One commit, and so one manifest, with files of both days."""
    records = [{"day": day, "key": key, "value": "a"} for day in DAYS for key in keys]
    table.refresh()
    table.append(pa.Table.from_pylist(records, schema=SCHEMA))
