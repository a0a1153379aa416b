"""Data quality: the rules of a data contract, and their verdict on rows."""

from freshdata.quality.report import QualityReport, RuleResult
from freshdata.quality.rules import Rule, rules_of
from freshdata.quality.validate import validate

__all__ = ["QualityReport", "Rule", "RuleResult", "rules_of", "validate"]
