"""Blocking checks between Silver and Gold: a contract's quality rules on the rows that Gold would take in.

Expectations of one's own join them; on other models they are a check of their own.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg
from pyiceberg.table import Table

from freshdata.contracts import Contract
from freshdata.errors import FreshDataError
from freshdata.intervals import day_of
from freshdata.lake.catalog import load_table
from freshdata.lake.changes import touched_dates
from freshdata.lake.cursors import read_cursor
from freshdata.quality import ArrowRows, QualityReport, Rule, RuleResult, Suite, suite_of, validate
from freshdata.quality.page import write_page
from freshdata.quality.rows import Rows
from freshdata.quality.validate import all_days
from freshdata.transform.manifest import ModelInfo
from freshdata.transform.retry import passes
from freshdata_assets.defs.resources import RETRIES
from freshdata_assets.live import rows_of_days
from freshdata_assets.platform import PAGES_ROUTE, Platform, asset_key, current_platform
from freshdata_assets.schemas import records
from freshdata_assets.scope import Scope
from freshdata_assets.verdicts import last_verdict, standing, still_refused

CONTRACT_RULES, EXPECTATIONS = "contract_rules", "expectations"
RECORD = ("rule", "outcome", "severity", "bad", "rows", "detail", "sample", "asks", "from")


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

    def told(self) -> str:
        """Which rows, in words."""
        if not self.days:
            return self.why
        days = (
            f"{len(self.days)} days from {min(self.days)} to {max(self.days)}"
            if len(self.days) > 1
            else f"{min(self.days)}"
        )
        return f"{self.why}: {days}"


def rule_checks(platform: Platform) -> dict[str, str]:
    """The name of the check on the rows of each model that has one: of a contract's rules, or of one's own."""
    streams = {model.name for _, model in platform.silver_streams}
    return {
        name: CONTRACT_RULES if name in streams else EXPECTATIONS
        for name in platform.models
        if name in streams or name in platform.own_suites
    }


def quality_checks(platform: Platform) -> Iterator[dg.AssetChecksDefinition]:
    """One check for each stream's Silver model, and for each other model with expectations of one's own."""
    streams = {model.name: stream for stream, model in platform.silver_streams}
    for model, name in rule_checks(platform).items():
        yield _check(platform, platform.models[model], name, streams.get(model))


def _check(platform: Platform, model: ModelInfo, name: str, stream: Contract | None) -> dg.AssetChecksDefinition:
    file = platform.own_suites.get(model.name)
    told = f"every quality rule of the contract {stream.name}" if stream else ""
    own = f"every expectation of {file.parent.name}/{file.name}" if file else ""
    rules = " and ".join(filter(None, (told, own)))

    @dg.asset_check(
        asset=asset_key(model.name),
        name=name,
        blocking=True,
        retry_policy=RETRIES,
        description=f"{rules[0].upper()}{rules[1:]}; errors keep what is downstream from taking the rows in.",
    )
    def check_rules(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        try:
            return _judge(platform, model, suite_of(model, stream, file), context)
        except Exception as error:
            if passes(error) and context.op_execution_context.retry_number < RETRIES.max_retries:
                raise
            if not isinstance(error, FreshDataError):
                raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False) from error
            # Shown on the asset like any other verdict, instead of as a crashed step.
            return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.ERROR, description=str(error))

    return check_rules


def _judge(
    platform: Platform, model: ModelInfo, suite: Suite, context: dg.AssetCheckExecutionContext
) -> dg.AssetCheckResult:
    table, scope = load_table(platform.catalog(), model.name), Scope.of(context.run.tags)
    extent = check_extent(platform, model, scope)
    (check,) = context.selected_asset_check_keys
    if scope.live and extent.judged == frozenset() and (last := last_verdict(context.instance, check)):
        # Another table's news brought the run about, and the check with it.
        return standing(last, last.severity)
    with _rows(platform, table, model, suite, extent) as rows:
        judged = extent.judged
        if judged is None:
            # The rows of a table without days are what is there now: no day must have any.
            judged = frozenset(all_days(rows, model.partition_column) if model.partition_column else ())
        # A day that is not over may still get its rows.
        today = platform.clock.now().date()
        report = validate(rows, suite, days=(day for day in judged if day < today))
    days = judged if extent.days is None else extent.days
    return dg.AssetCheckResult(
        passed=report.passed,
        severity=dg.AssetCheckSeverity.ERROR if report.blocks else dg.AssetCheckSeverity.WARN,
        description=report.summary(),
        metadata=_metadata(report, suite, extent)
        | (still_refused(context.instance, check, days, refused=report.blocks) if model.granularity else {})
        | _page(platform, model, report, suite, {"extent": extent.told(), "run": context.run.run_id}),
    )


@contextmanager
def _rows(platform: Platform, table: Table, model: ModelInfo, suite: Suite, extent: Extent) -> Iterator[Rows]:
    names = table.schema().column_names
    wanted = {*suite.columns(names), model.partition_column}
    fields = [name for name in names if name in wanted]
    if platform.settings.engine == "spark":
        from freshdata.quality.spark import spark_rows

        with spark_rows(platform.settings, table, model, extent.days, fields) as rows:
            yield rows
    else:
        yield ArrowRows(rows_of_days(table, model, extent.days, fields))


def check_extent(platform: Platform, model: ModelInfo, scope: Scope) -> Extent:
    """Which rows of a model's table a run's check must look at."""
    if not model.granularity:
        return Extent(None, None, "the whole table: it is not made day by day")
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
    if silver.current_snapshot() is None:
        return frozenset()
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


def _metadata(report: QualityReport, suite: Suite, extent: Extent) -> dict[str, Any]:
    # Of thirty rules the few that failed are what one looks for.
    rules = sorted(zip(report.results, suite.rules, strict=True), key=lambda each: each[0].passed)
    return {
        "freshdata/rows": report.rows,
        "freshdata/rules": records(RECORD, (_record(*each) for each in rules), numbers=("bad", "rows")),
        "freshdata/failed": len(report.failed),
        "freshdata/errored": len(report.errored),
        "freshdata/extent": extent.why,
        "freshdata/days": "all" if extent.days is None else len(extent.days),
    }


def _page(
    platform: Platform, model: ModelInfo, report: QualityReport, suite: Suite, facts: dict[str, str]
) -> dict[str, Any]:
    """A link to the rendered report of a validation that found something; no other run need wait for one."""
    if report.passed:
        return {}
    path = write_page(platform.settings.pages_dir / "quality", model.name, report, suite, facts)
    link = f"{PAGES_ROUTE}/{path.relative_to(platform.settings.pages_dir)}"
    return {"freshdata/report": dg.MetadataValue.url(link), "freshdata/report_file": dg.MetadataValue.path(path)}


def _record(result: RuleResult, rule: Rule) -> dict[str, Any]:
    outcome = "passed" if result.passed else "could not be evaluated" if result.error else "failed"
    bad = -1 if result.bad is None else result.bad
    sample = json.dumps(result.sample) if result.sample else ""
    detail = result.error or result.observed
    source = rule.file or "contract"
    values = (result.rule, outcome, result.severity, bad, result.rows, detail, sample, str(rule.check), source)
    return dict(zip(RECORD, values, strict=True))


@dg.definitions
def defs() -> dg.Definitions:
    """The quality checks."""
    return dg.Definitions(asset_checks=list(quality_checks(current_platform())))
