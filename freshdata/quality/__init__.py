"""Data quality: the rules of a table's contract and of files of one's own, and their verdict on rows."""

from freshdata.quality.report import QualityReport, RuleResult
from freshdata.quality.rows import ArrowRows
from freshdata.quality.rules import Rule, rules_of
from freshdata.quality.suites import Suite, contract_suite, suite_of
from freshdata.quality.validate import validate

__all__ = [
    "ArrowRows", "QualityReport", "Rule", "RuleResult", "Suite", "contract_suite", "rules_of", "suite_of", "validate"
]  # fmt: skip
