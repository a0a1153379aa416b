"""The order that a compaction gives a table's rows, so that a selective query reads few files and row groups.

Rows are sorted by columns one after another, or along a Z-order (Morton) curve: the bits of the columns' normalized
ranks are interleaved, so that rows which are near each other in any of the columns are near each other in the file.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table
from pyiceberg.table.sorting import NullOrder, SortDirection

from freshdata.contracts import Contract

if TYPE_CHECKING:
    import duckdb

Codes = npt.NDArray[np.uint64]

CODE_BITS = 64
# As many as a sample of the rows can tell apart.
MOST_RANK_BITS = 14
SAMPLE_ROWS = 1 << MOST_RANK_BITS
CODE_COLUMN = "_zorder"
BATCH_ROWS = 65_536
SORT_MEMORY = "1GB"


@dataclass(frozen=True)
class Key:
    """A column that rows are sorted by.

    Attributes:
        column: Its name.
        ascending: Whether small values come first.
        nulls_first: Whether nulls do.
    """

    column: str
    ascending: bool = True
    nulls_first: bool = True


@dataclass(frozen=True)
class Clustering:
    """How a table's rows are ordered in its files.

    Attributes:
        keys: Columns that rows are sorted by; none leaves them as they are.
        zorder: Columns of the Z-order curve that comes before the keys, or none.
    """

    keys: tuple[Key, ...] = ()
    zorder: tuple[str, ...] = ()


def clustering_of(table: Table, contracts: Mapping[str, Contract]) -> Clustering:
    """The order of a table's rows.

    Args:
        table: The table.
        contracts: The contracts by name. Bronze and the Silver table of a stream's name follow the stream's clustering
            columns, then its event time; any other table its own sort order.
    """
    name, columns = ".".join(table.name()), table.schema().column_names
    streams = (contract for contract in contracts.values() if contract.stream)
    stream = next((stream for stream in streams if name in (stream.table, f"silver.{stream.name}")), None)
    if stream is None:
        return Clustering(tuple(_own_keys(table)))
    rules = stream.rules
    clustering = tuple(column for column in rules.clustering if column in columns)
    time = (rules.event_time_field,) if rules.event_time_field in columns else ()
    return Clustering(
        tuple(Key(column) for column in (*clustering, *time)), clustering if rules.clustering_order == "zorder" else ()
    )


def _own_keys(table: Table) -> Iterator[Key]:
    schema = table.schema()
    for field in table.sort_order().fields:
        if not field.transform.preserves_order:
            return  # Such as a bucket: sorting by its column would be another order.
        column = schema.find_column_name(field.source_id)
        if column is not None:
            yield Key(column, field.direction is SortDirection.ASC, field.null_order is NullOrder.NULLS_FIRST)


class ZOrder:
    """Gives rows their place on the Z-order curve.

    Args:
        columns: The curve's columns, the first one the most significant.
        sample: Some of the rows: what ranks are normalized by.
    """

    def __init__(self, columns: tuple[str, ...], sample: pa.Table) -> None:
        self._bounds = {name: _bounds(sample[name]) for name in columns}
        self._bits = min(MOST_RANK_BITS, CODE_BITS // len(columns))

    @classmethod
    def of(cls, columns: tuple[str, ...], count: int, rows: pa.RecordBatchReader) -> Self:
        """Take the sample from all rows, each so many rows one.

        Args:
            columns: The curve's columns.
            count: Number of the rows, or more.
            rows: The rows, with these columns at least.
        """
        step, seen, taken = max(1, count // SAMPLE_ROWS), 0, [rows.schema.empty_table()]
        for batch in rows:
            places = np.arange(-seen % step, batch.num_rows, step)
            taken.append(pa.Table.from_batches([batch.take(pa.array(places))]))
            seen += batch.num_rows
        return cls(columns, pa.concat_tables(taken))

    def codes(self, rows: pa.RecordBatch) -> pa.Array:
        """The place of each row on the curve."""
        code: Codes = np.zeros(rows.num_rows, dtype=np.uint64)
        ranks = [self._ranks(rows[name], bounds) for name, bounds in self._bounds.items()]
        for bit in reversed(range(self._bits)):
            for rank in ranks:
                code = (code << np.uint64(1)) | ((rank >> np.uint64(bit)) & np.uint64(1))
        return pa.array(code)

    def _ranks(self, values: pa.Array, bounds: pa.Array) -> Codes:
        """The share of the sample below each value, as a number of so many bits; nulls count as the lowest value."""
        encoded = values.dictionary_encode()
        distinct = encoded.dictionary
        order = pc.sort_indices(pa.concat_arrays([distinct.cast(bounds.type), bounds])).to_numpy()
        is_bound = order >= len(distinct)
        below = np.zeros(len(distinct) + 1, dtype=np.uint64)
        below[order[~is_bound]] = np.cumsum(is_bound)[~is_bound]
        scaled = (below << np.uint64(self._bits)) // np.uint64(max(len(bounds), 1))
        highest = np.uint64((1 << self._bits) - 1)
        ranks: Codes = np.minimum(scaled, highest).take(
            encoded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)
        )
        return ranks


def _bounds(column: pa.ChunkedArray) -> pa.Array:
    values = column.drop_null().combine_chunks()
    return values.take(pc.sort_indices(values))


class Sorter:
    """Sorts more rows than fit into memory: with DuckDB, which spills to disk; see :func:`open_sorter`."""

    def __init__(self, connection: "duckdb.DuckDBPyConnection") -> None:
        self._connection = connection

    def sort(
        self, rows: pa.RecordBatchReader, clustering: Clustering, curve: ZOrder | None
    ) -> Iterator[pa.RecordBatch]:
        """The rows in order, batch by batch.

        Args:
            rows: The rows.
            clustering: The order.
            curve: Gives the rows their place on the Z-order curve; None when there is none.
        """
        if curve is not None:
            rows = _with_codes(rows, curve)
        by = [CODE_COLUMN] if curve else []
        by += [
            f"{_quoted(key.column)} {'ASC' if key.ascending else 'DESC'} NULLS {'FIRST' if key.nulls_first else 'LAST'}"
            for key in clustering.keys
        ]
        columns = f"* EXCLUDE ({CODE_COLUMN})" if curve else "*"
        self._connection.register("incoming", rows)
        try:
            query = f"SELECT {columns} FROM incoming ORDER BY {', '.join(by)}"  # noqa: S608 - identifiers are quoted.
            yield from self._connection.execute(query).to_arrow_reader(BATCH_ROWS)
        finally:
            self._connection.unregister("incoming")


@contextmanager
def open_sorter() -> Iterator[Sorter]:
    """A sorter with a memory of :data:`SORT_MEMORY` and a folder of its own for what does not fit."""
    import duckdb

    with tempfile.TemporaryDirectory() as spill, duckdb.connect() as connection:
        options = {"TimeZone": "UTC", "memory_limit": SORT_MEMORY, "temp_directory": spill}
        for option, value in options.items():
            connection.execute(f"SET {option} = ?", [value])
        yield Sorter(connection)


def _with_codes(rows: pa.RecordBatchReader, curve: ZOrder) -> pa.RecordBatchReader:
    schema = rows.schema.append(pa.field(CODE_COLUMN, pa.uint64()))
    batches = (pa.RecordBatch.from_arrays([*batch.columns, curve.codes(batch)], schema=schema) for batch in rows)
    return pa.RecordBatchReader.from_batches(schema, batches)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
