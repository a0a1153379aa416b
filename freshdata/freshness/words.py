"""Freshness in words: the same for the check, the alert and ``freshdata status``."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from freshdata.freshness.judge import Cause, Freshness

MOST_NAMES = 5


def describe(freshness: Freshness) -> str:
    """A stream's freshness in one line: how many tenants are what, who is late and why, which days are incomplete."""
    if not freshness.tenants:
        return "no event yet"
    counts = f"{freshness.count('fresh')} fresh, {freshness.count('late')} late, {freshness.count('idle')} idle"
    parts = [counts, *late_parts(freshness), *day_parts(freshness)]
    if not freshness.alive and not freshness.late:
        parts.insert(1, "no tenant sends any more")
    return "; ".join(parts)


def late_parts(freshness: Freshness) -> list[str]:
    """Who is late, since when, and why: one part for each cause."""
    groups: defaultdict[Cause, list[tuple[str, datetime]]] = defaultdict(list)
    for tenant in freshness.late:
        if tenant.cause and tenant.since:
            groups[tenant.cause].append((tenant.tenant, tenant.since))
    return [
        f"{named(name for name, _ in found)} late since {moment_text(min(since for _, since in found))}: "
        f"{why(cause, freshness.unread)}"
        for cause, found in groups.items()
    ]


def day_parts(freshness: Freshness) -> list[str]:
    """Which days are incomplete, for whom, and why: one part for each day and cause, the newest day first."""
    groups: defaultdict[tuple[str, Cause], list[str]] = defaultdict(list)
    for day in freshness.days:
        groups[day.day.isoformat(), day.cause].append(day.tenant)
    return [
        f"{day} incomplete for {named(tenants)}: {why(cause, freshness.unread)}"
        for (day, cause), tenants in groups.items()
    ]


def why(cause: Cause, unread: int | None) -> str:
    """A cause in words.

    Args:
        cause: The cause.
        unread: Records that the worker owes.
    """
    return {
        "silver": "Silver is behind Bronze, which holds newer events",
        "worker": f"the worker is behind, {unread:,} records of the topic are unread" if unread else "",
        "producer": "the producer is silent, the worker has read what Kafka holds",
        "unknown": "nothing newer is in Bronze, and Kafka does not answer",
    }[cause]


def named(names: Iterable[str]) -> str:
    """The first few of some names, and how many more there are."""
    listed = list(names)
    more = len(listed) - MOST_NAMES
    return ", ".join(listed[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def moment_text(moment: datetime) -> str:
    """A moment to the minute."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def duration_text(duration: timedelta) -> str:
    """A duration in hours and minutes, for example ``2 h 05 min``; below an hour in minutes and seconds."""
    seconds = int(duration.total_seconds())
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"
