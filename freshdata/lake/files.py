"""Write rows as a table's data files: one sorted Parquet file a partition, encoded for what its columns hold."""

import uuid
from itertools import pairwise
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
from pyiceberg.typedef import Record
from pyiceberg.utils.concurrent import ExecutorFactory

SAMPLE_ROWS = 4096
# Values that mostly differ fill a dictionary only to be written plainly after it: that doubled the time of a file.
DICTIONARY_SHARE = 0.5


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
    rows = rows.select(table.schema().column_names).cast(_file_schema(table)).combine_chunks()
    keys = _partition_values(table, rows)
    order = _order(table, rows, keys)
    if only is not None and not only.all():
        order = order.filter(pa.array(only).take(order))
    writer = _Writer(table, rows)

    def write(part: tuple[int, int]) -> DataFile:
        start, end = part
        first = order[start].as_py()
        values = {name: column[first].as_py() for name, column in keys.items()}
        return writer.write(rows.take(order.slice(start, end - start)), values)

    # In threads, as encoding leaves the interpreter to others.
    return list(ExecutorFactory.get_or_create().map(write, _runs(order, list(keys.values()))))


def _file_schema(table: Table) -> pa.Schema:
    """The table's columns with their field ids, by which readers find them after a rename."""
    small = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}  # What other writers write.
    schema = schema_to_pyarrow(table.schema(), include_field_ids=True)
    return pa.schema([field.with_type(small.get(field.type, field.type)) for field in schema])


def _partition_values(table: Table, rows: pa.Table) -> dict[str, pa.Array]:
    """Partition field to its value for each row."""
    schema = table.schema()
    return {
        field.name: field.transform.pyarrow_transform(schema.find_type(field.source_id))(
            rows[schema.find_column_name(field.source_id)].combine_chunks()
        )
        for field in table.spec().fields
    }


def _order(table: Table, rows: pa.Table, keys: dict[str, pa.Array]) -> pa.Array:
    """The positions of the rows in the order they are stored: by partition, and in it by the table's sort order."""
    schema = table.schema()
    by = {f"partition.{name}": (column, "ascending") for name, column in keys.items()}
    for field in table.sort_order().fields:
        name = schema.find_column_name(field.source_id)
        by[f"column.{name}"] = (rows[name], f"{field.direction.value}ending")
    if not by:
        return pa.array(np.arange(rows.num_rows))
    columns = pa.table({name: column for name, (column, _) in by.items()})
    # Iceberg puts nulls first in an ascending order, and last in a descending one; ours ascend.
    return pc.sort_indices(columns, [(name, way, "at_start") for name, (_, way) in by.items()])


def _runs(order: pa.Array, keys: list[pa.Array]) -> list[tuple[int, int]]:
    """Where each partition begins and ends in the order."""
    changes = np.zeros(len(order) - 1, dtype=np.bool_)
    for key in keys:
        codes = key.dictionary_encode(null_encoding="encode").indices.take(order).to_numpy()
        changes |= codes[1:] != codes[:-1]
    bounds = [0, *(np.flatnonzero(changes) + 1).tolist(), len(order)]
    return list(pairwise(bounds))


class _Writer:
    """Writes the files of one commit; what they have in common is worked out once."""

    def __init__(self, table: Table, rows: pa.Table) -> None:
        self.table = table
        self.schema = rows.schema
        properties = table.properties
        sample = rows.slice(0, SAMPLE_ROWS)
        self.options = {
            "compression": properties.get("write.parquet.compression-codec", "zstd"),
            "use_dictionary": [
                name
                for name in rows.column_names
                if pc.count_distinct(sample[name]).as_py() <= DICTIONARY_SHARE * sample.num_rows
            ],
        }
        self.statistics = compute_statistics_plan(table.schema(), properties)
        self.columns = parquet_path_to_id_mapping(table.schema())
        self.locations = load_location_provider(table.location(), properties)
        self.commit = uuid.uuid4()

    def write(self, rows: pa.Table, values: dict[str, Any]) -> DataFile:
        """Write the rows of one partition, whose fields have these values."""
        spec = self.table.spec()
        key = PartitionKey(
            [PartitionFieldValue(field, values[field.name]) for field in spec.fields], spec, self.table.schema()
        )
        partition = None if spec.is_unpartitioned() else key
        path = self.locations.new_data_location(f"{self.commit}-{uuid.uuid4().hex[:12]}.parquet", partition)
        output = self.table.io.new_output(path)
        with output.create() as stream, pq.ParquetWriter(stream, self.schema, **self.options) as writer:
            writer.write_table(rows)
        statistics = data_file_statistics_from_parquet_metadata(writer.writer.metadata, self.statistics, self.columns)
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=path,
            file_format=FileFormat.PARQUET,
            partition=key.partition if partition else Record(),
            file_size_in_bytes=len(output),
            sort_order_id=None,
            spec_id=spec.spec_id,
            equality_ids=None,
            key_metadata=None,
            **statistics.to_serialized_dict(),
        )
