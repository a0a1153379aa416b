"""The snapshot sensor: it reports what the workers wrote, and asks for the runs that take it to Gold."""

import json
import time
from collections.abc import Iterator

import dagster as dg
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError

from freshdata.lake.catalog import metadata_locations
from freshdata_assets.automation import live_run_requests
from freshdata_assets.orphans import fail_orphans
from freshdata_assets.platform import Platform, current_platform
from freshdata_assets.reports import Head, reports
from freshdata_assets.scope import LIVE, MODE

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


# Dagster's daemon comes round every five seconds. A tick that has nothing to ask for looks again until just before the
# next one, so that news waits for a fraction of a second instead of two and a half on average.
PATIENCE = 4.0  # seconds
POLL = 0.25  # seconds


def snapshot_sensor(platform: Platform, *, patience: float = PATIENCE) -> dg.SensorDefinition:
    """The sensor over all tables that the workers write.

    Args:
        platform: The instance.
        patience: Seconds that a tick waits for something to ask for.
    """

    @dg.sensor(
        name="snapshots",
        description="Reports new snapshots of Bronze, quarantine and lookup tables, and starts the runs that follow.",
        target=dg.AssetSelection.groups(*sorted({model.layer for model in platform.models.values()})),
        # Five would miss every other round of the daemon by some milliseconds.
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def snapshots(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        catalog, deadline = platform.catalog(), time.monotonic() + patience
        while True:
            before, busy = metadata_locations(catalog), _busy(context.instance)
            result = _tick(platform, catalog, context, busy=busy)
            if isinstance(result, dg.SensorResult) and result.run_requests:
                return result
            while True:
                if time.monotonic() > deadline:
                    return result
                time.sleep(POLL)
                # While a run is under way, no other is asked for whatever comes in.
                if not _busy(context.instance) and (busy or metadata_locations(catalog) != before):
                    break

    return snapshots


def _busy(instance: dg.DagsterInstance) -> bool:
    return bool(instance.get_runs(dg.RunsFilter(tags={MODE: LIVE}, statuses=UNFINISHED), limit=1))


def _tick(
    platform: Platform, catalog: Catalog, context: dg.SensorEvaluationContext, *, busy: bool
) -> dg.SensorResult | dg.SkipReason:
    seen = {table: int(snapshot) for table, snapshot in json.loads(context.cursor or "{}").items()}
    heads = dict(_heads(platform, catalog))
    events = [event for name, head in heads.items() for event in reports(platform, head, seen.get(name))]
    orphans = fail_orphans(context.instance)
    requests = [] if busy or orphans else live_run_requests(platform, catalog)
    if not events and not requests:
        reason = "a live run is queued or in progress" if busy else "no new snapshot"
        return dg.SkipReason(f"killed runs were marked as failed: {orphans}" if orphans else reason)
    return dg.SensorResult(
        run_requests=requests,
        asset_events=events,
        # Ids as text: they do not fit the numbers of JSON readers such as the UI.
        cursor=json.dumps({name: str(head.snapshot_id) for name, head in heads.items()}, sort_keys=True),
    )


def _heads(platform: Platform, catalog: Catalog) -> Iterator[tuple[str, Head]]:
    for contract in platform.contracts.values():
        names = [contract.table] if contract.kind == "lookup" else [contract.table, contract.quarantine_table]
        for name in names:
            try:
                table = catalog.load_table(name)
            except NoSuchTableError:
                continue  # Its worker has not started yet.
            snapshot = table.current_snapshot()
            if snapshot is not None:
                rejected = name == contract.quarantine_table
                partitioned = contract.stream is not None and not rejected
                yield (
                    name,
                    Head(name, contract, table, snapshot.snapshot_id, partitioned=partitioned, rejected=rejected),
                )


@dg.definitions
def defs() -> dg.Definitions:
    """The sensor."""
    return dg.Definitions(sensors=[snapshot_sensor(current_platform())])
