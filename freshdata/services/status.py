"""What runs, and how fresh each table is: a view over state files, Iceberg metadata and Kafka's offsets."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table

from freshdata.clock import instance_clock
from freshdata.contracts import Contract, load_contracts
from freshdata.errors import LakeError, ServiceError
from freshdata.freshness import Freshness, stream_freshness
from freshdata.lake.catalog import list_tables, open_catalog
from freshdata.lake.progress import read_progress
from freshdata.lake.scratch import NAMESPACE as SCRATCH
from freshdata.services.broker import running_broker
from freshdata.services.instance import platform_state
from freshdata.services.kafka import end_offsets
from freshdata.settings import Settings


@dataclass(frozen=True)
class TableStatus:
    """How far a table is.

    Attributes:
        table: Identifier.
        rows: Rows in its current snapshot; 0 before the first.
        committed: When it was last committed to (system clock), or None.
        newest_event: Newest event time in it, or None when it has no such column or no rows.
        lag: How far that is behind the instance's clock.
    """

    table: str
    rows: int
    committed: datetime | None
    newest_event: datetime | None
    lag: timedelta | None


@dataclass(frozen=True)
class StreamStatus:
    """How far a stream's table has consumed its topic.

    Attributes:
        stream: Name of the contract.
        topic: The topic.
        in_kafka: Records in the topic, or None when Kafka does not answer.
        consumed: Records that the Bronze table accounts for.
        behind: Records still to be consumed, or None when Kafka does not answer.
        freshness: Which of its tenants are late, as the check ``tenant_freshness`` judges; None before its first event.
        deprecation: What has come to its end, or will; empty when nothing has.
    """

    stream: str
    topic: str
    in_kafka: int | None
    consumed: int
    behind: int | None
    freshness: Freshness | None
    deprecation: str


@dataclass(frozen=True)
class Status:
    """An instance's state.

    Attributes:
        home: Its data folder.
        now: The present by its clock.
        simulated: Whether a replay has set that clock.
        platform: What the running platform says of itself (``web``, ``ready``, ``children`` …), or None.
        kafka: Address of the cluster, or None when none runs.
        streams: Each stream's progress.
        tables: Each table of the lake.
    """

    home: str
    now: datetime
    simulated: bool
    platform: dict[str, Any] | None
    kafka: str | None
    streams: list[StreamStatus]
    tables: list[TableStatus]


def read_status(settings: Settings) -> Status:
    """Look at an instance; works whether or not it runs."""
    clock = instance_clock(settings.home)
    now = clock.now()
    contracts = load_contracts(settings.contracts_dir)
    tables: dict[str, Table] = {}
    freshness: dict[str, Freshness] = {}
    if settings.catalog_uri or (settings.home / "catalog.db").is_file():
        catalog = open_catalog(settings)
        for name in sorted(list_tables(catalog), key=lambda name: (_layer(name[:-1]), name)):
            if name[0] != SCRATCH:
                with suppress(NoSuchTableError):  # Dropped since it was listed.
                    tables[".".join(name)] = catalog.load_table(name)
        freshness = {
            contract.name: stream_freshness(settings, catalog, contract, now)
            for contract in contracts.values()
            if contract.stream and contract.table in tables
        }
    kafka = settings.kafka_bootstrap or running_broker(settings)
    times = {contract.rules.event_time_field for contract in contracts.values() if contract.stream}
    return Status(
        home=str(settings.home),
        now=now,
        simulated=clock.simulated,
        platform=platform_state(settings),
        kafka=kafka,
        streams=[
            _stream(
                settings,
                contract,
                tables.get(contract.table),
                freshness.get(contract.name),
                now.date(),
                answers=kafka is not None,
            )
            for contract in contracts.values()
            if contract.stream
        ],
        tables=[_table(name, table, times, now) for name, table in tables.items()],
    )


def _layer(namespace: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    order = ("bronze", "quarantine", "lookup", "silver", "gold")
    return (order.index(namespace[0]) if namespace[0] in order else len(order), namespace)


def _stream(
    settings: Settings,
    contract: Contract,
    table: Table | None,
    freshness: Freshness | None,
    today: date,
    *,
    answers: bool,
) -> StreamStatus:
    consumed: dict[int, int] = {}
    if table is not None:
        try:
            progress = read_progress(table)
        except LakeError:  # A rollback took it all: shown as nothing consumed, the worker says why.
            progress = None
        consumed = {number: done.offset for number, done in progress.partitions.items()} if progress else {}
    topic, ends = contract.rules.topic, None
    if answers:
        try:
            ends = end_offsets(settings, topic)
        except ServiceError:
            ends = None
    done = sum(consumed.values())
    in_kafka = sum(ends.values()) if ends is not None else None
    behind = sum(max(0, end - consumed.get(number, 0)) for number, end in ends.items()) if ends is not None else None
    return StreamStatus(contract.name, topic, in_kafka, done, behind, freshness, contract.lifecycle.warning(today))


def _table(name: str, table: Table, times: set[str], now: datetime) -> TableStatus:
    snapshot = table.current_snapshot()
    if snapshot is None:
        return TableStatus(name, 0, None, None, None)
    committed = datetime.fromtimestamp(snapshot.timestamp_ms / 1000, tz=now.tzinfo)
    newest = _newest(table, times)
    rows = int(snapshot.summary.additional_properties.get("total-records", 0)) if snapshot.summary else 0
    return TableStatus(name, rows, committed, newest, now - newest if newest else None)


def _newest(table: Table, times: set[str]) -> datetime | None:
    """Newest event time by the data files' own statistics: no data is read."""
    from pyiceberg.conversions import from_bytes
    from pyiceberg.types import TimestamptzType
    from pyiceberg.utils.datetime import micros_to_timestamptz

    columns = [field for field in table.schema().fields if field.name in times]
    if not columns or not isinstance(columns[0].field_type, TimestamptzType):
        return None
    bounds: list[Any] = [
        from_bytes(columns[0].field_type, task.file.upper_bounds[columns[0].field_id])
        for task in table.scan().plan_files()
        if columns[0].field_id in (task.file.upper_bounds or {})
    ]
    return micros_to_timestamptz(max(bounds)) if bounds else None
