"""DuckDB over the lake: load the bundled extensions and attach the catalog's REST face."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyiceberg.catalog import Catalog

from freshdata.errors import PrerequisiteError
from freshdata.lake.catalog import CATALOG_NAME, open_catalog
from freshdata.lake.rest_catalog import CatalogFace
from freshdata.settings import Settings

if TYPE_CHECKING:
    import duckdb

EXTENSIONS = ("httpfs", "avro", "iceberg")
# Two such connections (a transformation and a query) beside the workers and Dagster stay within the platform's 3 GiB.
MEMORY_LIMIT = "1GB"
_faces: dict[str, CatalogFace] = {}
_lock = threading.Lock()


def catalog_face(settings: Settings) -> CatalogFace:
    """The REST face of the instance's catalog: one in each process, started at the first call."""
    with _lock:
        if (key := _key(settings)) not in _faces:
            _faces[key] = CatalogFace(open_catalog(settings))
        return _faces[key]


@contextmanager
def catalog_shown(settings: Settings, catalog: Catalog) -> Iterator[CatalogFace]:
    """Within the context, the face of an instance's catalog in this process shows another catalog instead."""
    with CatalogFace(catalog) as face:
        with _lock:
            _faces[_key(settings)] = face
        try:
            yield face
        finally:
            with _lock:
                del _faces[_key(settings)]


def _key(settings: Settings) -> str:
    # A forked process inherits the entries but not the serving threads: the process id keeps it from using them.
    return f"{os.getpid()} {settings.catalog_uri} {settings.home}"


def attach_lake(connection: "duckdb.DuckDBPyConnection", settings: Settings) -> None:
    """Attach the lake to a DuckDB connection as the catalog ``lake``.

    Raises:
        PrerequisiteError: an extension is missing or was built for another DuckDB version.
    """
    for name in EXTENSIONS:
        connection.execute(f"LOAD '{_extension(name)}'")
    spill = settings.home / "tmp"
    for option, value in (("TimeZone", "UTC"), ("memory_limit", MEMORY_LIMIT), ("temp_directory", str(spill))):
        connection.execute(f"SET {option} = ?", [value])
    attach_face(connection, catalog_face(settings), CATALOG_NAME)


def attach_face(connection: "duckdb.DuckDBPyConnection", face: CatalogFace, name: str) -> None:
    """Attach a catalog's face to a connection that has the lake, or loads it, under a name."""
    connection.execute(
        f"ATTACH IF NOT EXISTS '{CATALOG_NAME}' AS {name} "
        f"(TYPE iceberg, ENDPOINT '{face.url}', AUTHORIZATION_TYPE 'none')"
    )


def column_schema(columns: Mapping[str, str]) -> pa.Schema:
    """The columns that come of SQL types, as DuckDB hands them over: all of them may be null.

    Args:
        columns: Column to its type in DuckDB's SQL.
    """
    quoted = {name.replace('"', '""'): kind for name, kind in columns.items()}
    nulls = ", ".join(f'CAST(NULL AS {kind}) AS "{name}"' for name, kind in quoted.items())
    with _empty().cursor() as connection:
        return connection.execute(f"SELECT {nulls}").to_arrow_table().schema


@cache
def _empty() -> "duckdb.DuckDBPyConnection":
    """A database of this process with nothing in it: to make one costs more than most questions."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def _extension(name: str) -> Path:
    import duckdb

    module: Any = import_module(f"duckdb_extension_{name}")
    path = Path(module.__file__).parent / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
    if not path.is_file():
        raise PrerequisiteError(
            "duckdb",
            f"The {name} extension is not built for DuckDB {duckdb.__version__}.",
            remedy="Install the versions named in pyproject.toml: `make setup`.",
        )
    return path
