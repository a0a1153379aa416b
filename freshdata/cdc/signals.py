"""Debezium's signal table: by its rows, in the database itself, a source's tables are read whole again."""

import json
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from freshdata.cdc.connector import Connect, pattern
from freshdata.cdc.source import Source, connect

if TYPE_CHECKING:
    import psycopg2.extensions


def ensure_signal_table(connection: "psycopg2.extensions.connection", source: Source) -> None:
    """Create a source's signal table unless it is there."""
    from psycopg2 import sql

    schema, name = source.signal_table
    table = "CREATE TABLE IF NOT EXISTS {} (id varchar(42) PRIMARY KEY, type varchar(32) NOT NULL, data varchar(65536))"
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        cursor.execute(sql.SQL(table).format(sql.Identifier(schema, name)))


def ask_snapshot(connection: "psycopg2.extensions.connection", source: Source, tables: Sequence[str]) -> None:
    """Have tables read whole, in pieces beside the changes, which go on: Debezium's incremental snapshot.

    Args:
        connection: A connection to the source's database.
        source: The source.
        tables: Captured tables, ``schema.table``.
    """
    from psycopg2 import sql

    data = {"type": "incremental", "data-collections": [pattern(table) for table in tables]}
    insert = sql.SQL("INSERT INTO {} VALUES (%s, 'execute-snapshot', %s)").format(sql.Identifier(*source.signal_table))
    with connection.cursor() as cursor:
        cursor.execute(insert, (str(uuid.uuid4()), json.dumps(data)))


def read_whole(api: Connect, source: Source, tables: Sequence[str]) -> None:
    """Have tables read whole, also after one was skipped.

    Debezium keeps the session that broke, by which it would skip any table again, and may stand still before the tables
    that were to follow: it is started again first, and goes on with those.

    Args:
        api: Kafka Connect.
        source: The source.
        tables: Captured tables, ``schema.table``; those that it goes on with are not asked for again.

    Raises:
        CaptureError: the database does not answer.
        ServiceError: Connect does not answer, or the connector failed.
    """
    with connect(source) as connection:
        if api.skipped(source.name):
            api.stop(source.name)
            api.resume(source.name)
            api.wait_running(source.name)
            unread = api.unread(source.name)
            tables = [table for table in tables if table not in unread]
        if tables:
            ask_snapshot(connection, source, tables)
