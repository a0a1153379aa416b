"""Days and hours."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from freshdata.intervals import DAY, HOUR, day_of, each, first_hour, last_hour, ranges

DAYS = [date(2013, 1, day) for day in (1, 2, 3, 9)]
HOURS = [datetime(2013, 1, 1, 22, tzinfo=UTC) + HOUR * number for number in (0, 1, 2, 30)]


@pytest.mark.parametrize("intervals", [DAYS, HOURS])
def test_neighbours_make_one_range(intervals: list[date]) -> None:
    first, second, third, alone = intervals
    assert ranges({third, first, second, alone}) == [(first, third), (alone, alone)]
    assert ranges(set()) == []
    assert list(each(first, third)) == [first, second, third]


def test_a_day_has_the_hours_of_its_utc_day() -> None:
    day = DAYS[0]
    hours = list(each(first_hour(day), last_hour(day)))
    assert len(hours) == DAY // HOUR
    assert {day_of(hour) for hour in hours} == {day}


def test_a_moment_lies_in_the_hour_of_utc() -> None:
    moment = datetime(2013, 1, 1, 4, 45, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert first_hour(moment) == last_hour(moment) == datetime(2012, 12, 31, 23, tzinfo=UTC)
