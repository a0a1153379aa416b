"""Which rules a contract yields, and which it may not have."""

import dataclasses
from typing import Any

import pytest
from open_data_contract_standard.model import DataQuality

from freshdata.contracts import Contract, load_contracts
from freshdata.errors import RuleError
from freshdata.quality import contract_suite, rules_of
from freshdata.quality.expectations import _expectation
from freshdata.quality.rules import DailyCount, Expectation, Query
from freshdata.settings import load_settings


@pytest.fixture(scope="module")
def contracts() -> dict[str, Contract]:
    return load_contracts(load_settings().contracts_dir)


def with_rule(contract: Contract, column: str | None = None, **rule: Any) -> Contract:
    """The contract with no rules but the implied ones and this one."""
    odcs = contract.odcs.model_copy(deep=True)
    schema = odcs.schema_[0]
    schema.quality = []
    for item in schema.properties:
        item.quality = []
    target = next((item for item in schema.properties if item.name == column), schema)
    target.quality = [DataQuality(id="under_test", **rule)]
    return dataclasses.replace(contract, odcs=odcs)


def test_every_contract_of_the_project_yields_rules_that_great_expectations_knows(
    contracts: dict[str, Contract],
) -> None:
    for contract in contracts.values():
        rules = rules_of(contract)
        assert rules
        for rule in rules:
            if isinstance(rule.check, Expectation):
                assert _expectation(contract_suite(contract), rule).meta == {"rule": rule.id}


def test_field_definitions_and_spelled_rules_are_all_there(contracts: dict[str, Contract]) -> None:
    rules = {rule.id: rule for rule in rules_of(contracts["flight_events"])}
    assert {
        "event_id.required", "event_id.unique", "event_id.length", "event_type.enum", "tenant_id.pattern",
        "flight.range", "tailnum.tailnum_nulls", "rows_present", "one_row_a_event", "origin_not_dest",
        "departed_has_delay",
    } <= rules.keys()  # fmt: skip
    assert "tailnum.required" not in rules
    assert rules["tailnum.tailnum_nulls"].severity == "warning"
    assert isinstance(rules["rows_present"].check, DailyCount)
    departed = rules["departed_has_delay"].check
    assert isinstance(departed, Query)
    assert "FROM rows WHERE" in departed.sql


NULLS = {"type": "library", "metric": "nullValues"}
CUSTOM = {"type": "custom", "engine": "great-expectations"}


@pytest.mark.parametrize(
    ("column", "rule", "complaint"),
    [
        (None, CUSTOM | {"implementation": {"type": "expect_x", "kwargs": {"mostly": 0}}}, "mostly is 0"),
        ("flight", CUSTOM | {"implementation": {"type": "expect_column_values_to_be_between"}}, "no limits"),
        (None, CUSTOM | {"implementation": "SELECT 1"}, "implementation.type"),
        (None, {"type": "library", "metric": "rowCount", "mustBeGreaterOrEqualTo": 0}, "could never fail"),
        (None, {"type": "library", "metric": "rowCount", "mustNotBe": -1}, "could never fail"),
        (None, {"type": "library", "metric": "rowCount"}, "says nothing"),
        ("tailnum", NULLS | {"mustBeLessThan": 20}, "percentage"),
        ("tailnum", NULLS | {"mustBeLessOrEqualTo": 100, "unit": "percent"}, "could never fail"),
        ("tailnum", NULLS | {"mustBeGreaterThan": 1, "unit": "percent"}, "percentage"),
        ("tailnum", {"type": "library", "metric": "invalidValues", "mustBe": 0}, "what is valid"),
        ("tailnum", {"type": "library", "metric": "median", "mustBe": 0}, "not supported"),
        (None, NULLS | {"mustBe": 0}, "belongs to a field"),
        (None, {"type": "custom", "engine": "soda"}, "not supported"),
        (None, {"type": "sql", "mustBe": 0}, "no query"),
        ("flight", NULLS | {"mustBe": 0, "severity": "fatal"}, "severity"),
        (None, {"type": "library", "metric": "duplicateValues", "mustBe": 0, "arguments": {"properties": ["x", "y"]}},
         "the contract lacks"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_checked_or_cannot_fail_is_refused(
    contracts: dict[str, Contract], column: str | None, rule: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(RuleError, match=complaint) as caught:
        rules_of(with_rule(contracts["flight_events"], column, **rule))
    assert caught.value.rule.endswith("under_test")
    assert caught.value.remedy


def test_two_rules_of_one_id_are_refused(contracts: dict[str, Contract]) -> None:
    contract = with_rule(contracts["weather"], None, type="library", metric="rowCount", mustBeGreaterThan=0)
    contract.odcs.schema_[0].quality *= 2
    with pytest.raises(RuleError, match="defined twice"):
        rules_of(contract)


def test_an_expectation_that_does_not_exist_is_named(contracts: dict[str, Contract]) -> None:
    contract = with_rule(contracts["weather"], None, **CUSTOM, implementation={"type": "expect_nothing_like_it"})
    rule = next(rule for rule in rules_of(contract) if rule.id == "under_test")
    with pytest.raises(RuleError, match="expect_nothing_like_it"):
        _expectation(contract_suite(contract), rule)
