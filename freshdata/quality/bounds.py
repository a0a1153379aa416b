"""The ``mustBe…`` operators of a quality rule."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from open_data_contract_standard.model import DataQuality

OPERATORS = {
    "mustBe": "=",
    "mustNotBe": "!=",
    "mustBeGreaterThan": ">",
    "mustBeGreaterOrEqualTo": ">=",
    "mustBeLessThan": "<",
    "mustBeLessOrEqualTo": "<=",
    "mustBeBetween": "between",
    "mustNotBeBetween": "not between",
}

COMPARE: dict[str, Callable[[float, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "between": lambda number, pair: bool(pair[0] <= number <= pair[1]),
    "not between": lambda number, pair: not pair[0] <= number <= pair[1],
}


@dataclass(frozen=True)
class Bounds:
    """What a measured number must be; all operators of a rule apply together.

    Attributes:
        operators: Operator symbol to its operand: a number, or a pair for the two ``between``.
    """

    operators: dict[str, Any]

    @classmethod
    def of(cls, rule: DataQuality) -> "Bounds":
        """The operators a rule carries; none when it carries none."""
        return cls({ours: value for name, ours in OPERATORS.items() if (value := getattr(rule, name)) is not None})

    def accept(self, number: float) -> bool:
        """Whether a measured number is within the bounds."""
        return all(COMPARE[symbol](number, operand) for symbol, operand in self.operators.items())

    def accept_every_count(self) -> bool:
        """Whether no number of rows is outside: such a rule could never fail."""
        operands = [
            end
            for operand in self.operators.values()
            for end in (operand if isinstance(operand, list | tuple) else [operand])
        ]
        edges = {0, *(max(0, math.floor(end) + step) for end in operands for step in (-1, 0, 1, 2))}
        return all(self.accept(edge) for edge in edges)

    def least_good_share(self) -> float | None:
        """The share of good rows that bounds on the percentage of bad rows ask for; None for any other bounds."""
        if set(self.operators) == {"<="}:
            return 1 - float(self.operators["<="]) / 100
        if set(self.operators) == {"<"}:
            # `mostly` knows "at least" only: the next number up makes it "more than".
            return math.nextafter(1 - float(self.operators["<"]) / 100, 2)
        return None

    def __str__(self) -> str:
        return " and ".join(f"{symbol} {operand}" for symbol, operand in self.operators.items())
