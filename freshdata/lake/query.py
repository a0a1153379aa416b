"""Ask the lake with SQL: every table under its plain name, ``gold.carrier_day``."""

from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow as pa

from freshdata.errors import QueryError
from freshdata.lake.catalog import CATALOG_NAME, list_tables
from freshdata.lake.duck import attach_lake, catalog_face
from freshdata.lake.scratch import NAMESPACE as SCRATCH
from freshdata.serving import serving_views
from freshdata.settings import Settings

if TYPE_CHECKING:
    import duckdb


def connect(settings: Settings, asked: str = "") -> "duckdb.DuckDBPyConnection":
    """A DuckDB connection with each of the lake's tables as a view, ``schema.table``; the lake is the catalog ``lake``.

    So is each serving view, once the tables and columns that it reads are there.

    Args:
        settings: The instance.
        asked: What will be asked: see :func:`freshdata.serving.serving_views`.

    Raises:
        PrerequisiteError: DuckDB's extensions are missing.
        TransformError: a serving view will be asked for, and the models cannot be loaded.
    """
    import duckdb

    connection = duckdb.connect()
    attach_lake(connection, settings)
    tables = list_tables(catalog_face(settings).catalog)
    for schema, table in (map(_quoted, name) for name in tables if len(name) == 2 and name[0] != SCRATCH):
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        connection.execute(f"CREATE VIEW {schema}.{table} AS FROM {CATALOG_NAME}.{schema}.{table}")
    for view, select in serving_views(settings, asked).items():
        schema, name = map(_quoted, view.split("."))
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        with suppress(duckdb.Error):
            connection.execute(f"CREATE VIEW {schema}.{name} AS {select}")
    return connection


def run_query(settings: Settings, sql: str) -> pa.Table:
    """Run one reading statement.

    Args:
        settings: The instance.
        sql: One SELECT (or FROM, DESCRIBE, SHOW, SUMMARIZE, EXPLAIN …) statement in DuckDB's dialect.

    Raises:
        QueryError: the statement is wrong, names an unknown table, or is not a reading one.
        TransformError: it names a serving view, and the models cannot be loaded.
    """
    import duckdb

    with connect(settings, sql) as connection:
        try:
            statements = connection.extract_statements(sql)
            if len(statements) != 1:
                raise QueryError("There must be exactly one statement.", remedy="Run them one by one.")
            if statements[0].type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
                raise QueryError("Only reading statements may run here.", remedy="Write a SELECT.")
            return connection.execute(statements[0]).to_arrow_table()
        except duckdb.Error as error:
            raise QueryError(_one_line(error), remedy=_remedy(settings, connection, error)) from error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _one_line(error: Exception) -> str:
    # Below the first paragraph DuckDB repeats the statement with a caret.
    return " ".join(str(error).split("\n\n")[0].split()).rstrip(".?!") + "."


def _remedy(settings: Settings, connection: "duckdb.DuckDBPyConnection", error: Exception) -> str:
    import duckdb

    if not isinstance(error, duckdb.CatalogException):
        return "Correct the statement (DuckDB's dialect)."
    found = connection.execute("SELECT schema_name || '.' || view_name FROM duckdb_views() WHERE NOT internal")
    tables = sorted(name for (name,) in found.fetchall())
    if not tables:
        return "The lake is empty yet: ingest a stream first."
    missing = sorted(serving_views(settings).keys() - set(tables))
    later = f" When the models have run, there will be {', '.join(missing)}." if missing else ""
    return f"The tables are {', '.join(tables)}.{later}"
