"""What must hold before models may go to production."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.expressions.parser import parse
from pyiceberg.table import Table

from freshdata.contracts import Contract
from freshdata.errors import FreshDataError, TransformError
from freshdata.quality import ArrowRows, suite_of, validate
from freshdata.quality.validate import all_days
from freshdata.transform.context import refuse_lint_errors
from freshdata.transform.manifest import ModelInfo
from freshdata.transform.results import AuditResult

if TYPE_CHECKING:
    from sqlmesh import Context


@dataclass(frozen=True)
class Gate:
    """One gate's verdict.

    Attributes:
        name: What was asked.
        passed: Whether it lets the models through.
        detail: What was found.
    """

    name: str
    passed: bool
    detail: str


def lint_gate(context: "Context") -> Gate:
    """SQLMesh's linter on every model."""
    try:
        refuse_lint_errors(context)
    except TransformError as error:
        return Gate("linter", passed=False, detail=error.message)
    return Gate("linter", passed=True, detail=f"{len(_models(context))} models")


def unit_test_gate(context: "Context") -> Gate:
    """The models' unit tests."""
    outcome = context.test()
    broken = outcome.failures + outcome.errors
    if not broken:
        return Gate("unit tests", passed=True, detail=f"{outcome.testsRun} tests")
    named = "; ".join(f"{_test_name(test)}: {' '.join(trace.split())[-LONGEST_TRACE:]}" for test, trace in broken)
    return Gate("unit tests", passed=False, detail=f"{len(broken)} of {outcome.testsRun} fail: {named}")


def audit_gate(model: str, audits: tuple[AuditResult, ...]) -> Gate:
    """A model's audits on its rows: those that block."""
    failed = [audit for audit in audits if not audit.passed]
    told = ", ".join(f"{audit.name} refuses {audit.count:,} rows" for audit in failed)
    passed = not any(audit.blocking for audit in failed)
    return Gate(f"audits of {model}", passed=passed, detail=told or f"{len(audits)} audits")


def quality_gate(
    table: Table,
    info: ModelInfo,
    contract: Contract | None,
    file: Path | None,
    *,
    days: tuple[date, date] | None,
    today: date,
) -> Gate:
    """A contract's quality rules and expectations of one's own on the rows of a table.

    Args:
        table: The table.
        info: Its model.
        contract: The contract of the stream whose Silver table it is, or None.
        file: The file of one's own expectations, or None.
        days: First and last day looked at; None for all.
        today: The day that is not over yet.
    """
    column = info.partition_column if info.granularity else None
    within: BooleanExpression = AlwaysTrue()
    if days and column:
        first, last = (limit.isoformat() for limit in info.period.whole(*days))
        within = parse(f"{column} >= '{first}' and {column} <= '{last}'")
    name = f"{'contract rules' if contract else 'expectations'} on {info.name}"
    try:
        suite = suite_of(info, contract, file)
        wanted = {*suite.columns(table.schema().column_names), column}
        selected = tuple(name for name in table.schema().column_names if name in wanted)
        rows = ArrowRows(table.scan(row_filter=within, selected_fields=selected).to_arrow())
        judged = all_days(rows, column) if column else ()
        report = validate(rows, suite, days=(day for day in judged if day < today))
    except FreshDataError as error:
        return Gate(name, passed=False, detail=error.message)
    return Gate(name, passed=not report.blocks, detail=report.summary())


def partition_gate(before: Mapping[str, ModelInfo], after: Mapping[str, ModelInfo]) -> Gate:
    """Whether the tables that are there can hold the changed models' rows."""
    moved = [
        f"{name} is partitioned by {info.partition_column} instead of {before[name].partition_column}"
        for name, info in after.items()
        if name in before and before[name].partition_column != info.partition_column
    ]
    detail = "; ".join(moved) + ": a table keeps its days; give the model another name" if moved else "unchanged"
    return Gate("partitions", passed=not moved, detail=detail)


LONGEST_TRACE = 600


def _models(context: "Context") -> list[str]:
    return [model.name for model in context.models.values() if model.kind.name != "EXTERNAL"]


def _test_name(test: object) -> str:
    return str(getattr(test, "test_name", test))
