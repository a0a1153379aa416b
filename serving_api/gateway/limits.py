"""How much each tenant may send: token buckets for events and bytes, a daily quota, and a bound on what is in flight.

A bucket may go into debt: a request is let in while there is anything in it, and pays for all that it brought. So a
request of any size gets through, and the rate holds on average.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from freshdata.settings import Settings, TenantLimits
from serving_api.gateway.refusals import busy, unavailable

# Of bodies that are being read or written to Kafka, in memory.
BYTES_IN_FLIGHT = 128 * 1024 * 1024
BYTES_IN_FLIGHT_OF_A_TENANT = BYTES_IN_FLIGHT // 4


class Bucket:
    """A token bucket that holds what comes in one second, and may go into debt."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._level = rate
        self._at = clock()

    def wait(self) -> float:
        """Seconds until there is something in it; 0 when there is."""
        now = self._clock()
        self._level = min(self._rate, self._level + (now - self._at) * self._rate)
        self._at = now
        return 0.0 if self._level > 0 else -self._level / self._rate + 1 / self._rate

    def take(self, amount: float) -> None:
        """Take from it, whether it is there or not."""
        self._level -= amount


class Admission:
    """A request that was let in, and what it has used of its tenant's limits."""

    def __init__(self, limits: "Limits", tenant: "_Tenant") -> None:
        self._limits = limits
        self._tenant = tenant
        tenant.requests += 1
        self._size = 0
        self._day = ""

    def received(self, size: int) -> None:
        """Bytes of the body have come in.

        Raises:
            RefusedError: too many are in flight, of the tenant or of all.
        """
        self._size += size
        self._tenant.bytes.take(size)
        self._tenant.size += size
        self._limits.size += size
        if self._tenant.size > BYTES_IN_FLIGHT_OF_A_TENANT:
            raise self._tenant.refusal("bytes in flight", f"more than {BYTES_IN_FLIGHT_OF_A_TENANT:,}", 1)
        if self._limits.size > BYTES_IN_FLIGHT:
            raise unavailable("The gateway has as much in flight as it can hold.")

    def spend(self, events: int) -> None:
        """Events are about to be written.

        Raises:
            RefusedError: the day's quota does not hold them.
        """
        self._day = self._tenant.reserve(events)

    def give_back(self, events: int) -> None:
        """Some of them were not written after all."""
        if self._tenant.day == self._day:  # Else they were of a day that is over.
            self._tenant.used -= events

    def release(self) -> None:
        """The request is answered."""
        self._tenant.requests -= 1
        self._tenant.size -= self._size
        self._limits.size -= self._size


class _Tenant:
    def __init__(self, limits: TenantLimits, clock: Callable[[], float], limited: Callable[[str], None]) -> None:
        self.limits = limits
        self.events = Bucket(limits.events_per_second, clock)
        self.bytes = Bucket(limits.bytes_per_second, clock)
        self.requests = 0
        self.size = 0
        self.day = ""
        self.used = 0
        self._limited = limited

    def refusal(self, limit: str, what: str, seconds: float) -> Exception:
        self._limited(limit)
        return busy(f"The tenant's limit of {limit} is reached: {what}.", seconds=seconds)

    def check(self) -> None:
        if self.requests >= self.limits.requests_in_flight:
            raise self.refusal("requests in flight", f"{self.requests}", 1)
        for limit, bucket, rate in (
            ("events a second", self.events, self.limits.events_per_second),
            ("bytes a second", self.bytes, self.limits.bytes_per_second),
        ):
            if seconds := bucket.wait():
                raise self.refusal(limit, f"{rate:,.0f}", seconds)

    def reserve(self, events: int) -> str:
        now = datetime.now(UTC)
        if (today := now.date().isoformat()) != self.day:
            self.day, self.used = today, 0
        quota = self.limits.events_per_day
        if quota is not None and self.used + events > quota:
            midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
            left = max(0, quota - self.used)
            raise self.refusal("events a day", f"{left:,} of {quota:,} are left", (midnight - now).total_seconds())
        self.used += events
        self.events.take(events)
        return today


class Limits:
    """The limits of all tenants.

    Attributes:
        size: Bytes of bodies in flight.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        limited: Callable[[str, str], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.size = 0
        self._settings = settings
        self._limited = limited
        self._clock = clock
        self._tenants: dict[str, _Tenant] = {}

    @contextmanager
    def admit(self, tenant: str) -> Iterator[Admission]:
        """Let a request in for the time of the block.

        Raises:
            RefusedError: the tenant has reached a limit.
        """
        self._tenant(tenant).check()
        with self.hold(tenant) as admission:
            yield admission

    @contextmanager
    def hold(self, name: str) -> Iterator[Admission]:
        """Let a request in, whatever its rate: of those under a name only the bytes in flight are bounded."""
        admission = Admission(self, self._tenant(name))
        try:
            yield admission
        finally:
            admission.release()

    @property
    def usage(self) -> dict[str, tuple[str, int]]:
        """Tenant to the day and the events written on it, of those that have written."""
        return {name: (state.day, state.used) for name, state in self._tenants.items() if state.day}

    def restore(self, usage: Mapping[str, tuple[str, int]]) -> None:
        """Go on from what an earlier process has counted."""
        for name, (day, used) in usage.items():
            state = self._tenant(name)
            state.day, state.used = day, used

    def _tenant(self, name: str) -> _Tenant:
        if name not in self._tenants:

            def limited(limit: str) -> None:
                self._limited(name, limit)

            self._tenants[name] = _Tenant(self._settings.limits_of(name), self._clock, limited)
        return self._tenants[name]
