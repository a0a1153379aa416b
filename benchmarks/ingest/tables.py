"""Watch an Iceberg table from outside, by its metadata file: cheap enough to do ten times a second."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.table import StaticTable

# Finds the table's current metadata file; None before there is one.
Head = Callable[[], Path | None]
Summary = dict[str, str]


@dataclass(frozen=True)
class Snapshot:
    """A table's current snapshot.

    Attributes:
        id: Its id.
        summary: Its summary.
    """

    id: int
    summary: Summary


def path_of(location: str) -> Path:
    """The local file behind a location: ``file:///x``, ``file:/x`` or ``/x``."""
    return Path(urlparse(location).path)


def sql_head(catalog: Path, namespace: str, name: str) -> Head:
    """Head of a table in a PyIceberg SQLite catalog."""
    query = "SELECT metadata_location FROM iceberg_tables WHERE table_namespace = ? AND table_name = ?"

    def head() -> Path | None:
        if not catalog.is_file():
            return None
        try:
            with closing(sqlite3.connect(f"file:{catalog}?mode=ro", uri=True, timeout=5)) as connection:
                row = connection.execute(query, (namespace, name)).fetchone()
        except sqlite3.OperationalError:  # The catalog's own tables are being created.
            return None
        return path_of(row[0]) if row else None

    return head


def hadoop_head(table: Path) -> Head:
    """Head of a table in a Hadoop catalog, which numbers its metadata files."""
    folder = table / "metadata"

    def head() -> Path | None:
        found = list(folder.glob("v*.metadata.json"))
        return max(found, key=lambda path: int(path.name[1:].split(".")[0]), default=None)

    return head


def current_snapshot(metadata: Path) -> Snapshot | None:
    """The current snapshot in a metadata file, or None."""
    content: dict[str, Any] = json.loads(metadata.read_text())
    current = content.get("current-snapshot-id")
    for snapshot in content.get("snapshots", []):
        if snapshot["snapshot-id"] == current:
            return Snapshot(current, snapshot.get("summary", {}))
    return None


def appends(metadata: Path) -> list[int]:
    """Ids of the snapshots in a metadata file that brought rows; a compaction's rows were visible before."""
    snapshots = json.loads(metadata.read_text()).get("snapshots", [])
    return [one["snapshot-id"] for one in snapshots if one.get("summary", {}).get("operation") != "replace"]


def files_by_snapshot(metadata: Path) -> dict[int, list[str]]:
    """The table's data files by the snapshot that added them."""
    table = StaticTable.from_metadata(str(metadata))
    entries = table.inspect.entries().select(["snapshot_id", "status", "data_file"]).to_pylist()
    files: dict[int, list[str]] = {}
    for entry in entries:
        if entry["status"] != 2:  # deleted
            files.setdefault(entry["snapshot_id"], []).append(entry["data_file"]["file_path"])
    return files


def column(files: list[str], name: str) -> pa.ChunkedArray:
    """One column of some data files."""
    parts = [pq.ParquetFile(path_of(file)).read(columns=[name])[name] for file in files]
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks])


def distinct(metadata: Path, name: str) -> tuple[int, int]:
    """Rows of a table, and different values of a column among them."""
    files = [file for some in files_by_snapshot(metadata).values() for file in some]
    values = column(files, name)
    return len(values), int(pc.count_distinct(values).as_py())


def milliseconds(times: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Event times as milliseconds since the epoch, whether a contender stored them as timestamps or left them text."""
    if pa.types.is_string(times.type) or pa.types.is_large_string(times.type):
        seconds = pc.strptime(pc.utf8_slice_codeunits(times, 0, 19), "%Y-%m-%dT%H:%M:%S", "ms")
        fraction = pc.utf8_slice_codeunits(times, 20, 23).cast(pa.int64())
        return np.asarray(seconds.cast(pa.int64()).to_numpy() + fraction.to_numpy())
    return np.asarray(times.cast(pa.timestamp("ms"), safe=False).cast(pa.int64()).to_numpy())
