"""The snapshot sensor: it reports what the workers wrote, and asks for the runs that take it to Gold."""

import json
import time
from collections.abc import Iterator, Sequence

import dagster as dg
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError

from freshdata.lake.catalog import metadata_locations
from freshdata_assets.automation import live_run_requests
from freshdata_assets.live import up_to_date
from freshdata_assets.orphans import fail_orphans
from freshdata_assets.platform import Platform, asset_key, current_platform
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
            seen = _state(context.instance, catalog)
            result = _tick(platform, catalog, context)
            if isinstance(result, dg.SensorResult) and result.run_requests:
                return result
            while True:
                if time.monotonic() > deadline:
                    return result
                time.sleep(POLL)
                before, seen = seen, _state(context.instance, catalog)
                # A whole tick reads every table: only for what may be asked for.
                if seen != before and may_ask(platform, catalog, _live(context.instance)):
                    break

    return snapshots


def _state(instance: dg.DagsterInstance, catalog: Catalog) -> tuple[object, ...]:
    """What a tick's outcome depends on, as far as it is quickly told."""
    return (metadata_locations(catalog), [(record.dagster_run.run_id, record.start_time) for record in _live(instance)])


def _live(instance: dg.DagsterInstance) -> Sequence[dg.RunRecord]:
    return instance.get_run_records(dg.RunsFilter(tags={MODE: LIVE}, statuses=UNFINISHED))


def _tick(platform: Platform, catalog: Catalog, context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    seen = {table: int(snapshot) for table, snapshot in json.loads(context.cursor or "{}").items()}
    heads = dict(_heads(platform, catalog))
    events = [event for name, head in heads.items() for event in reports(platform, head, seen.get(name))]
    orphans, under_way = fail_orphans(context.instance), _live(context.instance)
    requests = [] if orphans or not may_ask(platform, catalog, under_way) else live_run_requests(platform, catalog)
    if not events and not requests:
        reason = "a live run is queued or in progress" if under_way else "no new snapshot"
        return dg.SkipReason(f"killed runs were marked as failed: {orphans}" if orphans else reason)
    return dg.SensorResult(
        run_requests=requests,
        asset_events=events,
        # Ids as text: they do not fit the numbers of JSON readers such as the UI.
        cursor=json.dumps({name: str(head.snapshot_id) for name, head in heads.items()}, sort_keys=True),
    )


def may_ask(platform: Platform, catalog: Catalog, under_way: Sequence[dg.RunRecord]) -> bool:
    """Whether what is new is more than the runs under way will take in.

    The next run may start while one is under way: it loads its code meanwhile, and then waits for its turn. But what a
    run is about to take in itself is no reason for another one: only what came after it read Bronze is.
    """
    if not under_way:
        return True
    run, started = under_way[0], under_way[0].start_time
    if len(under_way) > 1 or started is None:
        return False
    for model in platform.models.values():
        if asset_key(model.name) not in (run.dagster_run.asset_selection or ()) or not platform.reads_bronze(model):
            continue
        table = catalog.load_table(model.name) if catalog.table_exists(model.name) else None
        snapshot = table.current_snapshot() if table else None
        if snapshot and snapshot.timestamp_ms / 1000 > started and not up_to_date(catalog, model):
            return True
    return False


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
