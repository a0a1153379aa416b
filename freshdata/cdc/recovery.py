"""Begin a source's capture anew after changes were missed, and end a capture."""

import json
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from confluent_kafka import Producer

from freshdata.cdc.connector import Connect
from freshdata.cdc.source import Source, connect, forget_source
from freshdata.errors import CaptureError, ServiceError
from freshdata.services.connect import secrets_folder
from freshdata.services.kafka import client_config
from freshdata.settings import Settings

if TYPE_CHECKING:
    import psycopg2.extensions

TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 0.1


def recover(settings: Settings, source: Source) -> None:
    """Have a source's tables read whole into a new slot, after changes were missed.

    What was deleted in between has no event: before the new snapshot each topic gets a truncation, the same as
    Debezium's, so that Silver ends as what the snapshot holds. If it is stopped at any point, it can be run again.

    Raises:
        CaptureError: the database does not answer.
        ServiceError: Kafka or Connect do not answer, or the connector failed.
    """
    api = Connect(settings)
    with connect(source) as connection:
        api.stop(source.name)
        # Until the truncations are sent, changes are told as missed, and the connector does not start: its position is
        # known, and there is no slot that has it.
        _drop_slot(connection, source)
        send_truncations(settings, connection, source, source.tables)
        api.forget_offsets(source.name)
        api.resume(source.name)
    api.wait_running(source.name)


def remove(settings: Settings, source: Source) -> list[str]:
    """End a source's capture: its connector, slot, publication and signal table are dropped; what is stored stays.

    Returns:
        What could not be dropped, as the database does not answer, and how to drop it there.

    Raises:
        ServiceError: Kafka Connect does not answer.
    """
    from psycopg2 import sql

    Connect(settings).remove(source.name)
    left: list[str] = []
    publication, table = sql.Identifier(source.slot), sql.Identifier(*source.signal_table)
    try:
        with connect(source) as connection:
            _drop_slot(connection, source)
            with connection.cursor() as cursor:
                cursor.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(publication))
                cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
    except CaptureError as error:
        left.append(f"{error.message} Drop its slot there: SELECT pg_drop_replication_slot('{source.slot}')")
    (secrets_folder(settings) / f"{source.name}.properties").unlink(missing_ok=True)
    forget_source(settings, source.name)
    return left


def _drop_slot(connection: "psycopg2.extensions.connection", source: Source) -> None:
    import psycopg2

    drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s"
    deadline = time.monotonic() + TIMEOUT_SECONDS
    with connection.cursor() as cursor:
        while True:
            try:
                cursor.execute(drop, (source.slot,))
            except psycopg2.errors.ObjectInUse:  # Until the server has seen that the connector is gone.
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_SECONDS)
            else:
                return


def send_truncations(
    settings: Settings, connection: "psycopg2.extensions.connection", source: Source, tables: Iterable[str]
) -> None:
    """Tell tables' topics, as Debezium would, that all rows so far are gone: they are about to be read whole.

    Args:
        settings: The instance.
        connection: A connection to the source's database.
        source: The source.
        tables: Its tables whose topics are told, ``schema.table``.

    Raises:
        ServiceError: Kafka does not take messages.
    """
    with connection.cursor() as cursor:
        # Its second statement moves the log on: every row of the snapshot is later than the truncation.
        cursor.execute("SELECT (pg_current_wal_lsn() - '0/0')::bigint")
        (lsn,) = cursor.fetchone()
        cursor.execute("SELECT pg_logical_emit_message(false, 'freshdata', '')")
    now = time.time_ns()
    producer = Producer({**client_config(settings), "enable.idempotence": True, "log_level": 0})
    for table in tables:
        schema, _, name = table.partition(".")
        origin: dict[str, Any] = {
            "connector": "postgresql",
            "name": source.name,
            "db": source.address["dbname"],
            "schema": schema,
        }
        origin |= {"table": name, "snapshot": "false", "txId": None, "lsn": lsn, "sequence": f'["{lsn}","{lsn}"]'}
        times = {"ts_ms": now // 1_000_000, "ts_us": now // 1000, "ts_ns": now}
        value = {"before": None, "after": None, "source": origin | times, "transaction": None, "op": "t", **times}
        producer.produce(source.topic(table), json.dumps(value).encode())
    if producer.flush(TIMEOUT_SECONDS):
        raise ServiceError("kafka", "Kafka does not take messages.", remedy="Look at `freshdata status`; try again.")
