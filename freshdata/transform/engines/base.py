"""What is the same on every engine: how tables are made, and that a replaced part is one PyIceberg commit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from itertools import groupby
from typing import Any

import pyarrow as pa
from pyiceberg.expressions import (
    AlwaysTrue,
    And,
    BooleanExpression,
    EqualTo,
    GreaterThanOrEqual,
    LessThanOrEqual,
    Or,
)
from pyiceberg.table import Table
from pyiceberg.table.update.schema import UpdateSchema
from pyiceberg.transforms import IdentityTransform, Transform
from sqlglot import exp
from sqlmesh.core.engine_adapter.base import EngineAdapter  # noqa: TID253 - this module is imported lazily.
from sqlmesh.core.schema_diff import (  # noqa: TID253 - as above.
    TableAlterAddColumnOperation,
    TableAlterDropColumnOperation,
    TableAlterOperation,
)

from freshdata.errors import TransformError
from freshdata.lake.catalog import ensure_table, load_table
from freshdata.lake.duck import column_schema
from freshdata.lake.publication import iceberg_schema
from freshdata.lake.rest_catalog import CatalogFace
from freshdata.transform.retry import lost_commit, retry

# PyIceberg warns when the days held no row before, which is how every day begins.
NOTHING_DELETED = "Delete operation did not match any records"


class LakeAdapter(EngineAdapter):  # type: ignore[misc]
    """A SQLMesh adapter whose tables in the catalog ``lake`` are Iceberg tables.

    An engine adds how it stages new rows, and how it replaces a part of a table.

    Attributes:
        ERRORS: What the engine raises when a statement fails.
    """

    SUPPORTS_REPLACE_TABLE = False
    # Transactions stay off: each write here is one statement or one PyIceberg commit, so it is atomic anyway.
    SUPPORTS_TRANSACTIONS = False
    SUPPORTED_DROP_CASCADE_OBJECT_KINDS = ("SCHEMA",)
    ERRORS: tuple[type[Exception], ...] = ()

    @property
    def face(self) -> CatalogFace:
        """The REST face of the catalog that the tables live in."""
        face: CatalogFace = self._extra_config["face"]
        return face

    def stage(self, table: Table, after: int | None, until: int | None) -> str:
        """Make the rows that a table gained readable, and only them.

        Args:
            table: The table, refreshed.
            after: Snapshot after which rows are new; None, or one that is no ancestor, means all rows.
            until: The last snapshot; None means the current one.

        Returns:
            The relation to read them from; :meth:`unstage` removes it.
        """
        raise NotImplementedError

    def unstage(self, relation: str) -> None:
        """Remove what :meth:`stage` made."""
        raise NotImplementedError

    def append(self, table: Table, query: exp.Query) -> None:
        """Write a query's rows into a table, beside those that it has."""
        raise NotImplementedError

    def merge(self, target_table: Any, *args: Any, **kwargs: Any) -> None:
        """Merge natively, not as some stock adapters do; as a whole again on a commit conflict.

        Raises:
            OvertakenError: another run has moved the table's cursor, so that the rows to merge are not the right ones.
        """
        name = exp.to_table(target_table)
        identifier = f"{name.db}.{name.name}"

        def attempt() -> None:
            self.face.stamped(load_table(self.face.catalog, identifier))
            EngineAdapter.merge(self, target_table, *args, **kwargs)

        retry(attempt, identifier, self._lost)

    def _lost(self, error: Exception) -> bool:
        """Whether an error of the engine means that another writer committed first."""
        return lost_commit(error)

    def _replace(self, identifier: str, query: exp.Query, within: BooleanExpression) -> None:
        """Replace the rows of a part of a table by a query's, in one commit that is stamped."""
        raise NotImplementedError

    def _create_table(
        self,
        table_name_or_schema: Any,
        expression: exp.Query | None,
        exists: bool = True,  # noqa: ARG002, FBT001, FBT002 - SQLMesh's signature.
        replace: bool = False,  # noqa: ARG002, FBT001, FBT002 - SQLMesh's signature.
        target_columns_to_types: dict[str, exp.DataType] | None = None,
        *_: Any,
        **kwargs: Any,
    ) -> None:
        schema = table_name_or_schema
        name = exp.to_table(schema.this if isinstance(schema, exp.Schema) else schema)
        columns: dict[str, Transform[Any, Any]] = {
            _plain_column(part): IdentityTransform() for part in kwargs.get("partitioned_by") or ()
        }
        identifier = f"{name.db}.{name.name}"
        ensure_table(
            self.face.catalog, identifier, self._shape(expression, target_columns_to_types), partition_by=columns
        )
        if expression is not None:
            self._replace(identifier, expression, AlwaysTrue())

    def _shape(self, query: exp.Query | None, columns: dict[str, exp.DataType] | None) -> pa.Schema:  # noqa: ARG002
        """The columns of a table to be; their types are DuckDB's on every engine, as models are written in its SQL."""
        if not columns:
            raise TransformError(
                "of this project", "has columns of unknown types.", remedy="Cast them: `column::TYPE AS column`."
            )
        return column_schema({name: kind.sql("duckdb") for name, kind in columns.items()})

    def _insert_overwrite_by_condition(
        self,
        table_name: Any,
        source_queries: list[Any],
        target_columns_to_types: dict[str, exp.DataType] | None = None,
        where: exp.Condition | None = None,
        *_: Any,
        **__: Any,
    ) -> None:
        name = exp.to_table(table_name)
        columns = target_columns_to_types or self.columns(table_name)
        (source,) = source_queries  # Only data frames come in several parts.
        with source as query:
            ordered = self._order_projections_and_filter(query, columns, where=where)
            self._replace(f"{name.db}.{name.name}", ordered, _iceberg_filter(where))

    def alter_table(self, alter_expressions: list[TableAlterOperation], table_format: str | None = None) -> None:  # noqa: ARG002 - SQLMesh's signature.
        """Change a table's columns in one commit; a column whose type cannot be widened is dropped and added anew."""
        for name, operations in groupby(alter_expressions, key=lambda operation: operation.target_table):
            self._change_columns(name, partial(self._alter_columns, list(operations)))

    def _change_columns(self, table: Any, alter: Callable[[UpdateSchema], None]) -> None:
        """Change columns in one commit; again when another one, of maintenance say, comes between."""
        name = exp.to_table(table)
        identifier = f"{name.db}.{name.name}"

        def commit() -> None:
            with load_table(self.face.catalog, identifier).update_schema() as change:
                alter(change)

        retry(commit, identifier)

    def _alter_columns(self, operations: list[TableAlterOperation], change: UpdateSchema) -> None:
        for operation in operations:
            self._alter_column(change, operation)

    def _alter_column(self, change: UpdateSchema, operation: Any) -> None:
        column = operation.column.name
        if not isinstance(operation, TableAlterAddColumnOperation):
            change.delete_column(column)
        if not isinstance(operation, TableAlterDropColumnOperation):
            (field,) = iceberg_schema(self._shape(None, {column: operation.column_type})).fields
            change.add_column(column, field.field_type)

    def _create_table_comment(self, table_name: Any, table_comment: str, table_kind: str = "TABLE") -> None:  # noqa: ARG002
        name = exp.to_table(table_name)
        identifier = f"{name.db}.{name.name}"

        def commit() -> None:
            with load_table(self.face.catalog, identifier).transaction() as change:
                change.set_properties({"comment": table_comment})  # Where Spark and Trino look for it.

        retry(commit, identifier)

    def _create_column_comments(self, table_name: Any, column_comments: dict[str, str], *_: Any, **__: Any) -> None:
        def comment(change: UpdateSchema) -> None:
            for column, text in column_comments.items():
                change.update_column(column, doc=text)

        self._change_columns(table_name, comment)


def _plain_column(part: exp.Expression) -> str:
    if not isinstance(part, exp.Column):
        raise TransformError(
            "of this project",
            f"is partitioned by {part.sql('duckdb')}.",
            remedy="Partition by plain columns only: SQLMesh on Spark takes nothing else.",
        )
    return str(part.name)


def _iceberg_filter(where: exp.Expression | None) -> BooleanExpression:
    """The filter that says the same as a condition of the materializations: days or hours between literals, or all.

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
        # Iceberg's times have a T between day and hour.
        low, high = (where.args[side].find(exp.Literal).name.replace(" ", "T") for side in ("low", "high"))
        return And(GreaterThanOrEqual(where.this.name, low), LessThanOrEqual(where.this.name, high))  # type: ignore[call-arg]
    raise NotImplementedError(f"overwrite where {where.sql('duckdb')}")
