"""Judge rows by a suite."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date

from freshdata.intervals import day_of, each
from freshdata.quality.expectations import evaluate
from freshdata.quality.report import SAMPLE, QualityReport, RuleResult, plain
from freshdata.quality.rows import Ask, Rows
from freshdata.quality.rules import ROWS, DailyCount, Expectation, Query, Rule
from freshdata.quality.suites import Suite

MOST_DAYS = 500_000  # More than a thousand years.


def validate(rows: Rows, suite: Suite, *, days: Iterable[date] = ()) -> QualityReport:
    """Judge rows by every rule of a suite.

    Args:
        rows: The rows.
        suite: The suite.
        days: Days that must each keep the rules on a day's row count; rows of other days are not counted.

    Raises:
        RuleError: a rule is unusable, or needs a column that the rows lack.
        SuiteError: the same, in a file of one's own.
    """
    _require_columns(rows, suite)
    rules = suite.rules
    results = {
        result.rule: result
        for result in (
            *evaluate(rows, suite, [rule for rule in rules if isinstance(rule.check, Expectation)]),
            *_queries(rows, suite, [rule for rule in rules if not isinstance(rule.check, Expectation)], days),
        )
    }
    return QualityReport(rows.count, tuple(results[rule.id] for rule in rules))


def all_days(rows: Rows, column: str) -> Iterator[date]:
    """The days from the first to the last of which there are rows, by a column of days or hours."""
    with rows.asking() as ask:
        [ends] = ask(f'SELECT min("{column}") AS first, max("{column}") AS last FROM {ROWS}', 1).to_pylist()  # noqa: S608
    return each(day_of(ends["first"]), day_of(ends["last"])) if ends["first"] else iter(())


def _require_columns(rows: Rows, suite: Suite) -> None:
    for rule in suite.rules:
        if lacking := [column for column in rule.columns if column not in rows.columns]:
            remedy = f"Select it in the Silver model of {suite.name}, or move the rule out of the contract."
            raise suite.error(
                rule,
                f"needs the column {', '.join(lacking)}, which the table lacks.",
                remedy="Correct the column's name, or select it in the model." if rule.file else remedy,
            )


def _queries(rows: Rows, suite: Suite, rules: Sequence[Rule], days: Iterable[date]) -> Iterator[RuleResult]:
    if not rules:
        return
    with rows.asking() as ask:
        for rule in rules:
            try:
                if isinstance(rule.check, DailyCount):
                    yield _daily_count(ask, suite, rule, rule.check, sorted(set(days)))
                elif isinstance(rule.check, Query):
                    yield _query(ask, rows.count, rule, rule.check)
            except rows.refusals as error:
                yield _errored(rule, rows.count, str(error).strip().splitlines()[0])


def _query(ask: Ask, rows: int, rule: Rule, check: Query) -> RuleResult:
    answer = ask(check.sql, 2)
    number = answer.column(0)[0].as_py() if answer.shape == (1, 1) else ""
    if isinstance(number, str | bool):
        return _errored(rule, rows, "the query must return exactly one number")
    if number is None:  # An aggregate over no rows.
        return RuleResult(rule.id, rule.severity, rows == 0, None, rows, "null")
    passed = check.bounds.accept(number)
    counts = check.bounds.operators == {"=": 0}
    return RuleResult(
        rule=rule.id,
        severity=rule.severity,
        passed=passed,
        bad=int(number) if counts else None,
        rows=rows,
        observed="" if counts else f"{number} (must be {check.bounds})",
        sample=tuple(map(plain, ask(check.sample, SAMPLE).to_pylist())) if check.sample and not passed else (),
    )


def _daily_count(ask: Ask, suite: Suite, rule: Rule, check: DailyCount, days: Sequence[date]) -> RuleResult:
    field = suite.day_column
    query = f'SELECT "{field}" AS day, count(*) AS rows FROM {ROWS} GROUP BY 1'  # noqa: S608 - a contract's field.
    counts = {found["day"]: found["rows"] for found in ask(query, MOST_DAYS).to_pylist()}
    bad = [day for day in days if not check.bounds.accept(counts.get(day, 0))]
    return RuleResult(
        rule=rule.id,
        severity=rule.severity,
        passed=not bad,
        bad=len(bad),
        rows=len(days),
        observed=f"rows of each day must be {check.bounds}",
        sample=tuple({str(field): day.isoformat(), "rows": counts.get(day, 0)} for day in bad[:SAMPLE]),
    )


def _errored(rule: Rule, rows: int, error: str) -> RuleResult:
    return RuleResult(rule.id, rule.severity, passed=False, bad=None, rows=rows, error=error)
