"""What is unusual about the days of Silver streams and Gold tables, by the days before them.

It warns and never blocks: an unusual day may be a blizzard, and its rows are right. Nor does a live run wait for it: it
judges days that are over, once an hour, whether anything came or not. A day without a row is unusual too.
"""

from collections.abc import Iterator
from datetime import date, timedelta

import dagster as dg

from freshdata.contracts.model import AnomalyRules
from freshdata.lake.catalog import load_table
from freshdata.quality.anomalies import LEAST_DAYS, Finding, days_before, judge_days
from freshdata.quality.profiles import Profiles
from freshdata.transform.manifest import ModelInfo
from freshdata_assets.platform import Platform, asset_key, current_platform
from freshdata_assets.schemas import records
from freshdata_assets.scope import Scope

NAME = "anomalies"
HOURLY = "5 * * * *"
# What was found stays on the asset for a week, whatever runs in the meantime.
JUDGED_DAYS = 7
TOLD, SHOWN = 3, 500
COLUMNS = ("day", "column", "measure", "value", "expected", "verdict")


def anomaly_checks(platform: Platform) -> Iterator[dg.AssetChecksDefinition]:
    """One check for each stream's Silver model, and one for each Gold model with daily partitions."""
    for stream, model in platform.silver_streams:
        if model.daily and model.partition_column:
            keys = {*stream.primary_key, *stream.rules.dedupe_key}
            yield _check(platform, model, model.partition_column, stream.rules.anomalies, keys)
    for model in platform.models.values():
        if model.layer == "gold" and model.daily and model.partition_column:
            yield _check(platform, model, model.partition_column, most_tolerant(platform, model), set())


def most_tolerant(platform: Platform, model: ModelInfo) -> AnomalyRules:
    """What a Gold model goes by: the largest of the deviations that the streams it is made from allow."""
    rules = [stream.rules.anomalies for stream in platform.streams_of(model)] or [AnomalyRules()]
    return AnomalyRules(
        volume=max(each.volume for each in rules),
        nulls=max(each.nulls for each in rules),
        distribution=max(each.distribution for each in rules),
    )


def _check(
    platform: Platform, model: ModelInfo, day: str, rules: AnomalyRules, keys: set[str]
) -> dg.AssetChecksDefinition:
    # Keys differ in each row, and the columns of ingestion tell of the worker, not of the data.
    columns = [name for name in model.columns if name != day and name not in keys and not name.startswith("_")]

    hourly: dg.AutomationCondition[dg.AssetCheckKey] = dg.AutomationCondition.cron_tick_passed(HOURLY)

    @dg.asset_check(
        asset=asset_key(model.name),
        name=NAME,
        description=(
            "Rows, nulls and values of each day that is over are such as the four weeks before it let expect. "
            "Evaluated at five past each hour: until then, rows written since count as not evaluated."
        ),
        automation_condition=hourly,
    )
    def check_days(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        try:
            judged = judged_days(platform, model, Scope.of(context.run.tags))
            known = {when for each in judged for when in (each, *days_before(each))}
            table = load_table(platform.catalog(), model.name)
            profiles = Profiles(platform.settings.home / "profiles", table, day, columns)
            return _result(judge_days(judged, profiles.of(known), rules), profiles.computed)
        except Exception as error:  # What only warns does not fail a run.
            context.log.warning("The days of %s could not be judged", model.name, exc_info=error)
            return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, description=str(error))

    return check_days


def judged_days(platform: Platform, model: ModelInfo, scope: Scope) -> list[date]:
    """The days that a run's check judges: those of the run and the last seven, as far as they are over.

    A day is over at its end, in UTC, plus the time by which an event of it may be late.
    """
    lateness = [stream.rules.allowed_lateness for stream in platform.streams_of(model)]
    over = platform.clock.now() - max(lateness, default=timedelta(0))
    newest = over.date() - timedelta(days=1)
    recent = {newest - timedelta(days=number) for number in range(JUDGED_DAYS)}
    return sorted({day for day in scope.intervals if day <= newest} | recent)


def _result(findings: list[Finding], computed: list[date]) -> dg.AssetCheckResult:
    findings.sort(key=lambda finding: finding.day, reverse=True)
    anomalous = [finding for finding in findings if finding.anomalous]
    shown = [finding for finding in findings if finding.anomalous or finding.measure == "rows"]
    learning = sum(finding.verdict == "still learning" for finding in findings)
    return dg.AssetCheckResult(
        passed=not anomalous,
        severity=dg.AssetCheckSeverity.WARN,
        description=_describe(findings, anomalous, learning),
        metadata={
            "freshdata/findings": records(COLUMNS, map(_record, shown[:SHOWN])),
            "freshdata/anomalies": len(anomalous),
            "freshdata/measures": len(findings) - learning,
            "freshdata/days_learning": learning,
            "freshdata/days_read": len(computed),
        },
    )


def _describe(findings: list[Finding], anomalous: list[Finding], learning: int) -> str:
    if not findings:
        return "no day is over that has rows"
    if not anomalous:
        note = f"; {learning} days have fewer than {LEAST_DAYS} days before them: still learning" if learning else ""
        return f"all {len(findings) - learning} measures are in range{note}"
    told = [
        f"{finding.day} {finding.column} {finding.measure} {_number(finding.value)} (expected {_expected(finding)})"
        for finding in anomalous[:TOLD]
    ]
    more = f", {len(anomalous) - TOLD} more" if len(anomalous) > TOLD else ""
    return "; ".join(" ".join(each.split()) for each in told) + more


def _record(finding: Finding) -> dict[str, str]:
    return {
        "day": finding.day.isoformat(),
        "column": finding.column,
        "measure": finding.measure,
        "value": _number(finding.value),
        "expected": _expected(finding),
        "verdict": finding.verdict,
    }


def _expected(finding: Finding) -> str:
    if finding.low is None or finding.high is None:
        return ""
    return f"{_number(finding.low)} to {_number(finding.high)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@dg.definitions
def defs() -> dg.Definitions:
    """The checks that learn, and the sensor that has them run."""
    checks = list(anomaly_checks(current_platform()))
    sensor = dg.AutomationConditionSensorDefinition(
        "hourly_checks",
        target=dg.AssetSelection.checks(*(key for check in checks for key in check.check_keys)),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=60,
        description="Runs the checks of days that are over once an hour.",
    )
    return dg.Definitions(asset_checks=checks, sensors=[sensor])
