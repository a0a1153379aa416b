"""A real PostgreSQL, Kafka Connect and Debezium, and what a source's tables and topics hold."""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from confluent_kafka import Consumer, TopicPartition

from freshdata.cdc.connector import Connect
from freshdata.cdc.health import read_health
from freshdata.cdc.source import Source, read_sources
from freshdata.cdc.watch import Restarts
from freshdata.services.connect import connect_program
from freshdata.services.kafka import client_config, end_offsets
from freshdata.services.postgres import postgres_program, running_postgres
from freshdata.services.processes import Supervisor
from freshdata.settings import PROJECT, Settings
from tests.postgres import find_postgres
from tests.streams import wait_for

# A value in SQL as Debezium writes it with the connector's settings; what is not named is the same as in JSON.
ENCODED = {
    "numeric": "{}::text",
    "date": "{} - date '1970-01-01'",
    "time": "(extract(epoch from {}) * 1000000)::bigint",
    "timestamp": "(extract(epoch from {}) * 1000000)::bigint",
    "timestamptz": """to_char({} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""",
    "bytea": "replace(encode({}, 'base64'), E'\\n', '')",
    "json": "{}::text",
    "jsonb": "{}::text",
}


@dataclass(frozen=True)
class Stack:
    """Services that run, and an instance on them with a project of its own.

    Attributes:
        settings: The instance.
        supervisor: Runs ``postgres`` and ``connect``.
    """

    settings: Settings
    supervisor: Supervisor

    @property
    def api(self) -> Connect:
        """Kafka Connect's REST API."""
        return Connect(self.settings)

    def database(self, name: str) -> str:
        """Create a database; returns its address."""
        address = running_postgres(self.settings)
        execute(f"{address}/postgres", f"create database {name}")
        return f"{address}/{name}"

    def kill(self, name: str, meanwhile: Callable[[], Any] = lambda: None) -> None:
        """End a service with ``kill -9``, do something, and wait until its supervisor has another one ready."""
        (state,) = (child for child in self.supervisor.states() if child.name == name)
        os.kill(state.pid, signal.SIGKILL)
        meanwhile()

        def back() -> bool:
            path = self.settings.run_dir / f"{name}.json"
            return json.loads(path.read_text())["pid"] != state.pid

        wait_for(back, f"{name} after its end")

    def watched(self, source: Source) -> None:
        """Do what the watching process does until a source is captured again."""
        restarts = Restarts()

        def running() -> bool:
            health = read_health(self.api, source)
            restarts.see(self.settings, source, health)
            return health.ok

        wait_for(running, "the capture")

    def caught_up(self, source: str) -> None:
        """Wait until all that is committed now is in Kafka."""
        address = read_sources(self.settings)[source].address
        dsn = psycopg2.extensions.make_dsn(**address)
        ((position,),) = execute(dsn, "select (pg_current_wal_lsn() - '0/0')::bigint")
        wait_for(lambda: (self.api.stored_lsn(source) or 0) >= position, f"{source}'s capture")


@contextmanager
def capture_stack(broker: str) -> Iterator[Stack]:
    """Run the services on a broker; the test is skipped where PostgreSQL is not installed."""
    if find_postgres() is None:
        pytest.skip("no PostgreSQL: apt install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="capture-"))
    folder.chmod(0o711)  # PostgreSQL runs under another account when the tests run as root.
    project = folder / "project"
    (project / "contracts").mkdir(parents=True)
    shutil.copy(PROJECT / "pom.xml", project)
    (project / ".freshdata").mkdir()
    jars = PROJECT / ".freshdata" / "jars"
    jars.mkdir(parents=True, exist_ok=True)
    (project / ".freshdata" / "jars").symlink_to(jars)
    update = {"project": project, "kafka_bootstrap": broker, "home_override": folder / "home"}
    settings = Settings().model_copy(update=update)
    try:
        with Supervisor(settings.logs) as supervisor:
            supervisor.start("postgres", lambda: postgres_program(settings))
            supervisor.start("connect", lambda: connect_program(settings))
            yield Stack(settings, supervisor)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def execute(dsn: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run statements in one transaction; returns the last one's rows."""
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = "database" in statement
        with connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            found = cursor.fetchall() if cursor.description else []
        connection.commit()
        return found


def records(settings: Settings, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    """Keys and values of all that a topic holds, in its order."""
    consumer = Consumer({**client_config(settings), "group.id": "test", "enable.auto.commit": False})
    found: list[tuple[bytes | None, bytes | None]] = []
    for partition, end in end_offsets(settings, topic).items():
        consumer.assign([TopicPartition(topic, partition, 0)])
        left = end
        while left:
            messages = consumer.consume(min(left, 10_000), 5)
            assert [message.error() for message in messages if message.error()] == []
            left -= len(messages)
            found += [(message.key(), message.value()) for message in messages]
    consumer.close()
    return found


def changes(settings: Settings, topic: str) -> list[dict[str, Any] | None]:
    """All changes in a topic, in its order: envelopes with their key, and None for a tombstone."""
    return [
        None if value is None else json.loads(value) | {"key": key and json.loads(key)}
        for key, value in records(settings, topic)
    ]


def position(change: dict[str, Any]) -> int:
    """Where in the database's log a change is."""
    source = change["source"]
    return int(source["lsn"] or json.loads(source["sequence"])[1])


def current_rows(messages: Iterable[dict[str, Any] | None]) -> dict[Any, dict[str, Any]]:
    """The rows that changes come to, by primary key: each key's last change counts, by the topic's order."""
    rows: dict[Any, dict[str, Any]] = {}
    for change in messages:
        if change is None:
            continue
        if change["op"] == "t":
            rows.clear()
            continue
        key = tuple(change["key"].values())
        old, after = rows.pop(key, None), change["after"]
        if after is not None:
            rows[key] = {name: old[name] if old and value == UNTOLD else value for name, value in after.items()}
    return rows


UNTOLD = "__debezium_unavailable_value"


def source_rows(dsn: str, table: str) -> dict[Any, dict[str, Any]]:
    """The rows that a table has, by primary key, in Debezium's encoding."""
    columns = execute(
        dsn,
        "select a.attname, t.typname, coalesce(a.attnum = any(i.indkey), false) from pg_attribute a "
        "join pg_type t on t.oid = a.atttypid left join pg_index i on i.indrelid = a.attrelid and i.indisprimary "
        "where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum",
        table,
    )
    values = ", ".join(ENCODED.get(kind, "to_jsonb({})").format(f'"{name}"') for name, kind, _ in columns)
    names = [name for name, _, _ in columns]
    keys = [name for name, _, is_key in columns if is_key]
    found = (dict(zip(names, row, strict=True)) for row in execute(dsn, f"select {values} from {table}"))
    return {tuple(row[key] for key in keys): row for row in found}


def assert_equal(stack: Stack, source: Source, dsn: str) -> None:
    """Each captured table's topic comes to what the table holds, row for row."""
    for table in source.tables:
        found, wanted = current_rows(changes(stack.settings, source.topic(table))), source_rows(dsn, table)
        assert found.keys() == wanted.keys(), table
        assert [(found[key], row) for key, row in wanted.items() if found[key] != row] == [], table
