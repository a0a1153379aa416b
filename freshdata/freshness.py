"""Event-time freshness: how far each tenant's newest event is behind the instance's clock.

Dagster's own freshness looks at when an asset was last written, so a re-run of last year's partition makes it fresh.
This one looks at the data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table

from freshdata.contracts import Contract

Status = Literal["fresh", "late", "idle"]


@dataclass(frozen=True)
class TenantFreshness:
    """One tenant's freshness.

    Attributes:
        tenant: The tenant.
        newest: Time of its newest event, in UTC.
        lag: How long ago that was.
        sla: How old it may be.
        status: ``fresh`` within the SLA, ``late`` beyond it, ``idle`` when silent for so long that nothing is expected.
    """

    tenant: str
    newest: datetime
    lag: timedelta
    sla: timedelta
    status: Status


@dataclass(frozen=True)
class Freshness:
    """A stream's freshness.

    Attributes:
        tenants: The tenants, those furthest behind first.
    """

    tenants: tuple[TenantFreshness, ...]

    def count(self, status: Status) -> int:
        """Number of tenants of a status."""
        return sum(tenant.status == status for tenant in self.tenants)

    @property
    def passed(self) -> bool:
        """Whether no tenant is late and at least one is fresh: a feed that died long ago is not merely idle."""
        return self.count("late") == 0 and self.count("fresh") > 0


def judge(newest: Mapping[str, datetime], *, now: datetime, sla: timedelta, idle_after: timedelta) -> Freshness:
    """Judge each tenant's newest event.

    Args:
        newest: Tenant to the time of its newest event, time-zone aware.
        now: The instance's present.
        sla: How old the newest event may be.
        idle_after: A tenant silent for longer is idle, not late.
    """
    tenants = []
    for tenant, event_time in newest.items():
        lag = max(now - event_time, timedelta(0))  # An event may be a little ahead of the clock.
        status: Status = "fresh" if lag <= sla else "late" if lag <= idle_after else "idle"
        tenants.append(TenantFreshness(tenant, event_time, lag, sla, status))
    return Freshness(tuple(sorted(tenants, key=lambda tenant: (-tenant.lag, tenant.tenant))))


def newest_events(table: Table, contract: Contract) -> dict[str, datetime]:
    """Each tenant's newest event time in a stream's Bronze or Silver table.

    Reads two columns of the whole table, batch by batch: a tenant that went silent long ago must still be named.

    Args:
        table: The table.
        contract: The stream's contract.
    """
    tenant, event_time = contract.rules.tenant_field, contract.rules.event_time_field
    newest: dict[str, datetime] = {}
    for batch in table.scan(selected_fields=(tenant, event_time)).to_arrow_batch_reader():
        grouped = pa.table(batch).group_by(tenant).aggregate([(event_time, "max")])
        times = pc.cast(grouped[f"{event_time}_max"], pa.timestamp("us", "UTC"))
        for name, time in zip(grouped[tenant].to_pylist(), times.to_pylist(), strict=True):
            newest[name] = max(time, newest.get(name, time))
    return newest


def stream_freshness(table: Table, contract: Contract, now: datetime) -> Freshness:
    """The freshness of a stream's table by its contract's SLA.

    Args:
        table: The stream's Bronze or Silver table.
        contract: The stream's contract.
        now: The instance's present.
    """
    rules = contract.rules
    return judge(newest_events(table, contract), now=now, sla=rules.freshness, idle_after=rules.idle_after)
