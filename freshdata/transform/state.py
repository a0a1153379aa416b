"""SQLMesh's state: a DuckDB file that one process at a time can hold, or a PostgreSQL database that many share."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from freshdata.errors import PrerequisiteError, TransformError
from freshdata.settings import Settings

LONGEST_WAIT_SECONDS = 180.0
FIRST_DELAY_SECONDS = 0.05
LONGEST_DELAY_SECONDS = 1.0
STILLBORN_SECONDS = 2.0
# The file beside the state's with the views of plain SQLMesh's development environments.
VIEWS = "dev.duckdb"
# Of PostgreSQL's advisory locks, the one that means: this process creates or alters the state or the models' tables.
LOCK = int.from_bytes(b"freshdat")


def state_connection(settings: Settings) -> Any:
    """SQLMesh's connection to the state of an instance.

    Raises:
        PrerequisiteError: PostgreSQL's driver is not installed.
    """
    from sqlmesh.core.config import DuckDBConnectionConfig, PostgresConnectionConfig

    if settings.state_uri is None:
        return DuckDBConnectionConfig(database=str(settings.home / "sqlmesh" / "state.duckdb"))
    if find_spec("psycopg2") is None:
        raise PrerequisiteError(
            "psycopg2",
            "FRESHDATA_STATE_URI is set, but psycopg2 is not installed.",
            remedy="Install it: `pip install 'freshdata[postgres]'`.",
        )
    url = make_url(settings.state_uri)
    return PostgresConnectionConfig(
        host=url.host,
        port=url.port or 5432,
        user=url.username,
        password=url.password or "",
        database=url.database,
        concurrent_tasks=1,
    )


@contextmanager
def state_to_alter(settings: Settings, *, longest_wait: float = LONGEST_WAIT_SECONDS) -> Iterator[None]:
    """Within the context, no other process sets the state up or deploys models; a file is nobody else's anyway.

    Raises:
        TransformError: the database cannot be reached, or another process kept it for too long.
    """
    if settings.state_uri is None:
        yield
        return
    engine = create_engine(settings.state_uri, isolation_level="AUTOCOMMIT")
    try:
        # It lasts as long as the connection, which ends with the process.
        with _locked(engine, longest_wait):
            yield
    finally:
        engine.dispose()


def _locked(engine: Engine, longest_wait: float) -> Connection:
    try:
        connection = engine.connect()
        connection.execute(text(f"SET lock_timeout = {int(longest_wait * 1000)}"))
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
    except OperationalError as error:
        raise TransformError(
            "of this project",
            f"cannot use SQLMesh's state in PostgreSQL: {' '.join(str(error.orig).split())}.",
            remedy="Check FRESHDATA_STATE_URI, and whether another process has been deploying for long.",
        ) from error
    return connection


@contextmanager
def state_held(settings: Settings, longest_wait: float) -> Iterator[None]:
    """Within the context, no other process uses the state's file: one that comes to it waits.

    Raises:
        TransformError: another process kept it for longer than some seconds.
    """
    if settings.state_uri is not None:
        yield
        return
    import duckdb

    path = settings.home / "sqlmesh" / "state.duckdb"
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline, delay = time.monotonic() + longest_wait, FIRST_DELAY_SECONDS
    while True:
        # Another process may be making it at this very moment.
        _remove_stillborn(path, older_than=STILLBORN_SECONDS)
        try:
            # SQLMesh opens it seconds later, and meanwhile nobody else may.
            held = duckdb.connect(str(path))
            break
        except duckdb.IOException as error:
            # DuckDB's own message names the process that holds the file.
            if time.monotonic() > deadline:
                raise TransformError(
                    "of this instance",
                    f"another process still transforms after {longest_wait:.0f} s: {error}.",
                    remedy="Wait for it to end, or stop it.",
                ) from error
        time.sleep(delay)
        delay = min(delay * 2, LONGEST_DELAY_SECONDS)
    _remove_stillborn(path.with_name(VIEWS))
    with held:
        yield


def _remove_stillborn(path: Path, *, older_than: float = 0.0) -> None:
    """Remove an empty DuckDB file, which DuckDB refuses for ever: a full disk leaves it of one that is being made."""
    with suppress(FileNotFoundError):
        found = path.stat()
        if found.st_size == 0 and time.time() - found.st_mtime >= older_than:
            path.unlink()
