"""Which changes of a stream's freshness somebody on call is told of: each once."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from freshdata.freshness.judge import Freshness, TenantFreshness
from freshdata.freshness.words import duration_text, moment_text, named, why

# A tenant became late; it is fresh again, or as silent as it may be; it has been silent for too long to be expected.
State = Literal["late", "resolved", "idle"]


@dataclass(frozen=True)
class AlertedTenant:
    """One tenant that an alert is about.

    Attributes:
        tenant: The tenant.
        since: When it became late.
        newest: Time of its newest event in Silver; None when Silver holds none.
        lag: How old that is; None when Silver holds none of the time that is looked back at.
        sla: How old it may be; None as above.
        why: Where its events are held up, in words; None when they are not any more.
    """

    tenant: str
    since: datetime
    newest: datetime | None
    lag: timedelta | None
    sla: timedelta | None
    why: str | None


@dataclass(frozen=True)
class Alert:
    """What somebody on call is told of a stream, once: tenants that change their state together are one alert.

    Attributes:
        stream: The stream.
        state: What has become of the tenants.
        at: When, by the instance's clock.
        tenants: The tenants, those that have been late for longest first.
    """

    stream: str
    state: State
    at: datetime
    tenants: tuple[AlertedTenant, ...]

    @property
    def transitions(self) -> dict[str, str]:
        """Tenant to what it went through: the same for the same lateness, however often it is looked at."""
        return {tenant.tenant: f"{self.state} {tenant.since.isoformat()}" for tenant in self.tenants}

    def without(self, told: Mapping[str, str]) -> "Alert | None":
        """The alert without the tenants whose transition has been told already; None when that leaves none."""
        left = tuple(one for one in self.tenants if told.get(one.tenant) != self.transitions[one.tenant])
        return replace(self, tenants=left) if left else None

    @property
    def text(self) -> str:
        """The alert in one line."""
        names = named(tenant.tenant for tenant in self.tenants)
        first = self.tenants[0]
        if self.state == "late":
            reasons = "; ".join(dict.fromkeys(tenant.why for tenant in self.tenants if tenant.why))
            facts = f"late since {moment_text(first.since)}"
            if first.lag is not None and first.sla is not None:
                facts += f", {duration_text(first.lag)} behind, SLA {duration_text(first.sla)}"
            return f"{self.stream}: {names} {facts}: {reasons}"
        after = f"after being late for {duration_text(self.at - first.since)}"
        what = "fresh again" if self.state == "resolved" else "silent for so long that nothing is expected any more"
        return f"{self.stream}: {names} {what}, {after}"

    def payload(self) -> dict[str, Any]:
        """The alert as JSON values: moments in ISO 8601, durations in seconds."""
        return {
            "stream": self.stream,
            "state": self.state,
            "at": self.at.isoformat(),
            "text": self.text,
            "tenants": [
                {
                    "tenant": tenant.tenant,
                    "since": tenant.since.isoformat(),
                    "late_seconds": (self.at - tenant.since).total_seconds(),
                    "newest_event": tenant.newest.isoformat() if tenant.newest else None,
                    "lag_seconds": tenant.lag.total_seconds() if tenant.lag is not None else None,
                    "sla_seconds": tenant.sla.total_seconds() if tenant.sla is not None else None,
                    "why": tenant.why,
                }
                for tenant in self.tenants
            ],
        }


def alerts(stream: str, told: Mapping[str, datetime], freshness: Freshness, now: datetime) -> Iterator[Alert]:
    """What is to be told now.

    Args:
        stream: The stream.
        told: The tenants that are known to be late, and since when.
        freshness: The stream's freshness.
        now: The instance's present.
    """
    tenants = {tenant.tenant: tenant for tenant in freshness.tenants}
    late = {tenant.tenant: tenant.since or now for tenant in freshness.late}
    groups: dict[State, list[AlertedTenant]] = {
        "late": [_alerted(name, since, tenants[name], freshness) for name, since in late.items() if name not in told],
        "resolved": [],
        "idle": [],
    }
    for name, since in told.items():
        if name not in late:
            groups[_ended(tenants.get(name))].append(_alerted(name, since, tenants.get(name), freshness))
    for state, found in groups.items():
        if found:
            yield Alert(stream, state, now, tuple(sorted(found, key=lambda one: (one.since, one.tenant))))


def still_late(told: Mapping[str, datetime], found: Iterable[Alert]) -> dict[str, datetime]:
    """The tenants that are known to be late once some alerts have been raised, and since when."""
    late = dict(told)
    for alert in found:
        for tenant in alert.tenants:
            if alert.state == "late":
                late[tenant.tenant] = tenant.since
            else:
                late.pop(tenant.tenant, None)
    return late


def _ended(tenant: TenantFreshness | None) -> State:
    return "resolved" if tenant is not None and tenant.lag <= tenant.allowed else "idle"


def _alerted(name: str, since: datetime, tenant: TenantFreshness | None, freshness: Freshness) -> AlertedTenant:
    if tenant is None:
        return AlertedTenant(name, since, None, None, None, None)
    reason = why(tenant.cause, freshness.unread) if tenant.cause else None
    return AlertedTenant(name, since, tenant.newest, tenant.lag, tenant.sla, reason)
