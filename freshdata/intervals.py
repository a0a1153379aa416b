"""Days and hours, the intervals that partitions hold.

A day is a ``date``; an hour is the ``datetime`` at which it begins, in UTC. What takes intervals takes either, for a
``datetime`` is a ``date``; but the two cannot be compared, so that all of a range or a table are of one kind. The hours
of a day are those of the UTC day.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

Granularity = Literal["day", "hour"]
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def length(interval: date) -> timedelta:
    """How long a day or an hour is."""
    return HOUR if isinstance(interval, datetime) else DAY


def day_of(interval: date) -> date:
    """The day itself, or the day of an hour."""
    return interval.date() if isinstance(interval, datetime) else interval


def first_hour(interval: date) -> datetime:
    """The first hour of a day, or the hour that a moment lies in."""
    if isinstance(interval, datetime):
        return interval.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return datetime.combine(interval, time(), UTC)


def last_hour(interval: date) -> datetime:
    """The last hour of a day, or the hour that a moment lies in."""
    return first_hour(interval) + (timedelta(0) if isinstance(interval, datetime) else DAY - HOUR)


def each(first: date, last: date) -> Iterator[date]:
    """The days or hours from the first to the last, inclusive."""
    step = length(first)
    return (first + step * number for number in range((last - first) // step + 1))


def ranges(intervals: Iterable[date]) -> list[tuple[date, date]]:
    """Group days or hours into contiguous ranges, first and last inclusive, in order."""
    found: list[tuple[date, date]] = []
    for interval in sorted(intervals):
        if found and found[-1][1] + length(interval) == interval:
            found[-1] = (found[-1][0], interval)
        else:
            found.append((interval, interval))
    return found
