"""Silver and Gold: one op a layer over the SQLMesh models, so that a blocking check on Silver really keeps Gold from running."""

import logging
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from typing import Any

import dagster as dg

from freshdata.errors import FreshDataError
from freshdata.transform.manifest import ModelInfo
from freshdata.transform.runner import ModelRun
from freshdata_assets.defs.resources import Transform
from freshdata_assets.live import row_counts, up_to_date
from freshdata_assets.platform import (
    DAY_FORMAT,
    Platform,
    asset_key,
    contract_metadata,
    current_platform,
    freshness_policy,
    owners,
)
from freshdata_assets.schemas import column_lineage, model_columns
from freshdata_assets.scope import Scope

# SQLMesh's state has room for one writer.
POOL = "sqlmesh"


def transform_assets(platform: Platform) -> list[dg.AssetsDefinition]:
    """One op for each layer's daily models, and one for its models without partitions."""
    groups: dict[str, list[ModelInfo]] = {}
    for model in platform.models.values():
        groups.setdefault(f"{model.layer}_{'daily' if model.partition_column else 'whole'}", []).append(model)
    return [_layer(platform, name, models) for name, models in groups.items()]


def _layer(platform: Platform, name: str, models: list[ModelInfo]) -> dg.AssetsDefinition:
    daily = models[0].partition_column is not None

    @dg.multi_asset(
        name=name,
        specs=[_spec(platform, model) for model in models],
        check_specs=[
            dg.AssetCheckSpec(audit.name, asset=asset_key(model.name), blocking=audit.blocking)
            for model in models
            for audit in model.audits
        ],
        partitions_def=platform.partitions if daily else None,
        backfill_policy=dg.BackfillPolicy.single_run() if daily else None,
        can_subset=True,
        pool=POOL,
    )
    def run_models(context: dg.AssetExecutionContext, transform: Transform) -> Iterator[dg.MaterializeResult[Any]]:
        yield from _Layer(platform, context, transform).run(models)

    return run_models


def _spec(platform: Platform, model: ModelInfo) -> dg.AssetSpec:
    stream = next((stream for stream, silver in platform.silver_streams if silver == model), None)
    slas = [stream.rules.freshness for stream in platform.streams if stream.table in _sources(platform, model)]
    return dg.AssetSpec(
        asset_key(model.name),
        deps=[_dep(platform, model, upstream) for upstream in model.depends_on],
        description=model.description,
        group_name=model.layer,
        kinds={"sqlmesh", "iceberg"},
        owners=owners(model.owner),
        tags={tag: "" for tag in model.tags},
        code_version=model.code_version,
        freshness_policy=freshness_policy(min(slas)) if slas else None,
        metadata={
            "dagster/table_name": model.name,
            "dagster/column_schema": model_columns(model),
            "dagster/column_lineage": column_lineage(model.column_lineage),
            "freshdata/model": dg.MetadataValue.path(model.path),
        }
        | (contract_metadata(platform, stream) if stream else {}),
    )


def _dep(platform: Platform, model: ModelInfo, upstream: str) -> dg.AssetDep:
    if model.partition_column and upstream not in platform.models and not upstream.startswith("lookup."):
        # A day's events may have been ingested on any day: Bronze has another calendar.
        return dg.AssetDep(asset_key(upstream), partition_mapping=dg.AllPartitionMapping())
    return dg.AssetDep(asset_key(upstream))


def _sources(platform: Platform, model: ModelInfo) -> set[str]:
    """The tables outside the project's models that a model is made from, through any number of models."""
    found: set[str] = set()
    for upstream in model.depends_on:
        found |= _sources(platform, platform.models[upstream]) if upstream in platform.models else {upstream}
    return found


class _Layer:
    """Runs a step's models one after another; one model's failure does not hide the others' success."""

    def __init__(self, platform: Platform, context: dg.AssetExecutionContext, transform: Transform) -> None:
        self.platform = platform
        self.context = context
        self.transform = transform
        self.scope = Scope.of(context.run.tags)
        self.failures: dict[str, str] = {}

    def run(self, models: Iterable[ModelInfo]) -> Iterator[dg.MaterializeResult[Any]]:
        """Yield each model's result as it completes.

        Raises:
            dagster.Failure: some models failed; it names them.
        """
        for model in models:
            if asset_key(model.name) not in self.context.selected_asset_keys:
                continue
            if culprits := [name for name in model.depends_on if name in self.failures]:
                self.failures[model.name] = f"not run, because {', '.join(culprits)} failed"
                continue
            try:
                outcome = self.outcome(model)
                days = self.days(model, outcome)
            except FreshDataError as error:
                self.failed(model, str(error))
            except Exception as error:  # noqa: BLE001 - whatever one model raises, the other models' results stand.
                self.failed(model, f"{type(error).__name__}: {error}", exc_info=error)
            else:
                yield self.result(model, outcome, days)
        if self.failures:
            raise dg.Failure(
                description="; ".join(f"{name}: {reason}" for name, reason in self.failures.items()),
                metadata={name: dg.MetadataValue.text(reason) for name, reason in self.failures.items()},
                allow_retries=False,
            )

    def failed(self, model: ModelInfo, reason: str, exc_info: BaseException | None = None) -> None:
        self.failures[model.name] = reason
        self.context.log.log(logging.ERROR, f"{model.name} failed: {reason}", exc_info=exc_info)

    def outcome(self, model: ModelInfo) -> ModelRun | None:
        """Run one model as the run asks; None when a live run finds it up to date."""
        if self.scope.live:
            # An earlier run of the same burst may have taken everything in: then SQLMesh need not even be loaded.
            if up_to_date(self.platform.catalog(), model):
                return None
            return self.transform.runner.run_live(model.name)
        if model.partition_column is None or self.scope.first is None or self.scope.last is None:
            return self.transform.runner.run_full(model.name)
        return self.transform.runner.run_partitions(model.name, self.scope.first, self.scope.last)

    def days(self, model: ModelInfo, outcome: ModelRun | None) -> dict[date, int]:
        """Rows of each day that the run covers or touched."""
        if model.partition_column is None:
            return {}
        done = outcome.partitions if outcome else {}
        missing = [day for day in self.scope.days if day not in done]
        return row_counts(self.platform.catalog().load_table(model.name), model.partition_column, missing) | done

    def result(self, model: ModelInfo, outcome: ModelRun | None, days: dict[date, int]) -> dg.MaterializeResult[Any]:
        key = asset_key(model.name)
        for day, rows in days.items():
            if day in self.scope.days:
                self.context.add_asset_metadata(_rows(rows), key, day.strftime(DAY_FORMAT))
            elif self.platform.has_day(day):
                # News that arrived after the run was requested, or belongs to another range of the same burst.
                self.context.log_event(
                    dg.AssetMaterialization(key, partition=day.strftime(DAY_FORMAT), metadata=_rows(rows))
                )
        if outcome is None:
            return dg.MaterializeResult(asset_key=key, metadata={"freshdata/note": "up to date"})
        self.block_downstream(model, outcome)
        return dg.MaterializeResult(
            asset_key=key,
            metadata=_metadata(outcome),
            data_version=dg.DataVersion(str(outcome.snapshot_id)),
            check_results=[
                dg.AssetCheckResult(
                    asset_key=key,
                    check_name=audit.name,
                    passed=audit.passed,
                    severity=dg.AssetCheckSeverity.ERROR if audit.blocking else dg.AssetCheckSeverity.WARN,
                    metadata={"freshdata/failing_rows": audit.count},
                )
                for audit in outcome.audits
                if dg.AssetCheckKey(key, audit.name) in self.context.selected_asset_check_keys
            ],
        )

    def block_downstream(self, model: ModelInfo, outcome: ModelRun) -> None:
        """A failed blocking audit stops the models downstream in this very op, which Dagster cannot do."""
        if broken := [audit.name for audit in outcome.audits if audit.blocking and not audit.passed]:
            self.failures[model.name] = f"failed its audit {', '.join(broken)}"


def _rows(rows: int) -> dict[str, int]:
    return {"dagster/partition_row_count": rows}


def _metadata(outcome: ModelRun) -> dict[str, Any]:
    return {
        "dagster/row_count": outcome.rows,
        "freshdata/mode": outcome.mode,
        "freshdata/days": len(outcome.partitions),
        "freshdata/seconds": round(outcome.seconds, 3),
        # An Iceberg snapshot id does not fit the numbers of a browser.
        "freshdata/snapshot_id": str(outcome.snapshot_id),
    } | ({"freshdata/note": outcome.note} if outcome.note else {})


@dg.definitions
def defs() -> dg.Definitions:
    """The Silver and Gold assets."""
    return dg.Definitions(assets=transform_assets(current_platform()))
