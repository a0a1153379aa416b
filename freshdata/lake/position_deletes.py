"""Position-delete files: read, written, and folded together as merges add them.

A reader applies every delete file of a partition to each of its data files, so their number costs more than their size:
ten merges made reads up to five times slower than those of a compacted table. A merge therefore writes anew, as one
file with its own, those that are not much larger than what it deletes. Each position is written again only a few times
before its file is too large to be worth it, and a few files are left, however many merges there were.
"""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.conversions import to_bytes
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import FileScanTask, Table
from pyiceberg.typedef import Record
from pyiceberg.types import StringType

Positions = npt.NDArray[np.int64]

# Delete files of so many times the new positions are written anew with them.
FOLDED_TIMES = 4
POSITIONS_AT_HAND = 10_000_000
PATH_ID, POSITION_ID = 2147483546, 2147483545  # Reserved by the Iceberg specification.
DELETE_SCHEMA = pa.schema(
    [
        pa.field("file_path", pa.string(), nullable=False, metadata={"PARQUET:field_id": str(PATH_ID)}),
        pa.field("pos", pa.int64(), nullable=False, metadata={"PARQUET:field_id": str(POSITION_ID)}),
    ]
)

_known: dict[str, Mapping[str, Positions]] = {}


@dataclass(frozen=True)
class Deletion:
    """Delete files to add to a table, and those that they stand for from then on.

    Attributes:
        added: New delete files, one for each partition.
        folded: Delete files to take away.
    """

    added: list[DataFile]
    folded: list[DataFile]


def read_positions(io: FileIO, path: str) -> Mapping[str, Positions]:
    """Data file to the positions that a delete file, in Parquet, deletes there; kept in memory, as it never changes."""
    if path not in _known:
        with io.new_input(path).open() as stream:
            table = pq.read_table(stream, columns=["file_path", "pos"])
        paths = table["file_path"].combine_chunks().dictionary_encode()
        codes, positions = paths.indices.to_numpy(), table["pos"].to_numpy()
        _keep(path, {name: positions[codes == code] for code, name in enumerate(paths.dictionary.to_pylist())})
    return _known[path]


def _keep(path: str, positions: Mapping[str, Positions]) -> None:
    if sum(len(part) for one in _known.values() for part in one.values()) > POSITIONS_AT_HAND:
        _known.clear()
    _known[path] = positions


def write_deletes(table: Table, tasks: Iterable[FileScanTask], found: list[tuple[DataFile, Positions]]) -> Deletion:
    """Write the delete files that delete some more rows.

    Args:
        table: The table; its delete files are in Parquet.
        tasks: The live data files of the partitions concerned, with their delete files.
        found: Data files of these, and which of their rows to delete.
    """
    chosen: dict[Record, dict[str, Positions]] = defaultdict(dict)
    for file, positions in found:
        chosen[file.partition][file.file_path] = positions
    present: dict[Record, dict[str, DataFile]] = defaultdict(dict)
    live = set()
    for task in tasks:
        live.add(task.file.file_path)
        for file in task.delete_files:
            if file.partition == task.file.partition:
                present[file.partition][file.file_path] = file
    deletion = Deletion([], [])
    for partition, deleted in chosen.items():
        folded = _worth_folding(present[partition].values(), sum(map(len, deleted.values())))
        for file in folded:
            for path, positions in read_positions(table.io, file.file_path).items():
                if path in live:
                    deleted[path] = np.union1d(deleted[path], positions) if path in deleted else positions
        deletion.added.append(_delete_file(table, partition, deleted))
        deletion.folded.extend(folded)
    return deletion


def _worth_folding(files: Iterable[DataFile], positions: int) -> list[DataFile]:
    folded = []
    for file in sorted(files, key=lambda file: file.record_count):
        if file.record_count > FOLDED_TIMES * positions:
            break
        positions += file.record_count
        folded.append(file)
    return folded


def _delete_file(table: Table, partition: Record, deleted: Mapping[str, Positions]) -> DataFile:
    parts = sorted(deleted.items())
    paths = pa.concat_arrays([pa.repeat(path, len(positions)) for path, positions in parts])
    content = pa.table([paths, pa.array(np.concatenate([np.sort(at) for _, at in parts]))], schema=DELETE_SCHEMA)
    location = table.location_provider().new_data_location(f"{uuid.uuid4()}-deletes.parquet")
    output = table.io.new_output(location)
    with output.create() as stream:
        pq.write_table(content, stream, compression="zstd")
    _keep(location, deleted)
    bounds = pc.min_max(paths).as_py()
    return DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path=location,
        file_format=FileFormat.PARQUET,
        partition=partition,
        record_count=len(content),
        file_size_in_bytes=len(output),
        column_sizes={},
        value_counts={},
        null_value_counts={},
        nan_value_counts={},
        lower_bounds={PATH_ID: to_bytes(StringType(), bounds["min"])},
        upper_bounds={PATH_ID: to_bytes(StringType(), bounds["max"])},
        key_metadata=None,
        split_offsets=None,
        equality_ids=None,
        sort_order_id=None,
        spec_id=table.spec().spec_id,
    )
