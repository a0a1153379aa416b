"""Fill a lake as the stream workers do, without a broker."""

from collections import defaultdict
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa
from pyiceberg.table import Table

from freshdata.contracts import load_contracts
from freshdata.intervals import first_hour
from freshdata.lake.catalog import bronze_schema, ensure_stream_tables, ensure_table, open_catalog
from freshdata.lake.commits import commit_batch
from freshdata.lake.files import write_data_files
from freshdata.lake.progress import PartitionProgress, Progress, read_progress
from freshdata.settings import Settings


def departures(day: date, count: int = 4, **changes: Any) -> list[dict[str, Any]]:
    """Flights of a day that left, two for each of two carriers."""
    noon = datetime.combine(day, time(17), UTC)
    return [
        {
            "event_id": f"{day:%Y%m%d}-{number:04d}-dep", "event_type": "departed",
            "tenant_id": ("UA", "AA")[number % 2], "event_time": noon + timedelta(minutes=number), "flight_date": day,
            "flight": number + 1, "sched_dep_time": 1200, "scheduled_departure": noon, "tailnum": "N100",
            "origin": "EWR", "dest": "ORD", "dep_delay": number, "distance": 719,
        } | changes
        for number in range(count)
    ]  # fmt: skip


def observations(day: date) -> list[dict[str, Any]]:
    """One weather observation of a day at noon."""
    noon = datetime.combine(day, time(17), UTC)
    return [
        {
            "observation_id": f"EWR-{day:%Y%m%d}-12", "tenant_id": "EWR", "event_time": noon, "weather_date": day,
            "temp": 40.0, "wind_speed": 10.0, "visib": 10.0, "precip": 0.0,
        }
    ]  # fmt: skip


def ingest(settings: Settings, stream: str, rows: list[dict[str, Any]], *, at: datetime | None = None) -> int:
    """Commit rows to Bronze in one snapshot.

    Args:
        settings: The instance.
        stream: The stream's name.
        rows: Contract fields of the events.
        at: Their Kafka timestamp; the newest event's time when None.

    Returns:
        The snapshot's id.
    """
    contracts = load_contracts(settings.contracts_dir)
    contract = contracts[stream]
    bronze, _ = ensure_stream_tables(open_catalog(settings), contract, contracts)
    recorded = read_progress(bronze)
    offset = recorded.partitions[0].offset if recorded else 0
    rules = contract.rules
    ingested = at or max((row[rules.event_time_field] for row in rows), default=datetime(2013, 1, 1, tzinfo=UTC))
    place = {"_kafka_partition": 0, "_ingested_at": ingested, "_late": False, "ingestion_date": ingested.date()}
    place |= {"ingestion_hour": first_hour(ingested)} if rules.granularity == "hour" else {}
    if rules.derives_event_date:
        rows = [row | {rules.event_date_field: row[rules.event_time_field].date()} for row in rows]
    table = pa.Table.from_pylist(
        [row | place | {"_offset": offset + number} for number, row in enumerate(rows)],
        schema=bronze_schema(contract, contracts),
    )
    done = PartitionProgress(offset + len(rows), None, len(rows), len(rows))
    batch = Progress("cluster", rules.topic, {0: done})
    commit_batch(bronze, write_data_files(bronze, table), {0: offset} if recorded else {}, batch)
    bronze.refresh()
    snapshot = bronze.current_snapshot()
    assert snapshot is not None
    return snapshot.snapshot_id


def day_files(table: Table) -> dict[date, set[str]]:
    """The data and delete files of each day of a table that is partitioned by days."""
    found = defaultdict(set)
    for task in table.scan().plan_files():
        day = date(1970, 1, 1) + timedelta(days=task.file.partition[0])
        found[day] |= {task.file.file_path, *(delete.file_path for delete in task.delete_files)}
    return dict(found)


def fill_lookups(settings: Settings) -> None:
    """Write one row to each lookup table."""
    catalog = open_catalog(settings)
    for contract in load_contracts(settings.contracts_dir).values():
        if contract.kind == "lookup":
            row = {column.name: _example(column.type) for column in contract.columns}
            table = ensure_table(catalog, contract.table, contract.arrow_schema)
            table.append(pa.Table.from_pylist([row], schema=contract.arrow_schema))


def _example(kind: pa.DataType) -> Any:
    return "UA" if pa.types.is_string(kind) else 1
