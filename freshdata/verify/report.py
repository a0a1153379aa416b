"""What a verification found."""

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

MOST_EXAMPLES = 5
LONGEST_EXAMPLE = 200


@dataclass(frozen=True)
class Finding:
    """The outcome of one comparison.

    Attributes:
        table: What was compared, for example ``bronze.flight_events``.
        check: What was asked of it.
        compared: Number of rows compared.
        differences: Number of rows that differ.
        examples: The first differing rows or keys.
    """

    table: str
    check: str
    compared: int
    differences: int = 0
    examples: list[Any] = field(default_factory=list)

    @classmethod
    def of_query(
        cls, connection: "duckdb.DuckDBPyConnection", table: str, check: str, sql: str, compared: int
    ) -> "Finding":
        """The finding of a query that returns the differing rows."""
        differing = connection.sql(sql).fetchall()
        examples = [", ".join(str(value) for value in row)[:LONGEST_EXAMPLE] for row in differing[:MOST_EXAMPLES]]
        return cls(table, check, compared, len(differing), examples)

    @property
    def ok(self) -> bool:
        """Whether there is no difference."""
        return self.differences == 0


@dataclass(frozen=True)
class Report:
    """All comparisons of one verification.

    Attributes:
        findings: The comparisons, in the order of the data's way.
        streams: For each stream what became of its records.
    """

    findings: list[Finding]
    streams: dict[str, dict[str, int]]

    @property
    def ok(self) -> bool:
        """Whether no comparison found a difference."""
        return all(finding.ok for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The report for machines."""
        return {
            "ok": self.ok,
            "streams": self.streams,
            "findings": [asdict(finding) | {"ok": finding.ok} for finding in self.findings],
        }
