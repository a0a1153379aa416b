"""Tell Dagster what the workers wrote: one materialization for each partition that a snapshot touched.

Beside them the verdict on the table's columns, as no Dagster run writes these tables, that could check them.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg
from pyiceberg.table import Table

from freshdata.contracts import Contract
from freshdata.intervals import day_of, first_hour
from freshdata.lake.changes import added_partitions, new_rows
from freshdata.quarantine.events import read_events
from freshdata.quarantine.payload import excerpt
from freshdata.quarantine.problems import problem_column
from freshdata.quarantine.records import IDENTITY
from freshdata_assets.platform import Platform, asset_key, key_of
from freshdata_assets.schema_check import SCHEMA_CHECK, landing_verdict
from freshdata_assets.schemas import records

DATA_VERSION = "dagster/data_version"
INGESTION_TIMES = ("ingestion_date", "ingestion_hour")
MOST_PROBLEMS = 20
MOST_EVENTS = 10


@dataclass(frozen=True)
class Head:
    """A table that the workers write, as it is now.

    Attributes:
        name: Table identifier.
        contract: The contract of its stream or lookup.
        table: The table.
        snapshot_id: Its current snapshot.
        partitioned: Whether its asset has partitions, by ingestion time.
        rejected: Whether its rows are rejected events.
    """

    name: str
    contract: Contract
    table: Table
    snapshot_id: int
    partitioned: bool
    rejected: bool = False


def reports(
    platform: Platform, head: Head, seen: int | None
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    """What was added to a table since a snapshot, and whether its columns are right; nothing if no row has changed.

    Args:
        platform: The instance.
        head: The table.
        seen: The snapshot reported last, or None to report everything.
    """
    if seen == head.snapshot_id:
        return
    added: Counter[str | None] = Counter()
    changes = added_partitions(head.table, seen)
    for change in changes:
        ingested = _ingested(head.contract, change.partition) if head.partitioned else None
        if ingested is not None and not platform.has(ingested):
            continue
        added[key_of(ingested) if ingested else None] += change.rows
    more = _rejected(head.table, seen) if head.rejected and added else {}
    for partition, rows in sorted(added.items(), key=lambda item: item[0] or ""):
        yield dg.AssetMaterialization(
            asset_key(head.name),
            partition=partition,
            metadata=_metadata(head, rows) | more,
            tags={DATA_VERSION: str(head.snapshot_id)},
        )
    if changes:
        check = dg.AssetCheckKey(asset_key(head.name), SCHEMA_CHECK)
        yield landing_verdict(platform, head.contract, head.table).evaluation(check)


def _ingested(contract: Contract, partition: dict[str, Any]) -> date:
    """The day or the hour that a partition of Bronze holds, as its asset has them."""
    value: date = next(partition[name] for name in INGESTION_TIMES if name in partition)
    return first_hour(value) if contract.rules.granularity == "hour" else day_of(value)


def _metadata(head: Head, rows: int) -> dict[str, Any]:
    snapshot = head.table.current_snapshot()
    summary = snapshot.summary.additional_properties if snapshot and snapshot.summary else {}
    return {
        "freshdata/location": dg.MetadataValue.path(head.table.location()),
        "freshdata/rows_added": rows,
        "freshdata/snapshot_id": str(head.snapshot_id),
        "dagster/row_count": int(summary.get("total-records", 0)),
    } | (
        {"dagster/last_updated_timestamp": dg.MetadataValue.timestamp(snapshot.timestamp_ms / 1000)} if snapshot else {}
    )


def _rejected(table: Table, seen: int | None) -> dict[str, Any]:
    """What is wrong with the events rejected since a snapshot, and the newest of them.

    Of the added files only the columns that name an event are read, and then the bytes of the few that are shown.
    """
    found = new_rows(table, seen, (*IDENTITY, "reason")).read_all()
    if not found.num_rows:
        return {}  # The rows were replaced, by a rebuild.
    problems = Counter(problem_column(found["reason"]).to_pylist()).most_common(MOST_PROBLEMS)
    newest = found.sort_by([(name, "descending") for name in ("ingested_at", "partition", "offset")])
    events = read_events(table, newest.slice(0, MOST_EVENTS))
    return {
        "freshdata/rejected_by_reason": records(
            ("events", "reason"),
            ({"events": count, "reason": problem} for problem, count in problems),
            numbers=("events",),
        ),
        "freshdata/newest_rejected": records(
            ("when", "at", "reason", "payload"),
            (
                {
                    "when": event.ingested_at.isoformat(sep=" ", timespec="seconds"),
                    "at": str(event.place),
                    "reason": event.reason,
                    "payload": excerpt(event.payload),
                }
                for event in events
            ),
        ),
    }
