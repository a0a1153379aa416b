"""What a run is asked to do, read from its tags."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from freshdata.intervals import each
from freshdata_assets.platform import interval_of

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
        live: Whether it takes in what is new since each table's cursor; else it rebuilds its days or hours whole.
        first: First day or hour of its partitions, or None for a run without partitions.
        last: The last one, inclusive.
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
            first=interval_of(first) if first else None,
            last=interval_of(last) if last else None,
            tenant=tags.get(TENANT),
        )

    @property
    def intervals(self) -> tuple[date, ...]:
        """The days or hours of its partitions; none for a run without partitions."""
        return () if self.first is None or self.last is None else tuple(each(self.first, self.last))

    def covers(self, interval: date) -> bool:
        """Whether a day or an hour is one of its partitions."""
        return self.first is not None and self.last is not None and self.first <= interval <= self.last
