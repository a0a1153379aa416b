"""Bronze rows made by hand, committed as a worker commits them: transformations are tested without a broker."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog

from freshdata.contracts import load_contracts
from freshdata.lake.catalog import ensure_stream_tables, load_table
from freshdata.lake.commits import commit_batch
from freshdata.lake.files import write_data_files
from freshdata.lake.progress import PartitionProgress, Progress, read_progress
from freshdata.settings import PROJECT


def flight_event(day: date, number: int, kind: str = "departed", **fields: Any) -> dict[str, Any]:
    """One event of carrier UA's flight of a number at six o'clock, as the worker would store it."""
    scheduled = datetime(day.year, day.month, day.day, 11, tzinfo=UTC)
    ingested = fields.get("_ingested_at", scheduled + timedelta(hours=1))
    return {
        "event_id": f"{day:%Y%m%d}-UA-{number}-{kind}",
        "event_type": kind,
        "tenant_id": "UA",
        "event_time": ingested,
        "flight_date": day,
        "flight": number,
        "sched_dep_time": 600,
        "scheduled_departure": scheduled,
        "tailnum": "N14228",
        "origin": "EWR",
        "dest": "IAH",
        "dep_delay": None if kind == "cancelled" else number,
        "arr_delay": number if kind == "arrived" else None,
        "air_time": None,
        "distance": 1400,
        "carrier_name": "United Air Lines Inc.",
        "_ingested_at": ingested,
        "_late": False,
        "ingestion_date": ingested.date(),
    } | fields


def observation(day: date, hour: int = 11, **fields: Any) -> dict[str, Any]:
    """One dry weather observation at EWR."""
    when = datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
    return {
        "observation_id": f"EWR-{when:%Y%m%d%H}",
        "tenant_id": "EWR",
        "event_time": when,
        "weather_date": day,
        "precip": 0.0,
        "visib": 10.0,
        "wind_speed": 5.0,
        "_ingested_at": when,
        "_late": False,
        "ingestion_date": when.date(),
    } | fields


def append(catalog: Catalog, stream: str, rows: list[dict[str, Any]]) -> int:
    """Commit rows to a stream's Bronze table behind what is there; returns the new snapshot."""
    contracts = load_contracts(PROJECT / "contracts")
    table, _ = ensure_stream_tables(catalog, contracts[stream], contracts)
    done = read_progress(table)
    begin = done.partitions[0].offset if done else 0
    numbered = [{"_kafka_partition": 0, "_offset": begin + position} | row for position, row in enumerate(rows)]
    arrow = pa.Table.from_pylist(numbered, schema=table.schema().as_arrow())
    progress = Progress("cluster", stream, {0: PartitionProgress(begin + len(rows), accepted=len(rows))})
    commit_batch(table, write_data_files(table, arrow), {0: begin}, progress)
    return head(catalog, f"bronze.{stream}")


def head(catalog: Catalog, name: str) -> int:
    """A table's current snapshot."""
    snapshot = load_table(catalog, name).current_snapshot()
    assert snapshot is not None
    return snapshot.snapshot_id


def rows(catalog: Catalog, name: str) -> list[dict[str, Any]]:
    """A table's rows in an order that does not depend on how they are stored."""
    return sorted(load_table(catalog, name).scan().to_arrow().to_pylist(), key=repr)
