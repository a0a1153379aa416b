"""SQLMesh over the lake with DuckDB: the connection, the adapter, and the project's configuration.

The adapter is the only engine-specific code of the transformations. DuckDB computes; merges are committed by DuckDB
through the catalog's REST face, replaced days by PyIceberg as whole files (DuckDB can only delete row by row, which
would leave delete files).
"""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable
from functools import reduce
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import Field
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, EqualTo, Or
from pyiceberg.expressions.parser import parse
from pyiceberg.table.update.schema import UpdateSchema
from pyiceberg.transforms import IdentityTransform, Transform
from sqlglot import exp
from sqlmesh.core.config.connection import BaseDuckDBConnectionConfig  # noqa: TID253 - this module is imported lazily.
from sqlmesh.core.engine_adapter.base import EngineAdapter  # noqa: TID253 - as above.
from sqlmesh.core.engine_adapter.duckdb import DuckDBEngineAdapter  # noqa: TID253 - as above.
from sqlmesh.core.engine_adapter.shared import DataObject, DataObjectType  # noqa: TID253 - as above.
from sqlmesh.core.schema_diff import (  # noqa: TID253 - as above.
    TableAlterAddColumnOperation,
    TableAlterDropColumnOperation,
    TableAlterOperation,
)

from freshdata.errors import TransformError
from freshdata.lake.catalog import CATALOG_NAME, ensure_table, load_table
from freshdata.lake.duck import attach_lake, catalog_face
from freshdata.lake.publication import iceberg_schema
from freshdata.lake.rest_catalog import CatalogFace
from freshdata.settings import Settings
from freshdata.transform.keyed import KeyIndex, Merging, merge_rows

if TYPE_CHECKING:
    import duckdb

ATTEMPTS = 8
FIRST_DELAY_SECONDS = 0.05


class LakeEngineAdapter(DuckDBEngineAdapter):  # type: ignore[misc]
    """DuckDB whose tables in the catalog ``lake`` are Iceberg tables."""

    SUPPORTS_REPLACE_TABLE = False
    # Transactions stay off: SQLMesh would wrap DDL in them, and the extension leaves behind a table that is created and
    # dropped in one transaction. Each write here is one statement or one PyIceberg commit, so it is atomic anyway.
    SUPPORTS_TRANSACTIONS = False
    SUPPORTED_DROP_CASCADE_OBJECT_KINDS = ("SCHEMA",)

    @property
    def face(self) -> CatalogFace:
        """The REST face of the catalog that the tables live in."""
        face: CatalogFace = self._extra_config["face"]
        return face

    def stage(self, name: str, rows: pa.RecordBatchReader) -> None:
        """Put rows into a temporary table of this connection, batch by batch; it spills to disk when large."""
        cursor: duckdb.DuckDBPyConnection = self.cursor
        cursor.register("_incoming", rows)
        try:
            cursor.execute(f"CREATE OR REPLACE TEMP TABLE {_quoted(name)} AS FROM _incoming")
        finally:
            cursor.unregister("_incoming")

    def unstage(self, name: str) -> None:
        """Drop what :meth:`stage` made."""
        self.cursor.execute(f"DROP TABLE IF EXISTS temp.main.{_quoted(name)}")

    def fetch_arrow(self, query: str | exp.Expression) -> pa.Table:
        """Run a query and return its rows."""
        self.execute(query)
        return self.cursor.to_arrow_table()

    def merge(self, *args: Any, **kwargs: Any) -> None:
        """Merge natively; the stock adapter emulates it without conditions. Retried as a whole on a commit conflict."""
        retry_conflicts(lambda: EngineAdapter.merge(self, *args, **kwargs))

    def merge_rows(self, name: str, query: exp.Query, merging: Merging) -> pa.Table | None:
        """Merge a query's rows without reading the rows that are there; None when only a MERGE will do."""
        target = exp.to_table(name)
        identifier = f"{target.db}.{target.name}"
        rows = self.fetch_arrow(query)
        index = KeyIndex(self._extra_config["keys"], self.cursor)
        written: list[pa.Table | None] = []

        def commit() -> None:
            table = load_table(self.face.catalog, identifier)
            written.append(merge_rows(table, rows, merging, index, self.face.stamped(identifier)) if rows else rows)

        retry_conflicts(commit)
        return written[-1]

    def _merge(self, target_table: Any, query: exp.Query, on: exp.Expression, whens: exp.Whens) -> None:
        whens = whens.copy()
        for when in whens.expressions:
            if isinstance(then := when.args.get("then"), exp.Update):
                for assignment in then.expressions:
                    assignment.this.set("table", None)  # DuckDB writes SET column = ..., not SET target.column = ...
        super()._merge(target_table, query, on, whens)

    def _create_table(  # noqa: PLR0917 - SQLMesh's signature.
        self,
        table_name_or_schema: Any,
        expression: exp.Query | None,
        exists: bool = True,  # noqa: FBT001, FBT002 - SQLMesh's signature.
        replace: bool = False,  # noqa: FBT001, FBT002 - SQLMesh's signature.
        target_columns_to_types: dict[str, exp.DataType] | None = None,
        table_description: str | None = None,
        column_descriptions: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        schema = table_name_or_schema
        name = exp.to_table(schema.this if isinstance(schema, exp.Schema) else schema)
        if name.catalog != CATALOG_NAME:
            kwargs.pop("partitioned_by", None)
            EngineAdapter._create_table(  # noqa: SLF001 - the stock one, past the DuckDB adapter's.
                self,
                schema,
                expression,
                exists,
                replace,
                target_columns_to_types,
                table_description,
                column_descriptions,
                **kwargs,
            )
            return
        typed = {
            column: exp.cast(exp.null(), kind).as_(column, quoted=True)
            for column, kind in (target_columns_to_types or {}).items()
        }
        shape = exp.select(*typed.values()) if typed else expression
        arrow = self.fetch_arrow(exp.select("*").from_(shape.subquery("shape")).limit(0)).schema  # type: ignore[union-attr]
        columns: dict[str, Transform[Any, Any]] = {
            _plain_column(part): IdentityTransform() for part in kwargs.get("partitioned_by") or ()
        }
        ensure_table(self.face.catalog, f"{name.db}.{name.name}", arrow, partition_by=columns)
        if expression is not None:
            self._replace(name, expression, AlwaysTrue())

    def _insert_overwrite_by_condition(
        self,
        table_name: Any,
        source_queries: list[Any],
        target_columns_to_types: dict[str, exp.DataType] | None = None,
        where: exp.Condition | None = None,
        *_: Any,
        **__: Any,
    ) -> None:
        columns = target_columns_to_types or self.columns(table_name)
        (source,) = source_queries  # Only data frames come in several parts.
        with source as query:
            ordered = self._order_projections_and_filter(query, columns, where=where)
            self._replace(exp.to_table(table_name), ordered, _iceberg_filter(where))

    def _replace(self, name: exp.Table, query: exp.Query, within: BooleanExpression) -> None:
        identifier = f"{name.db}.{name.name}"
        rows = self.fetch_arrow(query)

        def commit() -> None:
            table = load_table(self.face.catalog, identifier)
            properties = self.face.stamped(identifier)
            shape = (
                table.schema().as_arrow()
            )  # A column that a model gained is its table's last, wherever the model has it.
            fitting = rows.select(shape.names).cast(shape)
            with warnings.catch_warnings():
                # PyIceberg warns when the days held no row before, which is how every day begins.
                warnings.filterwarnings("ignore", "Delete operation did not match any records")
                table.overwrite(fitting, overwrite_filter=within, snapshot_properties=properties)

        retry_conflicts(commit)

    def alter_table(self, alter_expressions: list[TableAlterOperation], table_format: str | None = None) -> None:  # noqa: ARG002 - SQLMesh's signature.
        """Change a table's columns in one commit; a column whose type cannot be widened is dropped and added anew."""
        for name, operations in groupby(alter_expressions, key=lambda operation: operation.target_table):
            if name.catalog != CATALOG_NAME:
                super().alter_table(list(operations))
                continue
            with load_table(self.face.catalog, f"{name.db}.{name.name}").update_schema() as change:
                for operation in operations:
                    self._alter_column(change, operation)

    def _alter_column(self, change: UpdateSchema, operation: Any) -> None:
        column = operation.column.name
        if not isinstance(operation, TableAlterAddColumnOperation):
            change.delete_column(column)
        if not isinstance(operation, TableAlterDropColumnOperation):
            typed = exp.cast(exp.null(), operation.column_type).as_(column, quoted=True)
            (field,) = iceberg_schema(self.fetch_arrow(exp.select(typed).limit(0)).schema).fields
            change.add_column(column, field.field_type)

    def _create_table_comment(self, table_name: Any, table_comment: str, table_kind: str = "TABLE") -> None:
        name = exp.to_table(table_name)
        if name.catalog != CATALOG_NAME:
            super()._create_table_comment(table_name, table_comment, table_kind)
            return
        with load_table(self.face.catalog, f"{name.db}.{name.name}").transaction() as change:
            change.set_properties({"comment": table_comment})  # Where Spark and Trino look for it.

    def _create_column_comments(
        self, table_name: Any, column_comments: dict[str, str], *args: Any, **kwargs: Any
    ) -> None:
        name = exp.to_table(table_name)
        if name.catalog != CATALOG_NAME:
            super()._create_column_comments(table_name, column_comments, *args, **kwargs)
            return
        with load_table(self.face.catalog, f"{name.db}.{name.name}").update_schema() as change:
            for column, comment in column_comments.items():
                change.update_column(column, doc=comment)

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


class LakeConnectionConfig(BaseDuckDBConnectionConfig):  # type: ignore[misc]
    """Connects SQLMesh to the instance's lake.

    Attributes:
        settings: The instance.
    """

    type_: Literal["freshdata_lake"] = Field(alias="type", default="freshdata_lake")
    DIALECT = "duckdb"
    DISPLAY_NAME = "FreshData lake"
    DISPLAY_ORDER = 100
    settings: Settings

    @property
    def _engine_adapter(self) -> type[EngineAdapter]:
        return LakeEngineAdapter

    @property
    def _cursor_init(self) -> Callable[[duckdb.DuckDBPyConnection], None]:
        def attach(cursor: duckdb.DuckDBPyConnection) -> None:
            attach_lake(cursor, self.settings)
            # Development environments keep their views here; Iceberg catalogs of the local kind hold none.
            cursor.execute(f"ATTACH IF NOT EXISTS '{self.settings.home}/sqlmesh/dev.duckdb' AS dev")
            cursor.execute("USE dev")

        return attach

    @property
    def _extra_engine_config(self) -> dict[str, Any]:
        return {"face": catalog_face(self.settings), "keys": self.settings.home / "keys"}

    def get_catalog(self) -> str:
        """The catalog that models without one belong to."""
        return CATALOG_NAME


def retry_conflicts(write: Callable[[], None]) -> None:
    """Run a write again when another writer committed to its table first.

    Raises:
        TransformError: it lost every time.
    """
    import duckdb

    failure: Exception | None = None
    for attempt in range(ATTEMPTS):
        try:
            write()
        except (duckdb.TransactionException, CommitFailedException) as error:
            failure = error
            time.sleep(FIRST_DELAY_SECONDS * 2**attempt * (0.5 + random.random()))  # noqa: S311 - jitter.
        else:
            return
    raise TransformError(
        "of this run",
        f"another writer won {ATTEMPTS} times in a row: {failure}.",
        remedy="Run it again; if it persists, find what else writes to its table.",
    ) from failure


def _plain_column(part: exp.Expression) -> str:
    if not isinstance(part, exp.Column):
        raise TransformError(
            "of this project",
            f"is partitioned by {part.sql('duckdb')}.",
            remedy="Partition by plain columns only: SQLMesh on Spark takes nothing else.",
        )
    return str(part.name)


def _iceberg_filter(where: exp.Expression | None) -> BooleanExpression:
    """The filter that says the same as a condition of the materializations: days between literals, or everything.

    And one tenant's rows, if need be.
    """
    where = where.unnest() if where is not None else None
    if where is None or (isinstance(where, exp.Boolean) and where.this):
        return AlwaysTrue()
    if isinstance(where, exp.Or):
        return reduce(Or, (_iceberg_filter(part) for part in where.flatten()))
    if isinstance(where, exp.And):
        return reduce(And, (_iceberg_filter(part) for part in where.flatten()))
    if isinstance(where, exp.EQ):
        return EqualTo(where.this.name, where.expression.name)  # type: ignore[call-arg]  # Its types are pydantic's.
    if isinstance(where, exp.Between):
        low, high = (where.args[side].find(exp.Literal).name for side in ("low", "high"))
        return parse(f"{where.this.name} >= '{low}' and {where.this.name} <= '{high}'")
    raise NotImplementedError(f"overwrite where {where.sql('duckdb')}")


def _quoted(name: str) -> str:
    return str(exp.to_identifier(name, quoted=True).sql("duckdb"))
