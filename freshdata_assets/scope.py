"""What a run is asked to do, read from its tags."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
PARTITION = "dagster/partition"
MODE = "freshdata/mode"
TENANT = "freshdata/tenant"
REASON = "freshdata/reason"
LIVE = "live"
MAINTENANCE = "maintenance"


@dataclass(frozen=True)
class Scope:
    """What a run is asked to do.

    Attributes:
        live: Whether it takes in what is new since each table's cursor; else it rebuilds its days whole.
        first: First day of its partitions, or None for a run without partitions.
        last: Last day of its partitions, inclusive.
        tenant: The only tenant whose rows it rebuilds, where a model tells tenants apart; None for all.
    """

    live: bool
    first: date | None
    last: date | None
    tenant: str | None = None

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> "Scope":
        """Read a run's tags."""
        first = tags.get(RANGE_START) or tags.get(PARTITION)
        last = tags.get(RANGE_END) or tags.get(PARTITION)
        return cls(
            live=tags.get(MODE) == LIVE,
            first=date.fromisoformat(first) if first else None,
            last=date.fromisoformat(last) if last else None,
            tenant=tags.get(TENANT),
        )

    @property
    def days(self) -> tuple[date, ...]:
        """The days of its partitions; none for a run without partitions."""
        if self.first is None or self.last is None:
            return ()
        return tuple(self.first + timedelta(days=offset) for offset in range((self.last - self.first).days + 1))
