"""A DuckDB dialect that Great Expectations can use.

Great Expectations runs ``with engine.connect() as c: result = c.execute(query)`` and fetches after the block. Leaving
the block rolls back, and in duckdb-engine the cursor is the connection, so the rollback throws the pending result away:
every metric fails with "list index out of range". Here begin, rollback and commit do nothing: DuckDB commits each
statement by itself, and the result outlives the block. For reading only.
"""

from typing import Any

import duckdb_engine
from sqlalchemy.dialects import registry

URL = "duckdb+gx:///:memory:"


class GxDuckDBDialect(duckdb_engine.Dialect):  # type: ignore[misc]
    """DuckDB without transactions."""

    supports_statement_cache = False

    def do_begin(self, dbapi_connection: Any) -> None:
        """Do nothing: each statement commits by itself."""

    def do_rollback(self, dbapi_connection: Any) -> None:
        """Do nothing: a rollback would discard the result that is still to be fetched."""

    def do_commit(self, dbapi_connection: Any) -> None:
        """Do nothing: each statement commits by itself."""


registry.register("duckdb.gx", __name__, GxDuckDBDialect.__name__)
