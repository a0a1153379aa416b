"""Judge what came in: which tenants are fresh, late or idle, and which days are incomplete.

Functions of their arguments alone; what they are given is read in :mod:`freshdata.freshness.stream`.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal, Self

from freshdata.contracts.model import Heartbeat, StreamRules

Status = Literal["fresh", "late", "idle"]
# Where the events are held up: before Silver, before Bronze, before Kafka; or Kafka does not answer.
Cause = Literal["silver", "worker", "producer", "unknown"]
# Days that are looked back at.
RECENT = timedelta(days=7)


@dataclass(frozen=True)
class Arrival:
    """Events of one tenant and one day that a data file holds.

    Attributes:
        tenant: The tenant.
        day: The event date: the partition of Silver and Gold.
        first: Time of the oldest one, in UTC.
        last: Time of the newest one.
    """

    tenant: str
    day: date
    first: datetime
    last: datetime


@dataclass(frozen=True)
class Terms:
    """What a contract promises and what it holds for normal.

    Attributes:
        sla: How old a tenant's newest event may be.
        heartbeat: How long a tenant may be silent.
        idle_after: A tenant silent for longer is not expected any more.
    """

    sla: timedelta
    heartbeat: Heartbeat
    idle_after: timedelta

    @classmethod
    def of(cls, rules: StreamRules) -> Self:
        """The terms of a stream."""
        return cls(rules.freshness, rules.heartbeat or Heartbeat(rules.freshness), rules.idle_after)

    @property
    def lookback(self) -> timedelta:
        """How old an event may be and still count: a tenant that has been silent for longer is not named any more."""
        return self.idle_after + RECENT


@dataclass(frozen=True)
class TenantFreshness:
    """One tenant's freshness.

    Attributes:
        tenant: The tenant.
        newest: Time of its newest event in Silver, in UTC; None when Silver has none yet.
        lag: How long ago that was; without one, how long ago its oldest event was that Silver lacks.
        sla: How old it may be.
        allowed: How long it may be silent before it is late: the SLA, or its heartbeat where that is longer.
        status: ``fresh`` within the SLA; ``late`` beyond what is allowed; ``idle`` when its silence is normal, or when
            it has been silent for so long that nothing is expected any more.
        since: When it became late; None when it is not.
        cause: Where its events are held up; None when it is not late.
    """

    tenant: str
    newest: datetime | None
    lag: timedelta
    sla: timedelta
    allowed: timedelta
    status: Status
    since: datetime | None = None
    cause: Cause | None = None


@dataclass(frozen=True)
class IncompleteDay:
    """A day that is over and lacks events of a tenant that was active.

    Attributes:
        day: The day.
        tenant: The tenant.
        last: Time of its newest event of that day or of one before.
        cause: Where its events are held up.
    """

    day: date
    tenant: str
    last: datetime
    cause: Cause


@dataclass(frozen=True)
class Freshness:
    """A stream's freshness.

    Attributes:
        tenants: The tenants, the late ones first, then those furthest behind.
        days: The recent days that were not complete in time, the newest first.
        unread: Records of the topic that the worker has been owing for longer than the SLA; None when Kafka does not
            answer.
    """

    tenants: tuple[TenantFreshness, ...]
    days: tuple[IncompleteDay, ...] = ()
    unread: int | None = 0

    def count(self, status: Status) -> int:
        """Number of tenants of a status."""
        return sum(tenant.status == status for tenant in self.tenants)

    @property
    def late(self) -> tuple[TenantFreshness, ...]:
        """The late tenants."""
        return tuple(tenant for tenant in self.tenants if tenant.status == "late")

    @property
    def alive(self) -> bool:
        """Whether a tenant sends as it should: a feed that died long ago is not merely idle."""
        return any(tenant.lag <= tenant.allowed for tenant in self.tenants)

    @property
    def passed(self) -> bool:
        """Whether no tenant is late and at least one sends as it should."""
        return self.alive and not self.late


def judge(
    silver: Iterable[Arrival],
    terms: Terms,
    now: datetime,
    *,
    unseen: Iterable[Arrival] = (),
    unread: int | None = 0,
) -> Freshness:
    """Judge what came in.

    Args:
        silver: What Silver holds, of :attr:`Terms.lookback` at least.
        terms: What the contract promises.
        now: The instance's present.
        unseen: What Bronze holds that Silver has not taken in.
        unread: Records that the worker has been owing for longer than the SLA; None when Kafka does not answer.
    """
    held, waiting = _by_tenant(silver), _by_tenant(unseen)
    input_cause: Cause = "unknown" if unread is None else "worker" if unread else "producer"
    tenants = [
        _tenant(tenant, held[tenant], waiting[tenant], terms, now, input_cause=input_cause)
        for tenant in held.keys() | waiting.keys()
    ]
    days = [
        IncompleteDay(day, tenant, last, "silver" if _any_of(waiting[tenant], day) else input_cause)
        for tenant, arrivals in held.items()
        for day, last in _incomplete(tenant, arrivals, terms, now)
    ]
    return Freshness(
        tuple(sorted(tenants, key=lambda found: (found.status != "late", -found.lag, found.tenant))),
        tuple(sorted(days, key=lambda found: (-found.day.toordinal(), found.tenant))),
        unread,
    )


def _by_tenant(arrivals: Iterable[Arrival]) -> defaultdict[str, list[Arrival]]:
    grouped: defaultdict[str, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        grouped[arrival.tenant].append(arrival)
    return grouped


def _tenant(
    tenant: str, held: list[Arrival], waiting: list[Arrival], terms: Terms, now: datetime, *, input_cause: Cause
) -> TenantFreshness:
    newest = max((arrival.last for arrival in held), default=None)
    owed = _owed(waiting, newest, now - terms.idle_after)
    allowed = max(terms.sla, terms.heartbeat.of(tenant))
    heard = newest or owed or max(arrival.last for arrival in waiting)
    lag = max(now - heard, timedelta(0))  # An event may be a little ahead of the clock.

    def found(status: Status, since: datetime | None = None, cause: Cause | None = None) -> TenantFreshness:
        return TenantFreshness(tenant, newest, lag, terms.sla, allowed, status, since, cause)

    if lag <= terms.sla:
        return found("fresh")
    # No silence: it has sent, and Silver has been owing it for longer than the SLA.
    if owed is not None and now - owed > terms.sla:
        return found("late", min(owed + terms.sla, heard + allowed), "silver")
    if allowed < lag <= terms.idle_after:
        return found("late", heard + allowed, "silver" if owed else input_cause)
    return found("idle")


def _owed(waiting: list[Arrival], newest: datetime | None, oldest: datetime) -> datetime | None:
    """Time of the oldest event that Silver lacks and that would make the tenant fresher.

    None when there is none, or none since a tenant has been expected to send: a backfill of old days owes nothing.
    """
    newer = [arrival for arrival in waiting if newest is None or arrival.last > newest]
    if not newer or max(arrival.last for arrival in newer) < oldest:
        return None
    # Of a file that reaches from before the newest event to after it, only the last event's place is known.
    return min(arrival.last if newest and arrival.first <= newest else arrival.first for arrival in newer)


def _any_of(arrivals: list[Arrival], day: date) -> bool:
    return any(arrival.day == day for arrival in arrivals)


def _incomplete(tenant: str, arrivals: list[Arrival], terms: Terms, now: datetime) -> Iterable[tuple[date, datetime]]:
    """The recent days that are over, and ended with a longer silence than is normal; each with the last event before.

    The silence ends with the tenant's next day where that begins earlier than the day ends in UTC: an event date may be
    a local one.
    """
    firsts: dict[date, datetime] = {}
    lasts: dict[date, datetime] = {}
    for arrival in arrivals:
        firsts[arrival.day] = min(arrival.first, firsts.get(arrival.day, arrival.first))
        lasts[arrival.day] = max(arrival.last, lasts.get(arrival.day, arrival.last))
    normal = terms.heartbeat.of(tenant)
    for number in range(RECENT.days + 1):
        day = now.date() - timedelta(days=number)
        end = datetime.combine(day + timedelta(days=1), time(), UTC)
        last = max((last for other, last in lasts.items() if other <= day), default=None)
        if last is None or end + terms.sla > now:
            continue
        until = min((first for other, first in firsts.items() if other > day), default=end)
        if normal < min(until, end) - last <= terms.idle_after:
            yield day, last
