"""DuckDB in this process: the default engine.

Merges are committed by DuckDB through the catalog's REST face, replaced days by PyIceberg as whole files (DuckDB can
only delete row by row, which would leave delete files).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import chain
from typing import Any, Literal

import duckdb  # noqa: TID253 - as above.
import pyarrow as pa
from pydantic import Field
from pyiceberg.expressions import BooleanExpression
from pyiceberg.table import Table
from sqlglot import exp
from sqlmesh.core.config.connection import BaseDuckDBConnectionConfig  # noqa: TID253 - this module is imported lazily.
from sqlmesh.core.engine_adapter.base import EngineAdapter  # noqa: TID253 - as above.
from sqlmesh.core.engine_adapter.duckdb import DuckDBEngineAdapter  # noqa: TID253 - as above.
from sqlmesh.core.engine_adapter.shared import DataObject, DataObjectType  # noqa: TID253 - as above.
from sqlmesh.core.schema_diff import TableAlterOperation  # noqa: TID253 - as above.

from freshdata.lake.catalog import CATALOG_NAME, load_table
from freshdata.lake.changes import new_rows
from freshdata.lake.duck import attach_lake, catalog_face
from freshdata.lake.transaction import LakeTransaction
from freshdata.settings import Settings
from freshdata.transform.engines.base import NOTHING_DELETED, LakeAdapter
from freshdata.transform.keyed import KeyIndex, Merging, merge_rows
from freshdata.transform.retry import lost_commit, retry
from freshdata.transform.state import VIEWS

NEWS = "news"
ROWS_IN_MEMORY = 250_000


class DuckDBLakeAdapter(LakeAdapter, DuckDBEngineAdapter):  # type: ignore[misc]
    """DuckDB with the lake attached.

    Transactions stay off also because the extension leaves behind a table that is created and dropped in one.
    """

    ERRORS = (duckdb.Error,)

    def stage(self, table: Table, after: int | None, until: int | None) -> str:
        """Have few rows read where they lie in memory; put many into a temporary table, which spills to disk."""
        news = new_rows(table, after, until=until)
        held: list[pa.RecordBatch] = []
        for batch in news:
            held.append(batch)
            if sum(map(len, held)) > ROWS_IN_MEMORY:
                break
        else:
            return self.stage_rows(NEWS, pa.Table.from_batches(held, news.schema))
        incoming = self.stage_rows("incoming", pa.RecordBatchReader.from_batches(news.schema, chain(held, news)))
        try:
            self.cursor.execute(f"CREATE OR REPLACE TEMP TABLE {NEWS} AS FROM {incoming}")
        finally:
            self.unstage(incoming)
        return f"temp.main.{NEWS}"

    def stage_rows(self, name: str, rows: pa.Table | pa.RecordBatchReader) -> str:
        """Give rows a name on this connection.

        Args:
            name: A name that is an identifier.
            rows: The rows.

        Returns:
            The relation to read them from; :meth:`unstage` removes it.
        """
        self.cursor.register(name, rows)
        return f"temp.main.{name}"

    def unstage(self, relation: str) -> None:
        """Forget the relation."""
        self.cursor.unregister(relation.rpartition(".")[2])
        self.cursor.execute(f"DROP TABLE IF EXISTS {relation}")

    def append(self, table: Table, query: exp.Query) -> None:
        """Write a query's rows with PyIceberg; they are in memory at once."""
        rows = self.fetch_arrow(query)
        if rows.num_rows:
            table.append(_fitting(rows, table))

    def fetch_arrow(self, query: exp.Expression) -> pa.Table:
        """Run a query and return its rows."""
        self.execute(query)
        return self.cursor.to_arrow_table()

    def merge_rows(self, name: str, query: exp.Query, merging: Merging) -> pa.Table | None:
        """Merge a query's rows without reading the rows that are there; None when only a MERGE will do.

        Raises:
            OvertakenError: another run has moved the table's cursor; see :meth:`merge`.
        """
        target = exp.to_table(name)
        identifier = f"{target.db}.{target.name}"
        rows = self.fetch_arrow(query)
        index = KeyIndex(self._extra_config["keys"], self.cursor)

        def commit() -> pa.Table | None:
            table = load_table(self.face.catalog, identifier)
            return merge_rows(table, rows, merging, index, self.face.stamped(table)) if rows else rows

        return retry(commit, identifier)

    def _lost(self, error: Exception) -> bool:
        return lost(error)

    def _merge(self, target_table: Any, query: exp.Query, on: exp.Expression, whens: exp.Whens) -> None:
        whens = whens.copy()
        for when in whens.expressions:
            if isinstance(then := when.args.get("then"), exp.Update):
                for assignment in then.expressions:
                    assignment.this.set("table", None)  # DuckDB writes SET column = ..., not SET target.column = ...
        super()._merge(target_table, query, on, whens)

    def _replace(self, identifier: str, query: exp.Query, within: BooleanExpression) -> None:
        rows = self.fetch_arrow(query)

        def commit() -> None:
            table = load_table(self.face.catalog, identifier)
            with warnings.catch_warnings(), LakeTransaction(table) as change:
                warnings.filterwarnings("ignore", NOTHING_DELETED)
                change.overwrite(_fitting(rows, table), within, snapshot_properties=self.face.stamped(table))

        retry(commit, identifier)

    def _shape(self, query: exp.Query | None, columns: dict[str, exp.DataType] | None) -> pa.Schema:
        if columns or query is None:
            return super()._shape(query, columns)
        return self.fetch_arrow(exp.select("*").from_(query.subquery("shape")).limit(0)).schema

    def _create_table(self, table_name_or_schema: Any, *args: Any, **kwargs: Any) -> None:
        if _in_lake(table_name_or_schema):
            super()._create_table(table_name_or_schema, *args, **kwargs)
        else:
            kwargs.pop("partitioned_by", None)
            # The stock one, past the DuckDB adapter's.
            EngineAdapter._create_table(self, table_name_or_schema, *args, **kwargs)  # noqa: SLF001

    def alter_table(self, alter_expressions: list[TableAlterOperation], table_format: str | None = None) -> None:
        """Change tables' columns; see the base class."""
        lake = [operation for operation in alter_expressions if _in_lake(operation.target_table)]
        super().alter_table(lake, table_format)
        if others := [operation for operation in alter_expressions if operation not in lake]:
            DuckDBEngineAdapter.alter_table(self, others)

    def _create_table_comment(self, table_name: Any, *args: Any, **kwargs: Any) -> None:
        # Past this package's: views of development environments are DuckDB's own.
        base = LakeAdapter if _in_lake(table_name) else EngineAdapter
        base._create_table_comment(self, table_name, *args, **kwargs)  # noqa: SLF001 - as above.

    def _create_column_comments(self, table_name: Any, *args: Any, **kwargs: Any) -> None:
        base = LakeAdapter if _in_lake(table_name) else EngineAdapter
        base._create_column_comments(self, table_name, *args, **kwargs)  # noqa: SLF001 - as above.

    def _get_data_objects(self, schema_name: Any, object_names: set[str] | None = None) -> list[DataObject]:
        # The stock one says USE CATALOG, which needs a default schema that an Iceberg catalog does not have.
        schema = exp.to_table(schema_name) if isinstance(schema_name, str) else schema_name
        catalog, db = (schema.catalog or schema.db, schema.db if schema.catalog else schema.name)
        query = (
            exp.select("table_name", "table_type")
            .from_("system.information_schema.tables")
            .where(
                exp.column("table_catalog").eq(catalog or self.get_current_catalog()),
                exp.column("table_schema").eq(db),
            )
        )
        if object_names:
            query = query.where(exp.column("table_name").isin(*object_names))
        kinds = {
            "BASE TABLE": DataObjectType.TABLE,
            "VIEW": DataObjectType.VIEW,
            "LOCAL TEMPORARY": DataObjectType.TABLE,
        }
        return [
            DataObject(catalog=catalog, schema=db, name=name, type=kinds[kind]) for name, kind in self.fetchall(query)
        ]


class DuckDBLakeConfig(BaseDuckDBConnectionConfig):  # type: ignore[misc]
    """Connects SQLMesh to the instance's lake with DuckDB.

    Attributes:
        settings: The instance.
    """

    type_: Literal["freshdata_duckdb"] = Field(alias="type", default="freshdata_duckdb")
    DIALECT = "duckdb"
    DISPLAY_NAME = "FreshData lake"
    DISPLAY_ORDER = 100
    settings: Settings

    @property
    def _engine_adapter(self) -> type[EngineAdapter]:
        return DuckDBLakeAdapter

    @property
    def _static_connection_kwargs(self) -> dict[str, Any]:
        # Extensions come with their Python packages, whose hashes are locked: to verify their 85 MB anew would cost a
        # tenth of a second each time.
        return {"config": {"allow_unsigned_extensions": "true"}}

    @property
    def _cursor_init(self) -> Callable[[duckdb.DuckDBPyConnection], None]:
        def attach(cursor: duckdb.DuckDBPyConnection) -> None:
            attach_lake(cursor, self.settings)
            # Development environments keep their views here; Iceberg catalogs of the local kind hold none. With a state
            # that several processes share, a file that only one can open would be in the way.
            views = ":memory:" if self.settings.state_uri else f"{self.settings.home}/sqlmesh/{VIEWS}"
            cursor.execute(f"ATTACH IF NOT EXISTS '{views}' AS dev")
            cursor.execute("USE dev")

        return attach

    @property
    def _extra_engine_config(self) -> dict[str, Any]:
        return {"face": catalog_face(self.settings), "keys": self.settings.home / "keys"}

    def get_catalog(self) -> str:
        """The catalog that models without one belong to."""
        return CATALOG_NAME


def connection(settings: Settings) -> DuckDBLakeConfig:
    """SQLMesh's connection to an instance's lake with DuckDB."""
    return DuckDBLakeConfig(settings=settings)


def lost(error: Exception) -> bool:
    """Whether an error means that another writer committed first."""
    return isinstance(error, duckdb.TransactionException) or lost_commit(error)


def _fitting(rows: pa.Table, table: Table) -> pa.Table:
    """Rows with a table's columns; one that a model gained is its table's last, wherever the model has it."""
    shape = table.schema().as_arrow()
    return rows.select(shape.names).cast(shape)


def _in_lake(table: Any) -> bool:
    return bool(exp.to_table(table.this if isinstance(table, exp.Schema) else table).catalog == CATALOG_NAME)
