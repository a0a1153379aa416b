"""Blocking checks between Silver and Gold: a contract's quality rules on the rows that Gold would take in."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg
import pyarrow.compute as pc

from freshdata.contracts import Contract
from freshdata.errors import FreshDataError
from freshdata.intervals import day_of, each
from freshdata.lake.catalog import load_table
from freshdata.lake.changes import touched_dates
from freshdata.lake.cursors import read_cursor
from freshdata.quality import QualityReport, RuleResult, validate
from freshdata.quality.validate import columns_of
from freshdata.transform.manifest import ModelInfo
from freshdata.transform.retry import passes
from freshdata_assets.defs.resources import RETRIES
from freshdata_assets.live import rows_of_days
from freshdata_assets.platform import Platform, asset_key, current_platform
from freshdata_assets.schemas import records
from freshdata_assets.scope import Scope

NAME = "contract_rules"
RECORD = ("rule", "outcome", "severity", "bad", "rows", "detail", "sample")


@dataclass(frozen=True)
class Extent:
    """Which rows a check looks at.

    Attributes:
        days: Days whose rows are checked; None for all.
        judged: Days that must each have as many rows as the contract asks; None for all between the first and the last.
        why: What the choice follows from.
    """

    days: frozenset[date] | None
    judged: frozenset[date] | None
    why: str


def quality_checks(platform: Platform) -> Iterator[dg.AssetChecksDefinition]:
    """One check for each stream's Silver model."""
    for stream, model in platform.silver_streams:
        yield _check(platform, stream, model)


def _check(platform: Platform, stream: Contract, model: ModelInfo) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(model.name),
        name=NAME,
        blocking=True,
        retry_policy=RETRIES,
        description=f"Every quality rule of the contract {stream.name}; errors keep Gold from taking the rows in.",
    )
    def check_rules(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        try:
            return _judge(platform, stream, model, Scope.of(context.run.tags))
        except Exception as error:
            if passes(error) and context.op_execution_context.retry_number < RETRIES.max_retries:
                raise
            if not isinstance(error, FreshDataError):
                raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False) from error
            # Shown on the asset like any other verdict, instead of as a crashed step.
            return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.ERROR, description=str(error))

    return check_rules


def _judge(platform: Platform, stream: Contract, model: ModelInfo, scope: Scope) -> dg.AssetCheckResult:
    table = load_table(platform.catalog(), model.name)
    column = str(model.partition_column)
    extent = check_extent(platform, model, scope)
    rows = rows_of_days(table, model, extent.days, {*columns_of(stream), stream.rules.event_date_field, column})
    judged = extent.judged
    if judged is None:
        # The rows of a table without days are what is there now: no day must have any.
        judged = _all_days(pc.min_max(rows[column]).as_py()) if model.partition_column else frozenset()
    # A day that is not over may still get its rows.
    today = platform.clock.now().date()
    report = validate(rows, stream, days=(day for day in judged if day < today))
    return dg.AssetCheckResult(
        passed=report.passed,
        severity=dg.AssetCheckSeverity.ERROR if report.blocks else dg.AssetCheckSeverity.WARN,
        description=report.summary(),
        metadata=_metadata(report, extent),
    )


def check_extent(platform: Platform, model: ModelInfo, scope: Scope) -> Extent:
    """Which rows of a Silver table a run's check must look at."""
    run_days = frozenset(map(day_of, scope.intervals))
    if not scope.live:
        if run_days:
            return Extent(run_days, run_days, "the run's days")
        return Extent(None, None, "the whole table")
    pending = gold_would_take_in(platform, model)
    if pending is None:
        return Extent(None, None, "the whole table: what Gold would take in cannot be told")
    # Another stream's news may have given the run days on which this stream has nothing new, or nothing yet.
    return Extent(pending | run_days, pending, "what Gold would take in, and the run's days")


def gold_would_take_in(platform: Platform, model: ModelInfo) -> frozenset[date] | None:
    """The days of a Silver table between the cursors of the tables made from it and its head; None for all."""
    if model.partition_column is None:
        return None
    catalog = platform.catalog()
    silver = load_table(catalog, model.name)
    days: set[date] = set()
    for downstream in platform.models.values():
        if model.name not in downstream.depends_on:
            continue
        cursor = read_cursor(load_table(catalog, downstream.name)) if catalog.table_exists(downstream.name) else None
        touched = touched_dates(silver, model.partition_column, cursor.upstream.get(model.name) if cursor else None)
        if touched is None:
            return None
        days |= set(map(day_of, touched))
    return frozenset(days)


def _all_days(ends: dict[str, date | None]) -> frozenset[date]:
    first, last = ends["min"], ends["max"]
    if first is None or last is None:
        return frozenset()
    return frozenset(each(day_of(first), day_of(last)))


def _metadata(report: QualityReport, extent: Extent) -> dict[str, Any]:
    return {
        "freshdata/rows": report.rows,
        # Of thirty rules the few that failed are what one looks for.
        "freshdata/rules": records(
            RECORD, map(_record, sorted(report.results, key=lambda result: result.passed)), numbers=("bad", "rows")
        ),
        "freshdata/failed": len(report.failed),
        "freshdata/errored": len(report.errored),
        "freshdata/extent": extent.why,
        "freshdata/days": "all" if extent.days is None else len(extent.days),
    }


def _record(result: RuleResult) -> dict[str, Any]:
    outcome = "passed" if result.passed else "could not be evaluated" if result.error else "failed"
    bad = -1 if result.bad is None else result.bad
    sample = json.dumps(result.sample) if result.sample else ""
    values = (result.rule, outcome, result.severity, bad, result.rows, result.error or result.observed, sample)
    return dict(zip(RECORD, values, strict=True))


@dg.definitions
def defs() -> dg.Definitions:
    """The quality checks."""
    return dg.Definitions(asset_checks=list(quality_checks(current_platform())))
