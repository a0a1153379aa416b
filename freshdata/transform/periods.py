"""Which days or hours of a model an upstream one concerns: itself, a whole month, or those whose window it is in."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from freshdata.intervals import Granularity, day_of, each, first_hour, last_hour, length

Unit = Literal["hour", "day", "month", "year"]


@dataclass(frozen=True)
class Period:
    """How many upstream days or hours one row of a model sums up.

    Days and hours of whatever is upstream are taken; told are those of the model: hours if its unit is the hour, else
    days. An hour belongs to its day in UTC.

    Attributes:
        unit: The rows of a whole hour, day, month or year are made together, and dated by its beginning.
        window: Days, or hours of a model in hours, that a row looks back on, its own included.
    """

    unit: Unit = "day"
    window: int = 1

    @property
    def granularity(self) -> Granularity | None:
        """What there is a row's worth of by itself: each day, or each hour; None for months and years."""
        return self.unit if self.unit in ("day", "hour") else None

    def start(self, interval: date) -> date:
        """The day or hour by which rows of an interval's period are dated."""
        if self.unit == "hour":
            return first_hour(interval)
        day = day_of(interval)
        if self.unit == "day":
            return day
        return day.replace(day=1) if self.unit == "month" else day.replace(month=1, day=1)

    def whole(self, first: date, last: date) -> tuple[date, date]:
        """The shortest range of whole periods around a range, both inclusive."""
        return self.start(first), self._end(last)

    def touched(self, intervals: Iterable[date]) -> set[date]:
        """All days or hours of the periods whose rows look at some intervals."""
        own = {one for interval in intervals for one in self._own(interval)}
        seen = {one + length(one) * later for one in own for later in range(self.window)}
        if self.granularity:
            return seen
        return {day for start in {self.start(day) for day in seen} for day in each(start, self._end(start))}

    def starts(self, intervals: Iterable[date]) -> set[date]:
        """The days or hours by which the rows of some intervals are dated."""
        return {self.start(interval) for interval in intervals}

    def stretches(self, first: date, last: date, most_days: int) -> Iterator[tuple[date, date]]:
        """Cut a range into ranges of whole periods, as long as possible, of some days at most but one period at least.

        Args:
            first: First day or hour.
            last: Last day or hour, inclusive.
            most_days: The most days of a range.
        """
        begin, last = self.whole(first, last)
        step, most = length(begin), timedelta(days=most_days)
        while begin <= last:
            end = self._end(begin)
            while (longer := self._end(end + step)) <= last and longer - begin + step <= most:
                end = longer
            yield begin, end
            begin = end + step

    def _own(self, interval: date) -> Iterable[date]:
        if self.unit == "hour":
            return each(first_hour(interval), last_hour(interval))
        return (day_of(interval),)

    def _end(self, interval: date) -> date:
        if self.unit == "hour":
            return last_hour(interval)
        if self.unit == "day":
            return day_of(interval)
        start = self.start(interval)
        year, month = divmod(start.month + (1 if self.unit == "month" else 12) - 1, 12)
        return start.replace(year=start.year + year, month=month + 1) - timedelta(days=1)
