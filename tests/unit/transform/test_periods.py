"""Which days belong together."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshdata.transform.periods import Period, Unit

UNITS: list[Unit] = ["day", "month", "year"]
days = st.dates(date(1999, 1, 1), date(2101, 12, 31))


@pytest.mark.parametrize(
    ("unit", "whole"),
    [
        ("day", (date(2012, 2, 10), date(2012, 12, 1))),
        ("month", (date(2012, 2, 1), date(2012, 12, 31))),
        ("year", (date(2012, 1, 1), date(2012, 12, 31))),
    ],
)
def test_a_range_is_widened_to_whole_periods(unit: Unit, whole: tuple[date, date]) -> None:
    assert Period(unit).whole(date(2012, 2, 10), date(2012, 12, 1)) == whole


def test_a_leap_day_is_of_its_month() -> None:
    assert Period("month").touched([date(2012, 2, 29)]) == {date(2012, 2, day) for day in range(1, 30)}


def test_a_window_is_seen_by_the_days_after() -> None:
    assert Period(window=3).touched([date(2012, 12, 31)]) == {
        date(2012, 12, 31), date(2013, 1, 1), date(2013, 1, 2),
    }  # fmt: skip


def test_a_windows_months_are_touched_whole() -> None:
    assert Period("month", window=2).starts(Period("month", window=2).touched([date(2013, 1, 31)])) == {
        date(2013, 1, 1), date(2013, 2, 1),
    }  # fmt: skip


def test_an_hour_touches_itself_and_the_day_or_month_it_lies_in() -> None:
    last = datetime(2012, 12, 31, 23, tzinfo=UTC)
    assert Period("hour").touched([last]) == {last}
    assert Period("hour", window=2).touched([last]) == {last, datetime(2013, 1, 1, tzinfo=UTC)}
    assert Period("day").touched([last]) == {date(2012, 12, 31)}
    assert Period("month").starts(Period("month").touched([last])) == {date(2012, 12, 1)}


def test_a_day_touches_its_hours() -> None:
    day = date(2012, 12, 31)
    hours = {datetime(2012, 12, 31, hour, tzinfo=UTC) for hour in range(24)}
    assert Period("hour").touched([day]) == hours
    assert Period("hour").whole(day, day) == (min(hours), max(hours))
    assert list(Period("hour").stretches(day, day + timedelta(days=2), 2)) == [
        (min(hours), max(hours) + timedelta(days=1)), (min(hours) + timedelta(days=2), max(hours) + timedelta(days=2)),
    ]  # fmt: skip


@given(unit=st.sampled_from(UNITS), first=days, length=st.integers(0, 900), most=st.integers(1, 100))
def test_stretches_are_whole_periods_without_gap_or_overlap(unit: Unit, first: date, length: int, most: int) -> None:
    period, last = Period(unit), first + timedelta(days=length)
    found = list(period.stretches(first, last, most))
    assert (found[0][0], found[-1][1]) == period.whole(first, last)
    assert all(period.whole(*stretch) == stretch for stretch in found)
    assert all(after[0] - before[1] == timedelta(days=1) for before, after in pairwise(found))
    for begin, end in found:
        assert (end - begin).days < most or period.whole(begin, begin)[1] == end
