"""Silver and Gold: one op a layer over the SQLMesh models.

A blocking check on Silver keeps Gold from running only between two ops: inside one op, checks come after everything.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import date
from typing import Any, TypeVar

import dagster as dg
from pyiceberg.exceptions import NoSuchTableError

from freshdata.errors import FreshDataError
from freshdata.intervals import day_of, each, length
from freshdata.transform.keyed import row_counts as counts_of_files
from freshdata.transform.manifest import AuditInfo, ModelInfo, calendar_of
from freshdata.transform.results import AuditResult, ModelRun
from freshdata.transform.retry import passes
from freshdata.transform.runner import Runner
from freshdata_assets.defs.quality.checks import CONTRACT_RULES, EXPECTATIONS
from freshdata_assets.defs.resources import RETRIES, Transform
from freshdata_assets.live import row_counts, up_to_date
from freshdata_assets.platform import (
    Platform,
    asset_key,
    contract_metadata,
    current_platform,
    freshness_policy,
    key_of,
)
from freshdata_assets.schema_check import SCHEMA_CHECK, model_verdict
from freshdata_assets.scope import Scope
from freshdata_assets.specs import model_spec
from freshdata_assets.verdicts import last_verdict, refusal, standing

MOST_TOLD = 400  # Days or hours in a line of a run's log.
AnyAudit = TypeVar("AnyAudit", AuditInfo, AuditResult)


def transform_assets(platform: Platform) -> list[dg.AssetsDefinition]:
    """One op for each layer's hourly and daily models, for those that follow them, and for those that have no days."""
    kinds = {"hour": "hourly", "day": "daily"}
    groups: dict[str, list[ModelInfo]] = {}
    for model in platform.models.values():
        follows = "following" if calendar_of(platform.models, model) else "whole"
        kind = kinds[model.granularity] if model.granularity else follows
        groups.setdefault(f"{model.layer}_{kind}", []).append(model)
    return [_layer(platform, name, models) for name, models in groups.items()]


def _layer(platform: Platform, name: str, models: list[ModelInfo]) -> dg.AssetsDefinition:
    granularity = models[0].granularity

    @dg.multi_asset(
        name=name,
        specs=[_spec(platform, model) for model in models],
        check_specs=[spec for model in models for spec in check_specs(platform, model)],
        partitions_def=platform.calendars[granularity] if granularity else None,
        # Also of what has no days: `dg launch` takes a range only when all that it launches has this policy.
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
        retry_policy=RETRIES,
    )
    def run_models(
        context: dg.AssetExecutionContext, transform: Transform
    ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        yield from _Layer(platform, context, transform).run(models)

    return run_models


def _spec(platform: Platform, model: ModelInfo) -> dg.AssetSpec:
    stream = next((stream for stream, silver in platform.silver_streams if silver == model), None)
    slas = [stream.rules.freshness for stream in platform.streams_of(model)]
    return model_spec(
        model,
        [_dep(platform, model, upstream) for upstream in model.depends_on],
        {"sqlmesh", "iceberg"},
        contract_metadata(platform, stream) if stream else {},
        freshness_policy=freshness_policy(min(slas)) if slas else None,
    )


def check_specs(platform: Platform, model: ModelInfo) -> Iterator[dg.AssetCheckSpec]:
    """The checks that are made by the op of a model: its audits, and that of its columns."""
    for name, audit in numbered(model.audits):
        yield dg.AssetCheckSpec(
            name,
            asset=asset_key(model.name),
            blocking=audit.blocking,
            description=f"No row fails the audit {audit.name} of {model.path}.",
        )
    yield dg.AssetCheckSpec(
        SCHEMA_CHECK,
        asset=asset_key(model.name),
        # What is made from a table with a missing column, or one of another type, would be wrong as well.
        blocking=any(model.name in other.depends_on for other in platform.models.values()),
        description="The table has the columns of its model, and those it shares with a contract fit the contract.",
    )


def _dep(platform: Platform, model: ModelInfo, upstream: str) -> dg.AssetDep:
    if model.granularity and upstream not in platform.models and not upstream.startswith("lookup."):
        # A day's events may have been ingested on any day: Bronze has another calendar.
        return dg.AssetDep(asset_key(upstream), partition_mapping=dg.AllPartitionMapping())
    if model.daily and upstream in platform.models and platform.models[upstream].granularity == "hour":
        with warnings.catch_warnings():
            # In beta, and needed: the present day has hours that are yet to come, and backfills refuse it without.
            warnings.simplefilter("ignore", dg.BetaWarning)
            mapping = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)
        return dg.AssetDep(asset_key(upstream), partition_mapping=mapping)
    return dg.AssetDep(asset_key(upstream))


class _Layer:
    """Runs a step's models one after another; one model's failure does not hide the others' success."""

    def __init__(self, platform: Platform, context: dg.AssetExecutionContext, transform: Transform) -> None:
        self.platform = platform
        self.context = context
        self.transform = transform
        self.scope = Scope.of(context.run.tags)
        self.failures: dict[str, str] = {}
        self.lasting = False

    def run(self, models: Iterable[ModelInfo]) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        """Yield each model's result as it completes, and if it fails what its check of columns says.

        Raises:
            dagster.Failure: some models failed; it names them. Worth another attempt if none of them would fail again.
        """
        for model in models:
            if asset_key(model.name) not in self.context.selected_asset_keys:
                yield from self.schema(model)  # It may have been asked for alone.
                continue
            if culprits := [name for name in model.depends_on if name in self.failures]:
                self.failures[model.name] = f"not run, because {', '.join(culprits)} failed"
                continue
            if refused := [reason for name in model.depends_on if (reason := self.refusal(model, name))]:
                remedy = "Mend the rows, and materialize them with this model: their checks come first."
                self.failures[model.name] = f"not run, because {'; '.join(refused)}. {remedy}"
                self.lasting = True
                continue
            try:
                outcome = self.audited(model, self.outcome(model))
                rows = self.rows(model, outcome)
            except Exception as error:  # noqa: BLE001 - whatever one model raises, the other models' results stand.
                self.failed(model, error)
                yield from self.schema(model)  # A column that is gone fails the query before it fails the check.
            else:
                self.context.log.info(_told(model, outcome, rows))
                yield self.result(model, outcome, rows)
        if self.failures:
            self.transform.close()
            raise dg.Failure(
                description="; ".join(f"{name}: {reason}" for name, reason in self.failures.items()),
                metadata={name: dg.MetadataValue.text(reason) for name, reason in self.failures.items()},
                allow_retries=not self.lasting,
            )

    def failed(self, model: ModelInfo, error: Exception) -> None:
        known = isinstance(error, FreshDataError)
        self.failures[model.name] = reason = str(error) if known else f"{type(error).__name__}: {error}"
        self.lasting = self.lasting or not passes(error)
        self.context.log.error("%s failed: %s", model.name, reason, exc_info=None if known else error)

    def refusal(self, model: ModelInfo, name: str) -> str | None:
        """Why an upstream model's rows must not be read; None if nothing speaks against it.

        Its checks may have been made by another run, so that Dagster's steps do not stand in the way.
        """
        upstream = self.platform.models.get(name)
        # A live run has the checks of its own calendar itself, and every look into the event log holds it up.
        if upstream is None or (self.scope.live and upstream.granularity in (None, model.granularity)):
            return None
        days = None
        if model.partition_column and self.scope.first is not None and self.scope.last is not None:
            first, last = model.period.whole(self.scope.first, self.scope.last)
            days = set(map(day_of, each(first - length(first) * (model.period.window - 1), last)))
        audits = (audit for audit, _ in numbered(upstream.audits))
        for check in (*audits, SCHEMA_CHECK, CONTRACT_RULES, EXPECTATIONS):
            key = dg.AssetCheckKey(asset_key(name), check)
            if found := refusal(self.context.instance, key, days, live=self.scope.live):
                return found
        return None

    @property
    def runner(self) -> Runner:
        return self.transform.runner(self.context.run.run_id)

    def outcome(self, model: ModelInfo) -> ModelRun | None:
        """Run one model as the run asks; None when a live run finds it up to date."""
        if self.scope.live:
            # An earlier run of the same burst may have taken everything in: then SQLMesh need not even be loaded.
            if up_to_date(self.platform.catalog(), model):
                return None
            return self.runner.run_live(model.name)
        if model.partition_column is None or self.scope.first is None or self.scope.last is None:
            return self.runner.run_full(model.name)
        return self.runner.run_partitions(model.name, self.scope.first, self.scope.last, tenant=self.scope.tenant)

    def audited(self, model: ModelInfo, outcome: ModelRun | None) -> ModelRun | None:
        """The run with its audits taken over the whole table, when a blocking one has refused rows before.

        A run audits the days it touched. Days that an earlier run's audit refused would pass with the next news of any
        other day, and Gold would take them in.
        """
        if outcome is None or not outcome.audits:
            return outcome
        verdicts = [
            last_verdict(self.context.instance, dg.AssetCheckKey(asset_key(model.name), name))
            for name, audit in numbered(model.audits)
            if audit.blocking
        ]
        if all(verdict is None or verdict.passed for verdict in verdicts):
            return outcome
        return replace(outcome, audits=self.runner.audit(model.name))

    def rows(self, model: ModelInfo, outcome: ModelRun | None) -> dict[date, int]:
        """Rows of each day or hour that the run covers or touched."""
        if not model.granularity:
            return {}
        done = outcome.partitions if outcome else {}
        missing = [interval for interval in self.scope.intervals if interval not in done]
        return row_counts(self.platform.catalog().load_table(model.name), str(model.partition_column), missing) | done

    def result(self, model: ModelInfo, outcome: ModelRun | None, rows: dict[date, int]) -> dg.MaterializeResult[Any]:
        key = asset_key(model.name)
        for interval, count in rows.items():
            if self.scope.covers(interval):
                self.context.add_asset_metadata(_rows(count), key, key_of(interval))
            elif self.platform.has(interval):
                # News that arrived after the run was requested, or belongs to another range of the same burst.
                self.context.log_event(dg.AssetMaterialization(key, partition=key_of(interval), metadata=_rows(count)))
        verdicts = list(self.verdicts(model, outcome))
        verdicts += [(found, found.severity is dg.AssetCheckSeverity.ERROR) for found in self.schema(model)]
        if broken := [str(found.check_name) for found, blocking in verdicts if blocking and not found.passed]:
            # Stops the models downstream in this very op; Dagster stops those of other ops.
            self.failures[model.name] = f"failed its check {', '.join(broken)}"
            self.lasting = True
        return dg.MaterializeResult(
            asset_key=key,
            metadata=_metadata(model, outcome) if outcome else self.unchanged(model),
            data_version=dg.DataVersion(str(outcome.snapshot_id)) if outcome else None,
            check_results=[found for found, _ in verdicts],
        )

    def unchanged(self, model: ModelInfo) -> dict[str, Any]:
        """What there is to tell of a model that was up to date; the UI shows a table's rows by its last run alone."""
        table = self.platform.catalog().load_table(model.name)
        days = counts_of_files(table, str(model.partition_column))
        told = {"freshdata/note": "up to date", "freshdata/location": dg.MetadataValue.path(table.location())}
        return told | ({} if days is None else {"dagster/row_count": sum(days.values())})

    def verdicts(self, model: ModelInfo, outcome: ModelRun | None) -> Iterator[tuple[dg.AssetCheckResult, bool]]:
        """The outcome of each selected audit, and whether it blocks.

        An audit whose rows did not change was not run. Its last verdict stands: without one, Dagster would let Gold
        take in the rows that an earlier run's audit had refused.
        """
        done = dict(numbered(outcome.audits)) if outcome else {}
        for name, audit in numbered(model.audits):
            check = dg.AssetCheckKey(asset_key(model.name), name)
            if check not in self.context.selected_asset_check_keys:
                continue
            severity = dg.AssetCheckSeverity.ERROR if audit.blocking else dg.AssetCheckSeverity.WARN
            last = None if name in done else last_verdict(self.context.instance, check)
            if name in done:
                found = dg.AssetCheckResult(
                    asset_key=check.asset_key,
                    check_name=name,
                    passed=done[name].passed,
                    severity=severity,
                    metadata={"freshdata/failing_rows": done[name].count},
                )
            elif last is not None:
                found = standing(last, severity)
            else:
                continue  # Nothing has ever been written.
            yield found, audit.blocking

    def schema(self, model: ModelInfo) -> Iterator[dg.AssetCheckResult]:
        """The outcome of the check of the table's columns, if it is selected and there is a table."""
        check = dg.AssetCheckKey(asset_key(model.name), SCHEMA_CHECK)
        if check in self.context.selected_asset_check_keys:
            with suppress(NoSuchTableError):
                yield model_verdict(self.platform, model).result(check)


def numbered(audits: Iterable[AnyAudit]) -> Iterator[tuple[str, AnyAudit]]:
    """Audits with the names of their checks: a model may use one audit several times, on other columns."""
    seen: Counter[str] = Counter()
    for audit in audits:
        seen[audit.name] += 1
        yield (audit.name if seen[audit.name] == 1 else f"{audit.name}_{seen[audit.name]}"), audit


def _told(model: ModelInfo, outcome: ModelRun | None, rows: dict[date, int]) -> str:
    """What became of a model, for the run's log: whoever launched it in a terminal sees nothing of its metadata."""
    each = ", ".join(f"{key_of(interval)} {count:,}" for interval, count in sorted(rows.items())[:MOST_TOLD])
    more = f" and {len(rows) - MOST_TOLD:,} more" if len(rows) > MOST_TOLD else ""
    done = f"{outcome.rows:,} rows after {outcome.seconds:.1f} s" if outcome else "up to date"
    return f"{model.name}: {done}" + (f"; rows of each of its {len(rows)} {_unit(model)}: {each}{more}" if each else "")


def _unit(model: ModelInfo) -> str:
    return "hours" if model.granularity == "hour" else "days"


def _rows(rows: int) -> dict[str, int]:
    return {"dagster/partition_row_count": rows}


def _metadata(model: ModelInfo, outcome: ModelRun) -> dict[str, Any]:
    return {
        "dagster/row_count": outcome.rows,
        "freshdata/location": dg.MetadataValue.path(outcome.location),
        "freshdata/mode": outcome.mode,
        f"freshdata/{_unit(model)}": len(outcome.partitions),
        "freshdata/seconds": round(outcome.seconds, 3),
        # An Iceberg snapshot id does not fit the numbers of a browser.
        "freshdata/snapshot_id": str(outcome.snapshot_id),
    } | ({"freshdata/note": outcome.note} if outcome.note else {})


@dg.definitions
def defs() -> dg.Definitions:
    """The Silver and Gold assets."""
    return dg.Definitions(assets=transform_assets(current_platform()))
