"""The sensor that asks for the upkeep of the tables that need it."""

import hashlib
import json
import time
from collections.abc import Iterator

import dagster as dg
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError

from freshdata.lake.upkeep import Plan, plan_upkeep
from freshdata_assets.defs.automation.snapshots import UNFINISHED
from freshdata_assets.defs.maintenance.assets import GROUP, THRESHOLDS, maintained_tables, maintenance_key
from freshdata_assets.platform import Platform, current_platform
from freshdata_assets.scope import MAINTENANCE, MODE, REASON

# A table that nobody writes to is looked at again after this long: its snapshots grow old.
LOOK_AGAIN_SECONDS = 3600.0
# Dagster gives up on a tick after a minute: a thousand tables that were never measured are measured in several ticks.
LONGEST_LOOK_SECONDS = 20.0


def maintenance_sensor(platform: Platform) -> dg.SensorDefinition:
    """The sensor over all tables."""

    @dg.sensor(
        name="maintenance",
        description="Measures the tables that have changed, and starts the upkeep of those that need it.",
        target=dg.AssetSelection.groups(GROUP),
        minimum_interval_seconds=120,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def maintenance(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        if context.instance.get_runs(dg.RunsFilter(tags={MODE: MAINTENANCE}, statuses=UNFINISHED), limit=1):
            return dg.SkipReason("tables are being maintained")
        measured: dict[str, list[str | float]] = json.loads(context.cursor or "{}")
        needs: dict[str, tuple[str, list[str]]] = {}
        for name, head, plan in _measure(platform, platform.catalog(), measured):
            measured[name] = [head, time.time()]
            if _urgent(platform, plan):
                needs[name] = head, plan.reasons
        cursor = json.dumps(measured, sort_keys=True)
        if not needs:
            return dg.SensorResult(skip_reason="no table needs it", cursor=cursor)
        return dg.SensorResult(run_requests=[_request(needs)], cursor=cursor)

    return maintenance


def _measure(
    platform: Platform, catalog: Catalog, measured: dict[str, list[str | float]]
) -> Iterator[tuple[str, str, Plan]]:
    def last_look(name: str) -> float:
        return float(measured.get(name, ["", 0.0])[1])

    deadline = time.monotonic() + LONGEST_LOOK_SECONDS
    for name in sorted((name for name, _ in maintained_tables(platform)), key=last_look):
        try:
            head = catalog.load_table(name).current_snapshot()
        except NoSuchTableError:
            continue
        if head is None:
            continue
        # As text: the id does not fit the numbers of JSON readers such as the UI.
        unchanged = name in measured and measured[name][0] == str(head.snapshot_id)
        if not unchanged or time.time() - last_look(name) > LOOK_AGAIN_SECONDS:
            yield name, str(head.snapshot_id), plan_upkeep(catalog, name, THRESHOLDS)
            if time.monotonic() > deadline:
                return


def _urgent(platform: Platform, plan: Plan) -> bool:
    """Whether a table is worth a run. A worker looks after the metadata of its stream's tables itself."""
    streams = {name for stream in platform.streams for name in (stream.table, stream.quarantine_table)}
    return bool(plan.rewrite or plan.remove) if plan.health.table in streams else plan.urgent


def _request(needs: dict[str, tuple[str, list[str]]]) -> dg.RunRequest:
    """One run for all: its process costs more than the upkeep of most tables."""
    # The same for the same need: what failed once is not tried again until something changes.
    key = hashlib.sha256(json.dumps(needs, sort_keys=True).encode()).hexdigest()[:24]
    reason = "; ".join(f"{name}: {', '.join(reasons)}" for name, (_, reasons) in needs.items())
    return dg.RunRequest(
        run_key=f"maintenance:{key}",
        asset_selection=[maintenance_key(name) for name in needs],
        # Behind whatever else waits.
        tags={MODE: MAINTENANCE, REASON: reason, "dagster/priority": "-1"},
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The sensor."""
    return dg.Definitions(sensors=[maintenance_sensor(current_platform())])
