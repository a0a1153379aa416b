"""Write rows as a table's data files: one sorted Parquet file a partition, encoded for what its columns hold."""

import uuid
from collections.abc import Iterable
from itertools import chain, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    schema_to_pyarrow,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionFieldValue, PartitionKey
from pyiceberg.table import Table
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.sorting import SortDirection
from pyiceberg.typedef import Record
from pyiceberg.utils.concurrent import ExecutorFactory

Integers = npt.NDArray[np.int64]

SAMPLE_ROWS = 16_384
# Values that mostly differ fill a dictionary only to be written plainly after it: that doubled the time of a file.
DICTIONARY_SHARE = 0.5
# Readers skip whole row groups, and share them out among their threads.
ROW_GROUP_ROWS = 131_072


def write_data_files(table: Table, rows: pa.Table, *, only: npt.NDArray[np.bool_] | None = None) -> list[DataFile]:
    """Write rows as the table's data files, without committing them.

    PyIceberg's own writer filters all rows once for each partition, keeps their order, and tries a dictionary on every
    column; this one sorts once.

    Args:
        table: The table; the files follow its partition spec, its sort order and its compression.
        rows: Rows with the table's columns, by name, in any order.
        only: Which of the rows to write; None writes all.

    Returns:
        The files, one for each partition that the rows touch.
    """
    if rows.num_rows == 0 or (only is not None and not only.any()):
        return []
    schema = file_schema(table)
    rows = _encoded(rows.select(schema.names).cast(schema))
    keys = _partition_values(table, rows)
    ranks = [_ranks(column) for column in keys.values()]
    order = _order(table, rows, ranks)
    if only is not None and not only.all():
        order = order[only[order]]
    writer = DataFileWriter(table, rows)

    def write(part: tuple[int, int]) -> DataFile:
        start, end = part
        values = {name: column[order[start]].as_py() for name, column in keys.items()}
        return writer.write([rows.take(pa.array(order[start:end]))], values)

    # In threads, as encoding leaves the interpreter to others.
    return list(ExecutorFactory.get_or_create().map(write, _runs(order, ranks)))


def file_schema(table: Table) -> pa.Schema:
    """The table's columns with their field ids, by which readers find them after a rename."""
    small = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}  # What other writers write.
    schema = schema_to_pyarrow(table.schema(), include_field_ids=True)
    return pa.schema([field.with_type(small.get(field.type, field.type)) for field in schema])


def _encoded(rows: pa.Table) -> pa.Table:
    """The rows in one chunk, and text that repeats as a dictionary: codes are sorted, gathered and written faster."""
    columns = [
        _one_chunk(column.dictionary_encode() if pa.types.is_string(column.type) and _repeats(column) else column)
        for column in rows.columns
    ]
    fields = [field.with_type(column.type) for field, column in zip(rows.schema, columns, strict=True)]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _repeats(column: pa.ChunkedArray) -> bool:
    if pa.types.is_nested(column.type):
        return False
    sample = column.slice(0, SAMPLE_ROWS)
    return bool(pc.count_distinct(sample).as_py() <= DICTIONARY_SHARE * len(sample))


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _partition_values(table: Table, rows: pa.Table) -> dict[str, pa.Array]:
    """Partition field to its value for each row."""
    schema = table.schema()
    values = {}
    for field in table.spec().fields:
        transform = field.transform.pyarrow_transform(schema.find_type(field.source_id))
        column = rows[schema.find_column_name(field.source_id)].chunk(0)
        if pa.types.is_dictionary(column.type):
            values[field.name] = pa.DictionaryArray.from_arrays(column.indices, transform(column.dictionary))
        else:
            values[field.name] = transform(column)
    return values


def _order(table: Table, rows: pa.Table, partitions: list[Integers]) -> Integers:
    """The positions of the rows in the order they are stored: by partition, and in it by the table's sort order."""
    schema = table.schema()
    # Iceberg puts nulls first in an ascending order, and last in a descending one.
    by = [
        _ranks(rows[schema.find_column_name(field.source_id)].chunk(0))
        * (1 if field.direction is SortDirection.ASC else -1)
        for field in table.sort_order().fields
    ]
    return _sorted([*partitions, *by]) if by or partitions else np.arange(rows.num_rows)


def _sorted(keys: list[Integers]) -> Integers:
    """The stable order by some keys, the most significant one first; sorted once where they fit into one number."""
    lowest = [int(key.min()) for key in keys]
    bits = [(int(key.max()) - low).bit_length() for key, low in zip(keys, lowest, strict=True)]
    if sum(bits) >= np.iinfo(np.int64).bits:
        return np.lexsort(keys[::-1])
    packed = np.zeros(len(keys[0]), dtype=np.int64)
    for key, low, width in zip(keys, lowest, bits, strict=True):
        packed = (packed << width) | (key - low)
    return np.argsort(packed, kind="stable")


def _ranks(values: pa.Array) -> Integers:
    """Numbers that are ordered, and equal, as the values are; nulls come first."""
    kind = values.type
    if not values.null_count and (pa.types.is_integer(kind) or (pa.types.is_temporal(kind) and kind.bit_width == 64)):
        numbers: Integers = values.cast(pa.int64()).to_numpy()
        return numbers
    if not pa.types.is_dictionary(kind):
        values = values.dictionary_encode()
    # A null has rank 0. Two codes may stand for one value: a bucket holds many.
    ranks: Integers = np.append(pc.rank(values.dictionary, tiebreaker="dense").to_numpy().astype(np.int64), 0)
    codes: Integers = values.indices.fill_null(len(ranks) - 1).to_numpy()
    return ranks.take(codes)


def _runs(order: Integers, partitions: list[Integers]) -> list[tuple[int, int]]:
    """Where each partition begins and ends in the order."""
    changes = np.zeros(len(order) - 1, dtype=np.bool_)
    for ranks in partitions:
        sorted_ranks = ranks[order]
        changes |= sorted_ranks[1:] != sorted_ranks[:-1]
    bounds = [0, *(np.flatnonzero(changes) + 1).tolist(), len(order)]
    return list(pairwise(bounds))


class DataFileWriter:
    """Writes files for one commit; what they have in common is worked out once.

    Args:
        table: The table; the files follow its partition spec and its compression.
        rows: Rows of the files, from which it is guessed which columns repeat.
    """

    def __init__(self, table: Table, rows: pa.Table) -> None:
        self.table = table
        properties = table.properties
        self.options = {
            "compression": properties.get("write.parquet.compression-codec", "zstd"),
            "use_dictionary": [
                name for name in rows.column_names if pa.types.is_dictionary(rows[name].type) or _repeats(rows[name])
            ],
            # It would tell a reader to make dictionaries of what is text to everyone else.
            "store_schema": False,
        }
        self.statistics = compute_statistics_plan(table.schema(), properties)
        self.columns = parquet_path_to_id_mapping(table.schema())
        self.locations = load_location_provider(table.location(), properties)
        self.commit = uuid.uuid4()

    def write(self, parts: Iterable[pa.Table], values: dict[str, Any]) -> DataFile:
        """Write rows of one partition as one file.

        Args:
            parts: The rows in the table's columns, at least one part; each is a row group of the file, or several.
            values: Partition field to its value.
        """
        spec = self.table.spec()
        key = PartitionKey(
            [PartitionFieldValue(field, values[field.name]) for field in spec.fields], spec, self.table.schema()
        )
        partition = None if spec.is_unpartitioned() else key
        path = self.locations.new_data_location(f"{self.commit}-{uuid.uuid4().hex[:12]}.parquet", partition)
        output = self.table.io.new_output(path)
        rest = iter(parts)
        first = _without_large_dictionaries(next(rest))
        with output.create() as stream, pq.ParquetWriter(stream, first.schema, **self.options) as writer:
            for rows in chain([first], rest):
                writer.write_table(rows, ROW_GROUP_ROWS)
        statistics = data_file_statistics_from_parquet_metadata(writer.writer.metadata, self.statistics, self.columns)
        file = DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=path,
            file_format=FileFormat.PARQUET,
            partition=key.partition if partition else Record(),
            file_size_in_bytes=len(output),
            sort_order_id=None,
            equality_ids=None,
            key_metadata=None,
            **statistics.to_serialized_dict(),
        )
        file.spec_id = spec.spec_id
        return file


def _without_large_dictionaries(rows: pa.Table) -> pa.Table:
    # A dictionary holds the values of all files of a commit, and would be written into each.
    for position, column in enumerate(rows.columns):
        if pa.types.is_dictionary(column.type) and len(column.chunk(0).dictionary) > DICTIONARY_SHARE * rows.num_rows:
            field = rows.schema.field(position).with_type(pa.string())
            rows = rows.set_column(position, field, column.cast(pa.string()))
    return rows
