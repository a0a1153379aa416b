"""Compare Silver and Gold with what their models make of the layer before, read as of the snapshots they have seen."""

from typing import TYPE_CHECKING

from pyiceberg.catalog import Catalog

from freshdata.errors import LakeError
from freshdata.lake.catalog import load_table
from freshdata.lake.cursors import read_cursor
from freshdata.settings import Settings
from freshdata.transform.manifest import ModelInfo, load_manifest
from freshdata.transform.runner import Runner, open_runner
from freshdata.verify.report import Finding

if TYPE_CHECKING:
    import duckdb


def verify_models(settings: Settings, catalog: Catalog) -> list[Finding]:
    """Recompute every model from its upstream tables and compare row by row, in both directions."""
    manifest = load_manifest(settings)
    with open_runner(settings) as runner:
        return [_verify_model(runner, catalog, model) for model in manifest.values()]


def _verify_model(runner: Runner, catalog: Catalog, model: ModelInfo) -> Finding:
    import duckdb

    check = "every row is what the model makes of its upstream tables"
    try:
        table = load_table(catalog, model.name)
    except LakeError as error:
        return Finding(model.name, check, 0, 1, [error.message])
    stored = table.scan().to_arrow()
    cursor = read_cursor(table)
    seen = cursor.upstream if cursor else {}
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("ATTACH ':memory:' AS lake")
        for upstream in model.depends_on:
            _register(connection, catalog, upstream, seen.get(upstream))
        connection.register("stored", stored)
        columns = ", ".join(f'"{name}"' for name in model.columns)
        connection.execute(f"CREATE TEMP TABLE expected AS SELECT {columns} FROM ({runner.render_full(model.name)})")  # noqa: S608
        return Finding.of_query(
            connection,
            model.name,
            check,
            f"(SELECT {columns} FROM stored EXCEPT ALL SELECT {columns} FROM expected) UNION ALL "  # noqa: S608
            f"(SELECT {columns} FROM expected EXCEPT ALL SELECT {columns} FROM stored) ORDER BY ALL",
            stored.num_rows,
        )


def _register(connection: "duckdb.DuckDBPyConnection", catalog: Catalog, name: str, snapshot_id: int | None) -> None:
    namespace, _, table = name.partition(".")
    connection.register(f"{namespace}_{table}", load_table(catalog, name).scan(snapshot_id=snapshot_id).to_arrow())
    connection.execute(f'CREATE SCHEMA IF NOT EXISTS lake."{namespace}"')
    connection.execute(f'CREATE TABLE lake."{namespace}"."{table}" AS FROM "{namespace}_{table}"')
    connection.unregister(f"{namespace}_{table}")
