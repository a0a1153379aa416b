"""Run the Great Expectations part of a contract's rules. Importing the library takes seconds: only functions do it."""

import json
import math
import os
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from freshdata.contracts import Contract
from freshdata.errors import RuleError
from freshdata.quality.report import RuleResult
from freshdata.quality.rules import Expectation, Rule

# Up to here pandas is as fast; at a million rows DuckDB needs 3 s where pandas needs 20 s.
PANDAS_ROWS = 10_000
SAMPLE = 5
RELATION = "freshdata_rows"


def evaluate(table: pa.Table, contract: Contract, rules: Sequence[Rule]) -> list[RuleResult]:
    """Evaluate rules whose check is an :class:`Expectation`.

    Args:
        table: The rows; its columns include those the rules need.
        contract: The contract, for its name and the key shown with bad rows.
        rules: The rules.

    Raises:
        RuleError: a rule names an expectation that does not exist, or gives it wrong arguments.
    """
    if not rules:
        return []
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # Read once, when the library is imported.
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    suite = gx.ExpectationSuite(f"{contract.name}-{contract.version}", [_expectation(contract, rule) for rule in rules])
    batch = _pandas_batch(context, table) if table.num_rows <= PANDAS_ROWS else _duckdb_batch(context, table)
    # SUMMARY carries counts and the first bad keys; COMPLETE would also carry every bad row.
    outcome = batch.validate(
        suite,
        result_format={
            "result_format": "SUMMARY",
            "partial_unexpected_count": SAMPLE,
            "unexpected_index_column_names": [key for key in contract.primary_key if key in table.column_names],
        },
    )
    found = {result.expectation_config.meta["rule"]: result for result in outcome.results}
    return [_result(rule, found[rule.id], table.num_rows) for rule in rules]


def _expectation(contract: Contract, rule: Rule) -> Any:
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import get_expectation_impl
    from pydantic.v1 import ValidationError

    check = rule.check
    if not isinstance(check, Expectation):
        raise TypeError(f"{rule.id} is not an expectation")
    try:
        return get_expectation_impl(check.type)(**check.kwargs, meta={"rule": rule.id})
    except ExpectationNotFoundError as error:
        raise RuleError(
            contract.name, rule.id, f"names {check.type}, which Great Expectations lacks.", remedy="Correct the name."
        ) from error
    except (ValidationError, TypeError, ValueError) as error:
        raise RuleError(
            contract.name, rule.id, f"has wrong arguments: {error}.", remedy=f"See the arguments of {check.type}."
        ) from error


def _pandas_batch(context: Any, table: pa.Table) -> Any:
    import pandas as pd  # type: ignore[import-untyped]

    # Nullable integers: by default a null turns a column of integers into floats.
    types: dict[Any, Any] = {
        pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()
    }  # fmt: skip
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    return asset.add_batch_definition_whole_dataframe("rows").get_batch(
        {"dataframe": table.to_pandas(types_mapper=types.get)}
    )


def _duckdb_batch(context: Any, table: pa.Table) -> Any:
    from freshdata.quality import gx_duckdb

    source = context.data_sources.add_sql("rows", connection_string=gx_duckdb.URL)
    # The execution engine's own connection: `get_engine()` would be another in-memory database.
    source.get_execution_engine().engine.raw_connection().driver_connection.register(RELATION, table)
    asset = source.add_query_asset("rows", query=f"SELECT * FROM {RELATION}")  # noqa: S608 - a constant.
    return asset.add_batch_definition_whole_table("rows").get_batch()


def _result(rule: Rule, found: Any, rows: int) -> RuleResult:
    detail = found.result or {}
    error = None if found.success else _error(found.exception_info or {})
    sample = detail.get("partial_unexpected_index_list") or [
        {"value": value} for value in detail.get("partial_unexpected_list") or []
    ]
    counted = detail.get("unexpected_count")
    observed = detail.get("observed_value")
    return RuleResult(
        rule=rule.id,
        severity=rule.severity,
        passed=bool(found.success),
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


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON values."""
    values = json.loads(json.dumps(row, default=str))
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}
