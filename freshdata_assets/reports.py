"""Tell Dagster what the workers wrote: one materialization for each partition that a snapshot touched."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import dagster as dg
from pyiceberg.table import Table

from freshdata.lake.changes import added_partitions
from freshdata_assets.platform import DAY_FORMAT, Platform, asset_key

DATA_VERSION = "dagster/data_version"
INGESTION_TIMES = ("ingestion_date", "ingestion_hour")


@dataclass(frozen=True)
class Head:
    """A table that the workers write, as it is now.

    Attributes:
        name: Table identifier.
        table: The table.
        snapshot_id: Its current snapshot.
        daily: Whether its asset has daily partitions, by ingestion date.
    """

    name: str
    table: Table
    snapshot_id: int
    daily: bool


def reports(platform: Platform, head: Head, seen: int | None) -> Iterator[dg.AssetMaterialization]:
    """What was added to a table since a snapshot; nothing when that is its current one.

    Args:
        platform: The instance.
        head: The table.
        seen: The snapshot reported last, or None to report everything.
    """
    if seen == head.snapshot_id:
        return
    added: Counter[str | None] = Counter()
    for change in added_partitions(head.table, seen):
        day = _day(change.partition) if head.daily else None
        if day is not None and not platform.has_day(day):
            continue
        added[day.strftime(DAY_FORMAT) if day else None] += change.rows
    for partition, rows in sorted(added.items(), key=lambda item: item[0] or ""):
        yield dg.AssetMaterialization(
            asset_key(head.name),
            partition=partition,
            metadata=_metadata(head, rows),
            tags={DATA_VERSION: str(head.snapshot_id)},
        )


def _day(partition: dict[str, Any]) -> date:
    value = next(partition[name] for name in INGESTION_TIMES if name in partition)
    return value.date() if isinstance(value, datetime) else value


def _metadata(head: Head, rows: int) -> dict[str, Any]:
    snapshot = head.table.current_snapshot()
    summary = snapshot.summary.additional_properties if snapshot and snapshot.summary else {}
    return {
        "freshdata/rows_added": rows,
        "freshdata/snapshot_id": str(head.snapshot_id),
        "dagster/row_count": int(summary.get("total-records", 0)),
    } | (
        {"dagster/last_updated_timestamp": dg.MetadataValue.timestamp(snapshot.timestamp_ms / 1000)} if snapshot else {}
    )
