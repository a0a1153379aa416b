"""Run the Great Expectations part of a suite."""

from collections.abc import Sequence
from typing import Any

from freshdata.quality.library import great_expectations
from freshdata.quality.report import SAMPLE, RuleResult, plain
from freshdata.quality.rows import Rows
from freshdata.quality.rules import Expectation, Rule
from freshdata.quality.suites import Suite


def evaluate(rows: Rows, suite: Suite, rules: Sequence[Rule]) -> list[RuleResult]:
    """Evaluate rules whose check is an :class:`Expectation`.

    Args:
        rows: The rows; their columns include those the rules need.
        suite: The suite that the rules are of, for its name and the key shown with bad rows.
        rules: The rules.

    Raises:
        RuleError: a rule names an expectation that does not exist, or gives it wrong arguments.
        SuiteError: the same, in a file of one's own.
    """
    if not rules:
        return []
    gx = great_expectations()
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    expectations = {rule.id: _expectation(suite, rule) for rule in rules}
    results: dict[str, RuleResult] = {}
    left = list(rules)
    # Not every expectation can be asked of every engine: what the first cannot evaluate, the next is asked.
    for engine in rows.engines:
        # SUMMARY carries counts and the first bad keys; COMPLETE would also carry every bad row.
        outcome = engine(context, _needed(rows, suite, left)).validate(
            gx.ExpectationSuite(suite.name, [expectations[rule.id] for rule in left]),
            result_format={
                "result_format": "SUMMARY",
                "partial_unexpected_count": SAMPLE,
                "unexpected_index_column_names": _key(rows, suite),
            },
        )
        found = {result.expectation_config.meta["rule"]: result for result in outcome.results}
        for rule in left:
            result = _result(rule, found[rule.id], rows.count)
            if rule.id not in results or not result.error:
                results[rule.id] = result
        left = [rule for rule in left if results[rule.id].error]
        if not left:
            break
    return [results[rule.id] for rule in rules]


def _key(rows: Rows, suite: Suite) -> list[str]:
    return [key for key in suite.key if key in rows.columns]


def _needed(rows: Rows, suite: Suite, rules: Sequence[Rule]) -> list[str]:
    if any(not rule.columns or "row_condition" in _check(rule).kwargs for rule in rules):
        return list(rows.columns)
    named = {*_key(rows, suite), *(column for rule in rules for column in rule.columns)}
    return [column for column in rows.columns if column in named]


def _check(rule: Rule) -> Expectation:
    if not isinstance(rule.check, Expectation):
        raise TypeError(f"{rule.id} is not an expectation")
    return rule.check


def _expectation(suite: Suite, rule: Rule) -> Any:
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import get_expectation_impl
    from pydantic.v1 import ValidationError

    check = _check(rule)
    try:
        return get_expectation_impl(check.type)(**check.kwargs, meta={"rule": rule.id})
    except ExpectationNotFoundError as error:
        message = f"names {check.type}, which Great Expectations lacks."
        raise suite.error(rule, message, remedy="Correct the name.") from error
    except (ValidationError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise suite.error(
            rule, f"has wrong arguments: {text}.", remedy=f"See the arguments of {check.type}."
        ) from error


def _result(rule: Rule, found: Any, rows: int) -> RuleResult:
    detail = found.result or {}
    error = None if found.success else _error(found.exception_info or {})
    sample = detail.get("partial_unexpected_index_list") or [
        {"value": value} for value in detail.get("partial_unexpected_list") or []
    ]
    counted = detail.get("unexpected_count")
    observed = detail.get("observed_value")
    # An aggregate over no rows is none, and breaks no rule.
    nothing = rows == 0 and counted is None and observed is None and not error
    return RuleResult(
        rule=rule.id,
        severity=rule.severity,
        passed=bool(found.success) or nothing,
        bad=None if counted is None else int(counted),
        rows=rows,
        observed="" if observed is None else str(observed),
        sample=tuple(plain(row) for row in sample[:SAMPLE]),
        error=error,
    )


def _error(info: dict[str, Any]) -> str | None:
    """The message of an exception, which comes flat or once for each metric."""
    entries = [info] if "raised_exception" in info else [entry for entry in info.values() if isinstance(entry, dict)]
    for entry in entries:
        if entry.get("raised_exception"):
            return str(entry.get("exception_message")).strip().splitlines()[0]
    return None
