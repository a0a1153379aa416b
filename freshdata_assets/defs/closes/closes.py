"""Daily closes: one asset for each Gold table, whose partitions are the days that have their tag."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any

import dagster as dg

from freshdata.errors import FreshDataError
from freshdata.intervals import each, ranges
from freshdata.lake.catalog import load_table
from freshdata.transform.closes import Closes, closed_models
from freshdata.transform.manifest import ModelInfo
from freshdata_assets.defs.automation.snapshots import UNFINISHED
from freshdata_assets.platform import Platform, asset_key, current_platform, key_of, owners
from freshdata_assets.scope import RANGE_END, RANGE_START, REASON, Scope

GROUP = "closes"
SENSOR = "closes"


def close_assets(platform: Platform) -> dg.AssetsDefinition:
    """The closes of all Gold tables with daily partitions."""

    @dg.multi_asset(
        name="close_days",
        specs=[_spec(model) for model in closed_models(platform.models)],
        partitions_def=platform.calendars["day"],
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
    )
    def close_days(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        closes = _closes(platform)
        failures = {}
        for model in closes.models:
            if _key(model) not in context.selected_asset_keys:
                continue
            try:
                for day in Scope.of(context.run.tags).intervals:
                    tag = closes.close(model, day, platform.clock.now())
                    metadata = {"freshdata/tag": tag.name, "freshdata/snapshot_id": str(tag.snapshot_id)}
                    context.add_asset_metadata(metadata, _key(model), key_of(day))
            except FreshDataError as error:
                failures[model.name] = str(error)
            else:
                yield dg.MaterializeResult(asset_key=_key(model))
        if failures:
            raise dg.Failure(description="; ".join(failures.values()), allow_retries=False)

    return close_days


def close_sensor(platform: Platform) -> dg.SensorDefinition:
    """The sensor that asks for each close once."""

    @dg.sensor(
        name=SENSOR,
        description="Closes each day that is over by the instance's clock, once Gold holds all that came in for it.",
        target=dg.AssetSelection.groups(GROUP),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def close(context: dg.SensorEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        busy = context.instance.get_runs(
            dg.RunsFilter(tags={"dagster/sensor_name": SENSOR}, statuses=UNFINISHED), limit=1
        )
        if busy:
            return dg.SkipReason("a run that closes days is queued or in progress")
        return list(close_requests(platform)) or dg.SkipReason("no day to close")

    return close


def close_requests(platform: Platform) -> Iterator[dg.RunRequest]:
    """The runs that close the days that can be closed now."""
    closes = _closes(platform)
    days = list(each(*platform.span()))
    groups: dict[frozenset[date], list[ModelInfo]] = defaultdict(list)
    for model in closes.models:
        groups[frozenset(closes.closable(model, days, platform.clock.now()))].append(model)
    for closable, models in groups.items():
        for span in ranges(closable):
            yield _request(platform, models, *map(key_of, span))


def _request(platform: Platform, models: Iterable[ModelInfo], first: str, last: str) -> dg.RunRequest:
    catalog = platform.catalog()
    # What failed once is not tried again until a table has moved on.
    heads = {model.name: load_table(catalog, model.name).metadata.current_snapshot_id for model in models}
    return dg.RunRequest(
        run_key=f"close:{first}:{last}:{','.join(f'{name}@{head}' for name, head in heads.items())}",
        asset_selection=[_key(model) for model in models],
        tags={RANGE_START: first, RANGE_END: last, REASON: f"days {first} to {last} are over"},
    )


def _closes(platform: Platform) -> Closes:
    return Closes(platform.catalog(), platform.models, platform.contracts)


def _key(model: ModelInfo) -> dg.AssetKey:
    return dg.AssetKey([GROUP, model.name.rpartition(".")[2]])


def _spec(model: ModelInfo) -> dg.AssetSpec:
    return dg.AssetSpec(
        _key(model),
        deps=[asset_key(model.name)],
        description=f"The days of {model.name} that are closed: its tags close-YYYY-MM-DD, each what it held then.",
        group_name=GROUP,
        kinds={"iceberg"},
        owners=owners(model.owner),
        metadata={"dagster/table_name": model.name},
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The closes and their sensor."""
    platform = current_platform()
    if not closed_models(platform.models):
        return dg.Definitions()
    return dg.Definitions(assets=[close_assets(platform)], sensors=[close_sensor(platform)])
