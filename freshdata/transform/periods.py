"""Which days of a model an upstream day concerns: that day alone, a whole month, or those whose window it is in."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

Unit = Literal["day", "month", "year"]


@dataclass(frozen=True)
class Period:
    """How many upstream days one row of a model sums up.

    Attributes:
        unit: The rows of a whole day, month or year are made together, and dated by its first day.
        window_days: Days that a row looks back on, its own included.
    """

    unit: Unit = "day"
    window_days: int = 1

    @property
    def daily(self) -> bool:
        """Whether there is a row's worth of each day by itself."""
        return self.unit == "day"

    def start(self, day: date) -> date:
        """The day by which rows of a day's period are dated."""
        if self.unit == "day":
            return day
        return day.replace(day=1) if self.unit == "month" else day.replace(month=1, day=1)

    def whole(self, first: date, last: date) -> tuple[date, date]:
        """The shortest range of whole periods around a range of days, both inclusive."""
        return self.start(first), self._end(last)

    def touched(self, days: Iterable[date]) -> set[date]:
        """All days of the periods whose rows look at some days."""
        seen = {day + timedelta(days=later) for day in days for later in range(self.window_days)}
        if self.daily:
            return seen
        return {day for start in {self.start(day) for day in seen} for day in _each(start, self._end(start))}

    def starts(self, days: Iterable[date]) -> set[date]:
        """The days by which the rows of some days are dated."""
        return {self.start(day) for day in days}

    def stretches(self, first: date, last: date, most_days: int) -> Iterator[tuple[date, date]]:
        """Cut a range into ranges of whole periods, as long as possible, of some days at most but one period at least.

        Args:
            first: First day.
            last: Last day, inclusive.
            most_days: The most days of a range.
        """
        begin, last = self.whole(first, last)
        while begin <= last:
            end = self._end(begin)
            while (longer := self._end(end + timedelta(days=1))) <= last and (longer - begin).days < most_days:
                end = longer
            yield begin, end
            begin = end + timedelta(days=1)

    def _end(self, day: date) -> date:
        if self.unit == "day":
            return day
        start = self.start(day)
        year, month = divmod(start.month + (1 if self.unit == "month" else 12) - 1, 12)
        return start.replace(year=start.year + year, month=month + 1) - timedelta(days=1)


def _each(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=offset) for offset in range((last - first).days + 1))
