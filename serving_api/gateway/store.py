"""What the gateway remembers over a restart: answers by idempotency key, and what tenants have used of their quotas."""

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from freshdata.errors import ServiceError

SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    scope BLOB PRIMARY KEY, request BLOB NOT NULL, status INTEGER NOT NULL, answer BLOB NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_expires ON answers (expires);
CREATE TABLE IF NOT EXISTS usage (tenant TEXT PRIMARY KEY, day TEXT NOT NULL, events INTEGER NOT NULL);
"""


class Store:
    """A SQLite file. What is written survives the process; after a crash of the machine the last second may be missing.

    Raises:
        ServiceError: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=2.0, isolation_level=None)
            self._database.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; {SCHEMA}")
        except (OSError, sqlite3.Error) as error:
            raise ServiceError(
                "gateway",
                f"{path} cannot be used: {error}.",
                remedy="Make it writable, or move it away: in a new one keys and the day's quotas begin anew.",
            ) from error

    def answer(self, scope: bytes, now: float) -> tuple[bytes, int, bytes] | None:
        """What was answered under a scope: the request's digest, the status and the answer."""
        query = "SELECT request, status, answer FROM answers WHERE scope = ? AND expires > ?"
        row = self._database.execute(query, (scope, now)).fetchone()
        return (row[0], row[1], row[2]) if row else None

    def remember(self, scopes: Sequence[bytes], request: bytes, status: int, answer: bytes, expires: float) -> None:
        """Keep an answer under each of its scopes."""
        rows = [(scope, request, status, answer, expires) for scope in scopes]
        self._database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", rows)

    def forget(self, now: float) -> None:
        """Remove the answers whose time is over."""
        self._database.execute("DELETE FROM answers WHERE expires <= ?", (now,))

    def usage(self) -> dict[str, tuple[str, int]]:
        """Tenant to a day and the events written on it."""
        rows = self._database.execute("SELECT tenant, day, events FROM usage")
        return {tenant: (day, events) for tenant, day, events in rows}

    def save_usage(self, usage: Mapping[str, tuple[str, int]]) -> None:
        """Keep what tenants have used."""
        rows = [(tenant, day, events) for tenant, (day, events) in usage.items()]
        with self._database:  # One that fails is undone: left open, it would keep what is remembered after it.
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR REPLACE INTO usage VALUES (?, ?, ?)", rows)

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def digest(*parts: str | bytes) -> bytes:
    """A digest of parts that may be of any length."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogateescape") if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.digest()
