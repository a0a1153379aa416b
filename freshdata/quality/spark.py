"""Rows to validate where they are: in Spark, which sends back counts and a few examples."""

from __future__ import annotations

import functools
import operator
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyiceberg.table import Table

from freshdata.errors import QueryError
from freshdata.intervals import ranges
from freshdata.lake.catalog import CATALOG_NAME
from freshdata.quality.rows import Ask, Engine
from freshdata.quality.rules import ROWS
from freshdata.settings import Settings
from freshdata.transform.manifest import ModelInfo

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class SparkRows:
    """Rows that Spark reads.

    Attributes:
        frame: The rows.
    """

    frame: DataFrame

    @property
    def columns(self) -> Sequence[str]:
        """The names of their columns."""
        return tuple(self.frame.columns)

    @cached_property
    def count(self) -> int:
        """How many there are."""
        return int(self.frame.count())

    @property
    def engines(self) -> Sequence[Engine]:
        """What Great Expectations can validate them with."""
        return (self._spark,)

    @property
    def refusals(self) -> tuple[type[Exception], ...]:
        """What a query that cannot be answered raises."""
        from pyspark.errors import PySparkException
        from sqlglot.errors import SqlglotError

        return (PySparkException, SqlglotError, QueryError)

    @contextmanager
    def asking(self) -> Iterator[Ask]:
        """Open what answers queries, which see the rows and nothing else."""
        self.frame.createOrReplaceTempView(ROWS)
        try:
            yield self._ask
        finally:
            self.frame.sparkSession.catalog.dropTempView(ROWS)

    def _ask(self, query: str, most: int) -> pa.Table:
        return self.frame.sparkSession.sql(in_spark(query)).limit(most).toArrow()

    def _spark(self, context: Any, columns: Sequence[str]) -> Any:
        # They are kept once, for all passes of a validation; Great Expectations would never free them.
        source = context.data_sources.add_spark("spark", persist=False)
        asset = source.add_dataframe_asset(ROWS)
        # Queries are sent to its session, which would be the process's first one and know nothing of these rows.
        source.get_execution_engine().spark = self.frame.sparkSession
        frame = self.frame.select(*columns)
        return asset.add_batch_definition_whole_dataframe(ROWS).get_batch({"dataframe": frame})


def in_spark(query: str) -> str:
    """A query over the relation ``rows`` in Spark's SQL.

    Args:
        query: The query in DuckDB's SQL, that of contracts.

    Raises:
        QueryError: it names another table.
    """
    import sqlglot
    from sqlglot import exp

    tree = sqlglot.parse_one(query, read="duckdb")
    known = {ROWS, *(found.alias for found in tree.find_all(exp.CTE))}
    if others := sorted({table.sql() for table in tree.find_all(exp.Table) if table.sql() not in known}):
        raise QueryError(f"{', '.join(others)} cannot be read: a rule sees the rows.", remedy=f"Select from {ROWS}.")
    return str(tree.sql(dialect="spark"))


@contextmanager
def spark_rows(
    settings: Settings, table: Table, model: ModelInfo, days: Collection[date] | None, columns: Sequence[str]
) -> Iterator[SparkRows]:
    """Rows of a model's table as it is now, kept in Spark's memory and disk meanwhile.

    Args:
        settings: The instance.
        table: The table.
        model: Its model.
        days: The days whose rows are wanted; None for all.
        columns: The columns wanted.

    Raises:
        PrerequisiteError: Java, or Maven while the jars are missing, was not found.
    """
    from pyspark.sql import functions

    from freshdata.transform.engines.spark import open_session

    reader, snapshot = open_session(settings).read, table.current_snapshot()
    if snapshot:  # Another run may commit meanwhile: every pass looks at the same rows.
        reader = reader.option("versionAsOf", snapshot.snapshot_id)
    frame = reader.table(".".join((CATALOG_NAME, *table.name())))
    if days is not None:
        column = functions.col(str(model.partition_column))
        spans = (column.between(*model.period.whole(*pair)) for pair in ranges(days))
        frame = frame.where(functools.reduce(operator.or_, spans, functions.lit(False)))  # noqa: FBT003
    frame = frame.select(*columns).persist()
    try:
        yield SparkRows(frame)
    finally:
        frame.unpersist()
