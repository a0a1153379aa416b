"""What the last verdicts on a table's rows say, whichever run they are of: Dagster's steps heed those of one run."""

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from datetime import date

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as Status

from freshdata.intervals import each, ranges

REFUSED_DAYS = "freshdata/refused_days"
NONE = "none"
LOOKED_AT = 20


def last_verdict(instance: dg.DagsterInstance, check: dg.AssetCheckKey) -> dg.AssetCheckEvaluation | None:
    """The last verdict of a check, if there is one."""
    return next(_verdicts(instance, check), None)


def standing(last: dg.AssetCheckEvaluation, severity: dg.AssetCheckSeverity) -> dg.AssetCheckResult:
    """A check's last verdict as that of a run in which its rows have not changed.

    Args:
        last: The verdict.
        severity: How severe it is by now.
    """
    return dg.AssetCheckResult(
        asset_key=last.asset_key,
        check_name=last.check_name,
        passed=last.passed,
        severity=severity,
        metadata=last.metadata,
        description="As last evaluated: its rows have not changed since.",
    )


def refusal(
    instance: dg.DagsterInstance, check: dg.AssetCheckKey, days: AbstractSet[date] | None, *, live: bool
) -> str | None:
    """Why a check's last verdict keeps rows from being read; None if it does not.

    Args:
        instance: Where the verdicts are.
        check: The check.
        days: The days that would be read; None for all.
        live: Whether a live run would read what is new: the last verdict is on all of that.
    """
    last = last_verdict(instance, check)
    if last is None:
        return None
    refused = None if live else _refused_days(last)
    if refused is not None:
        refused = refused if days is None else refused & days
        stands = bool(refused)
    else:
        stands = not last.passed and last.severity is dg.AssetCheckSeverity.ERROR
    if not stands:
        return None
    told = _text(refused) if refused else ""
    found = f": {last.description}" if last.description and not last.passed else ""
    return f"{'.'.join(check.asset_key.path)} failed its check {check.name}{told and f' on {told}'}{found}"


def still_refused(
    instance: dg.DagsterInstance, check: dg.AssetCheckKey, judged: Iterable[date], *, refused: bool
) -> dict[str, str]:
    """What a verdict tells of days: those that it refuses, and those refused before on which it is not.

    Args:
        instance: Where the verdicts before are.
        check: The check.
        judged: The days that the new verdict is on.
        refused: Whether it refuses them.
    """
    told = (days for verdict in _verdicts(instance, check) if (days := _refused_days(verdict)) is not None)
    before = next(told, set()).difference(judged)
    return {REFUSED_DAYS: _text(before.union(judged) if refused else before) or NONE}


def _verdicts(instance: dg.DagsterInstance, check: dg.AssetCheckKey) -> Iterator[dg.AssetCheckEvaluation]:
    """The last verdicts of a check, newest first."""
    # A run that plans a check has a record of it for each of its partitions, and never evaluates these.
    judged = {Status.SUCCEEDED, Status.FAILED}
    for record in instance.event_log_storage.get_asset_check_execution_history(check, LOOKED_AT, status=judged):
        if isinstance(record.evaluation, dg.AssetCheckEvaluation):
            yield record.evaluation


def _refused_days(verdict: dg.AssetCheckEvaluation) -> set[date] | None:
    """The days that stood refused after a verdict; None if it does not tell days."""
    if REFUSED_DAYS not in verdict.metadata:
        return None
    pairs = (pair.split(" to ") for pair in str(verdict.metadata[REFUSED_DAYS].value).split(", ") if pair != NONE)
    return {day for pair in pairs for day in each(date.fromisoformat(pair[0]), date.fromisoformat(pair[-1]))}


def _text(days: Iterable[date]) -> str:
    return ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in ranges(days))
