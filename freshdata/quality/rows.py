"""Rows to validate, wherever they are."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from freshdata.quality.rules import ROWS

# Up to here pandas is as fast; at a million rows DuckDB needs 3 s where pandas needs 20 s.
PANDAS_ROWS = 10_000
# Up to here a copy of them fits into memory beside them.
COPIED_ROWS = 2_000_000
RELATION = "freshdata_rows"
ALONE = "SET enable_external_access = false; SET lock_configuration = true"

# Makes a batch of Great Expectations' of some columns of the rows, in a context of its.
Engine = Callable[[Any, Sequence[str]], Any]
# Runs a query (in DuckDB's SQL) over the relation `rows`; of its answer, at most so many rows.
Ask = Callable[[str, int], pa.Table]


class Rows(Protocol):
    """Rows of a table."""

    @property
    def columns(self) -> Sequence[str]:
        """The names of their columns."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def engines(self) -> Sequence[Engine]:
        """What Great Expectations can validate them with, the best first."""

    @property
    def refusals(self) -> tuple[type[Exception], ...]:
        """What a query that cannot be answered raises."""

    def asking(self) -> AbstractContextManager[Ask]:
        """Open what answers queries, which see the rows and nothing else."""


@dataclass(frozen=True)
class ArrowRows:
    """Rows in memory, validated by pandas when they are few, else by DuckDB.

    Attributes:
        table: The rows.
    """

    table: pa.Table

    @property
    def columns(self) -> Sequence[str]:
        """The names of their columns."""
        return tuple(self.table.column_names)

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.table.num_rows)

    @property
    def engines(self) -> Sequence[Engine]:
        """What Great Expectations can validate them with, the best first."""
        return (self._pandas, self._duckdb) if self.count <= PANDAS_ROWS else (self._duckdb, self._pandas)

    @property
    def refusals(self) -> tuple[type[Exception], ...]:
        """What a query that cannot be answered raises."""
        import duckdb

        return (duckdb.Error,)

    @contextmanager
    def asking(self) -> Iterator[Ask]:
        """Open what answers queries, which see the rows and nothing else."""
        import duckdb

        with duckdb.connect(":memory:") as connection:
            connection.register(ROWS, self.table)
            connection.execute(ALONE)

            def ask(query: str, most: int) -> pa.Table:
                return connection.sql(query).limit(most).to_arrow_table()

            yield ask

    def _pandas(self, context: Any, columns: Sequence[str]) -> Any:
        import pandas as pd  # type: ignore[import-untyped]

        # Nullable integers: by default a null turns a column of integers into floats.
        types: dict[Any, Any] = {
            pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()
        }  # fmt: skip
        asset = context.data_sources.add_pandas("pandas").add_dataframe_asset(ROWS)
        frame = self.table.select(columns).to_pandas(types_mapper=types.get)
        return asset.add_batch_definition_whole_dataframe(ROWS).get_batch({"dataframe": frame})

    def _duckdb(self, context: Any, columns: Sequence[str]) -> Any:
        from freshdata.quality import gx_duckdb

        source = context.data_sources.add_sql("duckdb", connection_string=gx_duckdb.URL)
        # The execution engine's own connection: `get_engine()` would be another in-memory database.
        connection = source.get_execution_engine().engine.raw_connection().driver_connection
        rows = self.table.select(columns)
        if self.count <= COPIED_ROWS:  # Asked some fifty times, they are worth a table of DuckDB's own.
            connection.register("incoming", rows)
            connection.execute(f"CREATE TABLE {RELATION} AS FROM incoming")
            connection.unregister("incoming")
        else:
            connection.register(RELATION, rows)
        connection.execute(ALONE)
        asset = source.add_query_asset(ROWS, query=f"SELECT * FROM {RELATION}")  # noqa: S608 - a constant.
        return asset.add_batch_definition_whole_table(ROWS).get_batch()
