"""Check rows against a contract."""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

import pyarrow as pa

from freshdata.contracts import Contract
from freshdata.errors import RuleError
from freshdata.quality.expectations import SAMPLE, evaluate, plain
from freshdata.quality.report import QualityReport, RuleResult
from freshdata.quality.rules import ROWS, DailyCount, Expectation, Query, Rule, rules_of


def validate(table: pa.Table, contract: Contract, *, days: Iterable[date] = ()) -> QualityReport:
    """Check rows against every rule of a contract.

    Args:
        table: The rows.
        contract: The contract.
        days: Days that must each keep the rules on a day's row count; rows of other days are not counted.

    Raises:
        RuleError: a rule is unusable, or needs a column that the rows lack.
    """
    rules = rules_of(contract)
    _require_columns(table, contract, rules)
    results = {
        result.rule: result
        for result in (
            *evaluate(table, contract, [rule for rule in rules if isinstance(rule.check, Expectation)]),
            *_queries(table, contract, [rule for rule in rules if not isinstance(rule.check, Expectation)], days),
        )
    }
    return QualityReport(table.num_rows, tuple(results[rule.id] for rule in rules))


def columns_of(contract: Contract) -> tuple[str, ...]:
    """The columns to read for :func:`validate`: a SQL rule may name any field, and rows are counted by day."""
    days = (contract.stream.event_date_field,) if contract.stream else ()
    return tuple(dict.fromkeys((*contract.stored_schema.names, *days)))


def _require_columns(table: pa.Table, contract: Contract, rules: Sequence[Rule]) -> None:
    for rule in rules:
        if lacking := [column for column in rule.columns if column not in table.column_names]:
            raise RuleError(
                contract.name,
                rule.id,
                f"needs the column {', '.join(lacking)}, which the table lacks.",
                remedy=f"Select it in the Silver model of {contract.name}, or move the rule out of the contract.",
            )


def _queries(table: pa.Table, contract: Contract, rules: Sequence[Rule], days: Iterable[date]) -> list[RuleResult]:
    import duckdb

    if not rules:
        return []
    with duckdb.connect(":memory:") as connection:
        connection.register(ROWS, table)
        # A contract's query sees the rows and nothing else of the machine.
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        results = []
        for rule in rules:
            try:
                results.append(_query(connection, table, contract, rule, days))
            except duckdb.Error as error:
                results.append(_errored(rule, table.num_rows, str(error).strip().splitlines()[0]))
    return results


def _query(connection: Any, table: pa.Table, contract: Contract, rule: Rule, days: Iterable[date]) -> RuleResult:
    if isinstance(rule.check, DailyCount):
        return _daily_count(connection, contract, rule, rule.check, sorted(set(days)))
    check = rule.check
    if not isinstance(check, Query):
        raise TypeError(f"{rule.id} is not a query")
    answer = connection.execute(check.sql).fetchall()
    if len(answer) != 1 or len(answer[0]) != 1 or isinstance(answer[0][0], str | bool):
        return _errored(rule, table.num_rows, "the query must return exactly one number")
    number = answer[0][0]
    if number is None:  # An aggregate over no rows.
        return RuleResult(rule.id, rule.severity, table.num_rows == 0, None, table.num_rows, "null")
    passed = check.bounds.accept(number)
    counts = check.bounds.operators == {"=": 0}
    sample = connection.execute(f"{check.sample} LIMIT {SAMPLE}").to_arrow_table().to_pylist() if check.sample else []
    return RuleResult(
        rule=rule.id,
        severity=rule.severity,
        passed=passed,
        bad=int(number) if counts else None,
        rows=table.num_rows,
        observed="" if counts else f"{number} (must be {check.bounds})",
        sample=tuple(plain(row) for row in sample),
    )


def _daily_count(
    connection: Any, contract: Contract, rule: Rule, check: DailyCount, days: Sequence[date]
) -> RuleResult:
    field = contract.rules.event_date_field
    counted = connection.execute(f'SELECT "{field}", count(*) FROM {ROWS} GROUP BY 1').fetchall()  # noqa: S608
    counts = dict(counted)
    bad = [day for day in days if not check.bounds.accept(counts.get(day, 0))]
    return RuleResult(
        rule=rule.id,
        severity=rule.severity,
        passed=not bad,
        bad=len(bad),
        rows=len(days),
        observed=f"rows of each day must be {check.bounds}",
        sample=tuple({field: day.isoformat(), "rows": counts.get(day, 0)} for day in bad[:SAMPLE]),
    )


def _errored(rule: Rule, rows: int, error: str) -> RuleResult:
    return RuleResult(rule.id, rule.severity, passed=False, bad=None, rows=rows, error=error)
