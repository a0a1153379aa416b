"""Read the quality rules out of a data contract.

A rule that cannot be checked as it is written, or could never fail, is refused; none is dropped in silence.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

import pyarrow as pa
from open_data_contract_standard.model import DataQuality, SchemaProperty

from freshdata.contracts import Contract
from freshdata.errors import RuleError
from freshdata.quality.bounds import OPERATORS, Bounds

Severity = Literal["error", "warning", "info"]
SEVERITIES: dict[str, Severity] = {
    "error": "error",
    "critical": "error",  # What Great Expectations calls it.
    "warning": "warning",
    "warn": "warning",
    "info": "info",
}
ROWS = "rows"
PLACEHOLDER = re.compile(r"\$?\{(object|table|schema|column|property)\}")
# A query that counts the bad rows of the one relation: what it counts can be shown.
COUNTED = re.compile(
    rf"SELECT\s+COUNT\(\*\)\s+(FROM\s+{ROWS}\s+WHERE\s(?!.*\b(GROUP|HAVING|UNION|LIMIT)\b).*)",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class Expectation:
    """A rule that Great Expectations checks.

    Attributes:
        type: Expectation type, for example ``expect_column_values_to_be_unique``.
        kwargs: Its arguments.
    """

    type: str
    kwargs: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.type}({', '.join(f'{name}={value!r}' for name, value in self.kwargs.items())})"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it names."""
        named = [self.kwargs.get(name) for name in ("column", "column_A", "column_B", "column_list", "column_set")]
        flat = [one for name in named if name for one in (name if isinstance(name, list | tuple) else [name])]
        return tuple(dict.fromkeys(map(str, flat)))

    @property
    def vacuous(self) -> tuple[str, str] | None:
        """Why it could never fail, and what to do about it; None when it visibly can."""
        # An always-true rule is worse than none: `mostly: 0` on "origin differs from dest" once passed every row.
        mostly = self.kwargs.get("mostly")
        if isinstance(mostly, int | float) and mostly <= 0:
            return "could never fail: mostly is 0.", "Remove mostly, or raise it above 0."
        if self.type.endswith("_between") and not _given(self.kwargs, "min_value", "max_value"):
            return "could never fail: it has no limits.", "Add min_value or max_value."
        forbids = "_not_" in self.type and self.type.endswith(("_in_set", "_list"))
        if forbids and not _given(self.kwargs, "value_set", "regex_list", "like_pattern_list"):
            return "could never fail: it forbids nothing.", "Say what is forbidden."
        return None


@dataclass(frozen=True)
class Query:
    """A rule that one SQL query over the relation ``rows`` checks.

    Attributes:
        sql: Query that returns one number.
        bounds: What that number must be.
        sample: Query that returns examples of the bad rows, or None.
    """

    sql: str
    bounds: Bounds
    sample: str | None = None

    def __str__(self) -> str:
        return f"{self.sql}: {self.bounds}"


@dataclass(frozen=True)
class DailyCount:
    """A rule on the number of rows of each day.

    Attributes:
        bounds: What each day's count must be.
    """

    bounds: Bounds

    def __str__(self) -> str:
        return f"rows of each day: {self.bounds}"


Check = Expectation | Query | DailyCount


@dataclass(frozen=True)
class Rule:
    """One quality rule.

    Attributes:
        id: ``COLUMN.RULE``, or ``RULE`` for a rule on the whole table.
        severity: ``error`` stops what is downstream, ``warning`` and ``info`` do not.
        dimension: Quality dimension, or an empty string.
        description: What the rule is for, or an empty string.
        columns: Columns it needs.
        check: How it is checked.
        file: The file of one's own that it comes from; an empty string for a contract's.
    """

    id: str
    severity: Severity
    dimension: str
    description: str
    columns: tuple[str, ...]
    check: Check
    file: str = ""


def rules_of(contract: Contract) -> tuple[Rule, ...]:
    """All quality rules of a contract: those its field definitions imply, and those it spells out.

    Raises:
        RuleError: a rule cannot be checked as it is written, or could never fail.
    """
    schema = contract.odcs.schema_[0]
    rules = [
        *(rule for number, item in enumerate(schema.quality or []) for rule in _spelled(contract, item, number, None)),
        *(rule for item in schema.properties or [] for rule in _field(contract, item)),
    ]
    seen: set[str] = set()
    for rule in rules:
        if rule.id in seen:
            raise RuleError(contract.name, rule.id, "is defined twice.", remedy="Give each rule its own id.")
        seen.add(rule.id)
    return tuple(rules)


def _field(contract: Contract, item: SchemaProperty) -> Iterator[Rule]:
    column = contract.stored_schema.field(str(item.name))
    options = item.logicalTypeOptions or {}

    def implied(suffix: str, dimension: str, kind: str, **kwargs: Any) -> Rule:
        check = Expectation(kind, {"column": column.name} | kwargs)
        return Rule(f"{column.name}.{suffix}", "error", dimension, "", (column.name,), check)

    if not column.nullable:
        yield implied("required", "completeness", "expect_column_values_to_not_be_null")
    if item.unique:
        yield implied("unique", "uniqueness", "expect_column_values_to_be_unique")
    if item.enum:
        values = [value.value for value in item.enum]
        yield implied("enum", "conformity", "expect_column_values_to_be_in_set", value_set=values)
    if pattern := options.get("pattern"):
        check = _pattern(contract, f"{column.name}.pattern", column.name, pattern)
        yield Rule(f"{column.name}.pattern", "error", "conformity", "", (column.name,), check)
    if lengths := {ours: options[name] for name, ours in _LENGTHS.items() if name in options}:
        yield implied("length", "conformity", "expect_column_value_lengths_to_be_between", **lengths)
    if limits := _limits(column.type, options):
        yield implied("range", "accuracy", "expect_column_values_to_be_between", **limits)
    for number, rule in enumerate(item.quality or []):
        yield from _spelled(contract, rule, number, column.name)


def _given(kwargs: dict[str, Any], *names: str) -> bool:
    return any(kwargs.get(name) not in (None, []) for name in names)


_LENGTHS = {"minLength": "min_value", "maxLength": "max_value"}
_LIMITS = {
    "minimum": ("min_value", None),
    "maximum": ("max_value", None),
    "exclusiveMinimum": ("min_value", "strict_min"),
    "exclusiveMaximum": ("max_value", "strict_max"),
}


def _limits(kind: pa.DataType, options: dict[str, Any]) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    for name, (ours, strict) in _LIMITS.items():
        if name in options:
            limits |= {ours: _typed(kind, options[name])} | ({strict: True} if strict else {})
    return limits


def _typed(kind: pa.DataType, value: Any) -> Any:
    if pa.types.is_date(kind):
        return date.fromisoformat(str(value))
    if pa.types.is_timestamp(kind):
        return datetime.fromisoformat(str(value))
    return value


def _pattern(contract: Contract, rule: str, column: str, pattern: str) -> Query:
    # In SQL, whatever the number of rows: Great Expectations has no patterns on DuckDB, and its `$` lets "UA\n" pass.
    try:
        re.compile(pattern)
    except re.error as error:
        raise RuleError(
            contract.name, rule, f"has a broken pattern: {error}.", remedy="Correct the pattern."
        ) from error
    text = re.sub(r"\$$", r"\\z", pattern).replace("'", "''")
    bad = f"FROM {ROWS} WHERE NOT regexp_matches(\"{column}\", '{text}')"
    keys = _quoted(dict.fromkeys((*contract.primary_key, column)))
    return Query(f"SELECT count(*) {bad}", Bounds({"=": 0}), f"SELECT {keys} {bad}")


def _quoted(columns: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _spelled(contract: Contract, item: DataQuality, number: int, column: str | None) -> Iterator[Rule]:
    """The rules that one entry under ``quality`` stands for."""
    name = item.id or item.name or f"quality_{number}"
    rule_id = f"{column}.{name}" if column else name
    kind = item.type or "library"
    if kind == "text":
        return
    severity = SEVERITIES.get((item.severity or "error").lower())
    if severity is None:
        raise RuleError(
            contract.name, rule_id, f"has the severity {item.severity!r}.", remedy="Use error, warning or info."
        )
    reader = _Spelled(contract, item, rule_id, column)
    checks: list[Check]
    if kind == "sql":
        checks = [reader.sql()]
    elif kind == "library":
        checks = reader.library()
    elif kind == "custom" and (item.engine or "").lower() in ("great-expectations", "greatexpectations"):
        checks = [reader.custom()]
    else:
        raise reader.error(f"of type {kind} and engine {item.engine} is not supported.", "Use library, sql or custom.")
    for index, check in enumerate(checks):
        yield Rule(
            id=rule_id if index == 0 else f"{rule_id}_{index + 1}",
            severity=severity,
            dimension=item.dimension or "",
            description=item.description or "",
            columns=reader.columns(check),
            check=check,
        )


@dataclass(frozen=True)
class _Spelled:
    """Turns one entry under ``quality`` into checks; every complaint names the rule."""

    contract: Contract
    item: DataQuality
    rule_id: str
    column: str | None

    def error(self, message: str, remedy: str) -> RuleError:
        return RuleError(self.contract.name, self.rule_id, message, remedy=remedy)

    def columns(self, check: Check) -> tuple[str, ...]:
        if not isinstance(check, Expectation):
            return (self.column,) if self.column else ()
        if unknown := [name for name in check.columns if name not in self.contract.stored_schema.names]:
            raise self.error(f"names {', '.join(unknown)}, which the contract lacks.", "Correct the column's name.")
        return check.columns

    def bounds(self) -> Bounds:
        bounds = Bounds.of(self.item)
        if not bounds.operators:
            raise self.error("says nothing about the result.", f"Add one of {', '.join(OPERATORS)}.")
        return bounds

    def mostly(self) -> dict[str, float]:
        """The ``mostly`` argument: the least share of good rows."""
        bounds = self.bounds()
        percent = self.item.unit == "percent"
        if bounds.operators in ({"=": 0}, {"<=": 0}):
            return {}
        share = bounds.least_good_share() if percent else None
        if share is None:
            raise self.error(
                f"asks that the bad rows be {bounds} {self.item.unit or 'rows'}.",
                "Allow none (mustBe: 0) or a percentage (mustBeLessThan and unit: percent), or write a sql rule.",
            )
        if not 0 < share <= 1:
            raise self.error("could never fail, or never pass.", "Allow a percentage between 0 and 100.")
        return {"mostly": share} if share < 1 else {}

    def on_column(self) -> str:
        if self.column is None:
            raise self.error(
                f"with the metric {self.item.metric} belongs to a field.", "Move it to the field's quality."
            )
        return self.column

    def library(self) -> list[Check]:
        metric = self.item.metric or self.item.rule
        metrics = {
            "rowCount": self.row_count,
            "duplicateValues": self.duplicates,
            "nullValues": self.nulls,
            "missingValues": self.missing,
            "invalidValues": self.invalid,
        }
        if metric not in metrics:
            raise self.error(f"uses the metric {metric!r}, which is not supported.", "Write it as a sql rule.")
        return metrics[metric](self.item.arguments or {})

    def row_count(self, _: dict[str, Any]) -> list[Check]:
        if self.column is not None:
            raise self.error("counts rows, which a field has not.", "Move it to the schema's quality.")
        bounds = self.bounds()
        if bounds.accept_every_count():
            raise self.error("could never fail.", "Tighten its bounds.")
        return [DailyCount(bounds)]

    def duplicates(self, arguments: dict[str, Any]) -> list[Check]:
        columns = [self.column] if self.column else list(arguments.get("properties") or [])
        if not columns:
            raise self.error("names no columns.", "Add arguments.properties.")
        if len(columns) == 1:
            return [Expectation("expect_column_values_to_be_unique", {"column": columns[0]} | self.mostly())]
        return [Expectation("expect_compound_columns_to_be_unique", {"column_list": columns} | self.mostly())]

    def nulls(self, _: dict[str, Any]) -> list[Check]:
        return [Expectation("expect_column_values_to_not_be_null", {"column": self.on_column()} | self.mostly())]

    def missing(self, arguments: dict[str, Any]) -> list[Check]:
        values = [value for value in arguments.get("missingValues") or [] if value is not None]
        kwargs = {"column": self.on_column(), "value_set": values} | self.mostly()
        # Two shares, not one: nulls and stand-ins for null are each held to the allowance.
        return self.nulls({}) + ([Expectation("expect_column_values_to_not_be_in_set", kwargs)] if values else [])

    def invalid(self, arguments: dict[str, Any]) -> list[Check]:
        allowed = {"column": self.on_column()} | self.mostly()
        checks: list[Check] = []
        if values := arguments.get("validValues"):
            checks.append(Expectation("expect_column_values_to_be_in_set", allowed | {"value_set": values}))
        if pattern := arguments.get("pattern"):
            if "mostly" in allowed:
                raise self.error("allows a share of rows that break a pattern.", "Write it as a sql rule.")
            checks.append(_pattern(self.contract, self.rule_id, self.on_column(), pattern))
        if not checks:
            raise self.error("does not say what is valid.", "Add arguments.validValues or arguments.pattern.")
        return checks

    def custom(self) -> Expectation:
        text = self.item.implementation
        if not isinstance(text, dict) or not isinstance(text.get("type"), str):
            raise self.error("has no implementation.type.", "Name a Great Expectations expectation there.")
        kwargs = ({"column": self.column} if self.column else {}) | (text.get("kwargs") or {})
        expectation = Expectation(text["type"], kwargs)
        if expectation.vacuous:
            raise self.error(*expectation.vacuous)
        return expectation

    def sql(self) -> Query:
        if not self.item.query:
            raise self.error("has no query.", "Add query: SELECT … FROM ${object} ….")
        names = {"object": ROWS, "table": ROWS, "schema": ROWS}

        def replace(match: re.Match[str]) -> str:
            return names.get(match[1]) or f'"{self.on_column()}"'

        query = PLACEHOLDER.sub(replace, self.item.query).strip().rstrip(";")
        counted = COUNTED.fullmatch(query)
        keys = _quoted(self.contract.primary_key)
        sample = f"SELECT {keys} {counted[1]}" if counted and keys else None
        return Query(query, self.bounds(), sample)
