"""What rows are judged by: the rules of their contract, and expectations of one's own.

A file of one's own holds one suite as Great Expectations saves it, in JSON or YAML, and is called like the stream or
the model whose rows it judges: ``expectations/flight_events.json``, ``expectations/gold.carrier_day.yaml``.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from freshdata.contracts import Contract
from freshdata.errors import FreshDataError, RuleError, SuiteError
from freshdata.quality.rules import SEVERITIES, Expectation, Rule, rules_of
from freshdata.transform.manifest import ModelInfo

SUFFIXES = (".json", ".yaml", ".yml")
FORMAT = "Write it as Great Expectations saves a suite: docs/contracts.md has an example."


@dataclass(frozen=True)
class Suite:
    """What the rows of a table are judged by.

    Attributes:
        name: The stream's or the model's name.
        rules: The rules.
        key: Columns that tell which row is a bad one.
        fields: Columns that its rules may name; None for any.
        day_column: The column of a row's day; None where no rule counts the rows of days.
    """

    name: str
    rules: tuple[Rule, ...]
    key: tuple[str, ...]
    fields: tuple[str, ...] | None = None
    day_column: str | None = None

    def columns(self, available: Iterable[str]) -> tuple[str, ...]:
        """Those of a table's columns that its rules may name."""
        return tuple(name for name in available if self.fields is None or name in self.fields)

    def error(self, rule: Rule, message: str, *, remedy: str) -> FreshDataError:
        """What is wrong with a rule, by where it is written."""
        if rule.file:
            return SuiteError(rule.file, f"expectation {rule.id} {message}", remedy=remedy)
        return RuleError(self.name, rule.id, message, remedy=remedy)


def contract_suite(contract: Contract, file: Path | None = None) -> Suite:
    """A contract's rules, and those of a file of one's own.

    Raises:
        RuleError: a rule of the contract cannot be checked as it is written, or could never fail.
        SuiteError: the same of the file.
    """
    rules = (*rules_of(contract), *(read_suite(file) if file else ()))
    day_column = contract.stream.event_date_field if contract.stream else None
    # Rows are counted by day; the day may be derived, and no field.
    fields = None if file else (*contract.stored_schema.names, *([day_column] if day_column else []))
    suite = Suite(contract.name, rules, contract.primary_key, fields, day_column)
    count = Counter(rule.id for rule in rules)
    for rule in rules:
        if rule.file and count[rule.id] > 1:
            raise suite.error(rule, "is called like another rule.", remedy="Give it an id of its own in its meta.")
    return suite


def suite_of(model: ModelInfo, contract: Contract | None, file: Path | None) -> Suite:
    """What the table of a model is judged by.

    Args:
        model: The model.
        contract: The contract of the stream whose Silver model it is, or None.
        file: The file of one's own expectations, or None.

    Raises:
        RuleError: a rule of the contract cannot be checked as it is written, or could never fail.
        SuiteError: the same of the file.
    """
    if contract:
        return contract_suite(contract, file)
    return Suite(model.name, read_suite(file) if file else (), model.grain)


def own_suites(folder: Path, streams: Iterable[Contract], models: Collection[str]) -> dict[str, Path]:
    """The files of one's own by the model whose rows they judge; a stream's is that of its Silver model.

    Raises:
        SuiteError: a file belongs to no model, or two to one.
    """
    silver = {contract.name: f"silver.{contract.name}" for contract in streams}
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*")):
        if path.suffix not in SUFFIXES:
            continue
        model = silver.get(path.stem, path.stem)
        if model not in models:
            names = ", ".join((*silver, *models))
            raise SuiteError(_shown(path), "is called like no stream and no model.", remedy=f"Call it one of {names}.")
        if model in found:
            remedy = f"Move its expectations to {_shown(found[model])}."
            raise SuiteError(_shown(path), f"is a second suite of {model}.", remedy=remedy)
        found[model] = path
    return found


class _Entry(msgspec.Struct):
    type: str
    kwargs: dict[str, Any] = msgspec.field(default_factory=dict)
    severity: str | None = None
    description: str | None = None
    meta: dict[str, Any] | None = None


class _File(msgspec.Struct):
    expectations: Annotated[list[_Entry], msgspec.Meta(min_length=1)]


def read_suite(path: Path) -> tuple[Rule, ...]:
    """The expectations of a file.

    Raises:
        SuiteError: it is not in Great Expectations' format, or holds an expectation that could never fail.
    """
    try:
        text = path.read_text()
        content = msgspec.convert(json.loads(text) if path.suffix == ".json" else yaml.safe_load(text), _File)
    except msgspec.ValidationError as error:
        raise SuiteError(_shown(path), f"is no suite: {error}.", remedy=FORMAT) from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SuiteError(_shown(path), f"cannot be read: {' '.join(str(error).split())}.", remedy=FORMAT) from error
    seen: Counter[str] = Counter()
    return tuple(_rule(path, entry, seen) for entry in content.expectations)


def _rule(path: Path, entry: _Entry, seen: Counter[str]) -> Rule:
    meta, file = entry.meta or {}, _shown(path)
    check = Expectation(entry.type, entry.kwargs)
    name = str(meta.get("id") or ".".join((*check.columns, re.sub(r"^expect_(column_)?", "", entry.type))))
    seen[name] += 1
    rule_id = name if seen[name] == 1 else f"{name}_{seen[name]}"
    if check.vacuous:
        message, remedy = check.vacuous
        raise SuiteError(file, f"expectation {rule_id} {message}", remedy=remedy)
    # Saved suites have a severity of their own; what is to count as what here can be said in the meta.
    said = str(meta.get("severity") or entry.severity or "error")
    severity = SEVERITIES.get(said.lower())
    if severity is None:
        remedy = "Use error (critical), warning or info."
        raise SuiteError(file, f"expectation {rule_id} has the severity {said!r}.", remedy=remedy)
    description = entry.description or ""
    return Rule(rule_id, severity, str(meta.get("dimension") or ""), description, check.columns, check, file)


def _shown(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
