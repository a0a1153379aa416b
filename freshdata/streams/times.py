"""Times of a sample's events, and the spans that are made of them."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from statistics import quantiles
from typing import Any

import msgspec

# What a span is rounded up to, for people to read.
STEPS = [timedelta(**{unit: count}) for unit, counts in (
    ("minutes", (10, 15, 30)), ("hours", (1, 2, 3, 6, 12)), ("days", (1, 2, 3, 4, 5, 7, 10, 14, 21, 30)),
) for count in counts]  # fmt: skip


def moment(value: Any) -> datetime | None:
    """The moment that a value is in UTC; None when it is none, or has no zone."""
    try:
        found: datetime = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        return None
    return found.astimezone(UTC) if found.tzinfo else None


def day(value: Any) -> date | None:
    """The date that a value is, or None."""
    try:
        found: date = msgspec.convert(value, date)
    except msgspec.ValidationError:
        return None
    return found


def usual_gap(moments: list[datetime]) -> timedelta | None:
    """The span within which 95 of 100 of some sorted moments follow one another; None when they are too few."""
    gaps = [later - earlier for earlier, later in pairwise(moments) if later > earlier]
    if len(gaps) < 2:  # One tells nothing of what is usual.
        return None
    return timedelta(seconds=quantiles([gap.total_seconds() for gap in gaps], n=20)[-1])


def rounded_up(span: timedelta) -> timedelta:
    """The next of the steps; the last one for what is longer."""
    return next((step for step in STEPS if step >= span), STEPS[-1])
