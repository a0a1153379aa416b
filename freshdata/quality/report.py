"""What a validation found."""

import json
import math
from dataclasses import dataclass
from typing import Any

from freshdata.quality.rules import Severity

SAMPLE = 5


@dataclass(frozen=True)
class RuleResult:
    """One rule's verdict.

    Attributes:
        rule: The rule's id.
        severity: The rule's severity.
        passed: Whether the rows keep the rule; False when the rule could not be evaluated.
        bad: Rows (or days, for a rule on each day's count) that break it, or None when it does not count rows.
        rows: Rows (or days) looked at.
        observed: What was measured and what was asked, for rules on a number; else an empty string.
        sample: A few of the bad rows' keys and values.
        error: Why the rule could not be evaluated; None when it was.
    """

    rule: str
    severity: Severity
    passed: bool
    bad: int | None
    rows: int
    observed: str = ""
    sample: tuple[dict[str, Any], ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class QualityReport:
    """The verdict of a contract's rules on some rows.

    Attributes:
        rows: Rows looked at.
        results: One result for each rule, in contract order.
    """

    rows: int
    results: tuple[RuleResult, ...]

    @property
    def failed(self) -> tuple[RuleResult, ...]:
        """Rules that were evaluated and are broken by data."""
        return tuple(result for result in self.results if not result.passed and result.error is None)

    @property
    def errored(self) -> tuple[RuleResult, ...]:
        """Rules that could not be evaluated: the rule is at fault, not the data."""
        return tuple(result for result in self.results if result.error is not None)

    @property
    def passed(self) -> bool:
        """Whether every rule passed, warnings included."""
        return not self.failed and not self.errored

    @property
    def blocks(self) -> bool:
        """Whether what is downstream must not take in these rows.

        A rule that could not be evaluated blocks whatever its severity: nobody knows what it would have said.
        """
        return bool(self.errored) or any(result.severity == "error" for result in self.failed)

    def summary(self) -> str:
        """One line: what is wrong, errors first."""
        if self.passed:
            return f"all {len(self.results)} rules hold on {self.rows:,} rows"
        parts = [f"{result.rule} could not be evaluated ({result.error})" for result in self.errored]
        order = {"error": 0, "warning": 1, "info": 2}
        for result in sorted(self.failed, key=lambda found: order[found.severity]):
            count = f"{result.bad:,} bad" if result.bad is not None else result.observed
            parts.append(f"{result.rule} ({result.severity}): {count} of {result.rows:,}")
        return "; ".join(parts)


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON values."""
    # A NumPy number knows the number it is.
    values = json.loads(json.dumps(row, default=lambda value: value.item() if hasattr(value, "item") else str(value)))
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}
