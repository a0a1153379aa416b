"""What is unusual about a day of a table: its statistics, judged by those of the days before it.

No rule says how many rows a day should have, how many nulls, or which values; the past does. A measure of a day is out
of range when it is further from the median of the past days than a number of their deviations. Median and MAD (median
absolute deviation) are used, as some of the days learned from were unusual themselves, and shall not move the range.

How far is far: Iglewicz and Hoaglin (How to Detect and Handle Outliers, 1993) call a value an outlier at 3.5
deviations. That is for one look at one value; dozens of measures are looked at each day, so the default is 5. And a
deviation that is estimated from a few days is often too small, so it counts ``1 + 10 / days`` times: of normally
distributed measures, as simulated, one in 25,000 is out of range by chance after 28 days, one in 350 after 7. It also
counts at least a twentieth of the rows, or what chance alone does to a share or a mean of so many rows, so what was the
same every day may move a little. Days of a week may differ: what would be in range for the same weekdays is in range.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from statistics import median
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from freshdata.contracts.model import AnomalyRules

Verdict = Literal["in range", "too low", "too high", "still learning"]
Measure = Literal["rows", "null share", "mean", "spread", "distance"]

HISTORY_DAYS = 28
LEAST_DAYS = 7
# A median of two weekdays is no median.
LEAST_WEEKDAYS = 3
# A column of text with more values on a day is one of names or keys, whose shares say nothing.
MOST_CATEGORIES = 50
# Of normally distributed values, the standard deviation is so many times the MAD.
MAD_TO_SIGMA = 1.4826
SMALL_SAMPLE = 10
# A median of four days is near each of them: simulated, their deviations from it are three quarters of what they should
# be. Twice as large, they hardly ever narrow the range of days whose weekdays do not differ.
WEEKDAY_FACTOR = 2
# The least deviations, so that what has been the same every day does not count as broken when it first moves a little.
ROWS_SHARE, LEAST_ROWS = 0.05, 0.5
LEAST_NULL_SHARE = 0.005
SPREAD_SHARE, MEAN_SHARE = 0.05, 0.01
LEAST_DISTANCE, DISTANCE_ERROR = 0.02, 0.3


@dataclass(frozen=True)
class Numbers:
    """Where the values of a numeric column lie on a day.

    Attributes:
        mean: Their mean.
        mean_error: Its standard error: so much of it is chance, more when a few values are far from the others.
        spread: Mean distance of the values from their median.
        spread_error: Its standard error.
    """

    mean: float
    mean_error: float
    spread: float
    spread_error: float


@dataclass(frozen=True)
class ColumnProfile:
    """One column on a day.

    Attributes:
        nulls: Share of rows without a value; a number that is none (NaN, infinity) is no value.
        numbers: Where its values lie; None for a column that is not numeric, or has no values.
        shares: Each value's share of the values; None for a column of other than a few texts or booleans.
    """

    nulls: float
    numbers: Numbers | None = None
    shares: Mapping[str, float] | None = None


@dataclass(frozen=True)
class DayProfile:
    """The statistics of a day.

    Attributes:
        rows: Its rows.
        columns: Its columns by name; empty when it has no rows.
    """

    rows: int
    columns: Mapping[str, ColumnProfile]

    def to_json(self) -> dict[str, Any]:
        """A form that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "DayProfile":
        """Read what :meth:`to_json` wrote."""
        return cls(
            content["rows"],
            {
                name: ColumnProfile(
                    column["nulls"], Numbers(**column["numbers"]) if column["numbers"] else None, column["shares"]
                )
                for name, column in content["columns"].items()
            },
        )


NO_ROWS = DayProfile(0, {})


@dataclass(frozen=True)
class Finding:
    """A measure of a day, judged.

    Attributes:
        day: The day.
        column: The column, or an empty string for a measure of the day as a whole.
        measure: What was measured. ``distance`` is half the sum of the differences between the shares of a column's
            values and those of the past (the total variation distance): 0 when they are the same, 1 when no value is.
        value: What it was.
        low: The least that the past lets expect; None while there is too little of it.
        high: The most.
        verdict: Whether it is in range.
    """

    day: date
    column: str
    measure: Measure
    value: float
    low: float | None
    high: float | None
    verdict: Verdict

    @property
    def anomalous(self) -> bool:
        """Whether it is out of range."""
        return self.verdict in ("too low", "too high")


def profile_day(rows: pa.Table) -> DayProfile:
    """The statistics of a day's rows."""
    if rows.num_rows == 0:
        return NO_ROWS
    return DayProfile(rows.num_rows, {name: _profile(rows[name]) for name in rows.column_names})


def judge_days(days: Iterable[date], known: Mapping[date, DayProfile], rules: AnomalyRules) -> list[Finding]:
    """Judge days, each by the ``HISTORY_DAYS`` before it.

    Args:
        days: The days; one without rows is judged like others if there were some before it.
        known: The statistics of all days that have rows, of these and of those before each of them.
        rules: What counts as unusual.
    """
    findings: list[Finding] = []
    for day in sorted(days):
        window = days_before(day)
        begin = next((when for when in window if when in known), day)
        past = {when: known.get(when, NO_ROWS) for when in window if when >= begin}
        if day in known or past:
            findings += judge_day(day, known.get(day, NO_ROWS), past, rules)
    return findings


def days_before(day: date) -> list[date]:
    """The days that a day is judged by, in order."""
    return [day - timedelta(days=number) for number in range(HISTORY_DAYS, 0, -1)]


def judge_day(day: date, found: DayProfile, past: Mapping[date, DayProfile], rules: AnomalyRules) -> list[Finding]:
    """Judge a day by days before it.

    Args:
        day: The day.
        found: Its statistics.
        past: Those of days before it, days without rows included.
        rules: How many deviations a measure may be off, and which columns are not judged.

    Returns:
        One finding for the number of rows, and one for each measure of each column that is known of at least
        ``LEAST_DAYS`` past days.
    """
    if len(past) < LEAST_DAYS:
        return [Finding(day, "", "rows", found.rows, None, None, "still learning")]
    rows = {when: float(profile.rows) for when, profile in past.items()}
    expected = expected_range(day, rows, lambda usual: max(LEAST_ROWS, ROWS_SHARE * usual), rules.volume)
    findings = [_judge((day, ""), "rows", found.rows, expected)]
    for name, column in found.columns.items():
        known = {when: profile.columns[name] for when, profile in past.items() if name in profile.columns}
        if name not in rules.ignored and len(known) >= LEAST_DAYS:
            findings += _judge_column((day, name), column, known, found.rows, rules)
    return findings


def _profile(column: pa.ChunkedArray) -> ColumnProfile:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    present = column.drop_null()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values = present.cast(pa.float64()).to_numpy()
        values = values[np.isfinite(values)]
        return ColumnProfile(1 - len(values) / len(column), _numbers(values) if len(values) else None)
    nulls = column.null_count / len(column)
    if len(present) and (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind)):
        counts = pc.value_counts(present.cast(kind))
        if len(counts) <= MOST_CATEGORIES:
            shares = {str(item["values"]): item["counts"] / len(present) for item in counts.to_pylist()}
            return ColumnProfile(nulls, shares=shares)
    return ColumnProfile(nulls)


def _numbers(values: npt.NDArray[np.float64]) -> Numbers:
    distances = np.abs(values - np.median(values))
    root = np.sqrt(len(values))
    return Numbers(
        mean=float(values.mean()),
        mean_error=float(values.std() / root),
        spread=float(distances.mean()),
        spread_error=float(distances.std() / root),
    )


def _judge_column(
    place: tuple[date, str], column: ColumnProfile, past: Mapping[date, ColumnProfile], rows: int, rules: AnomalyRules
) -> Iterator[Finding]:
    day, deviations = place[0], rules.distribution
    nulls = {when: profile.nulls for when, profile in past.items()}
    expected = expected_range(day, nulls, lambda usual: max(LEAST_NULL_SHARE, _share_error(usual, rows)), rules.nulls)
    yield _judge(place, "null share", column.nulls, expected)
    numbers = {when: profile.numbers for when, profile in past.items() if profile.numbers}
    if column.numbers and len(numbers) >= LEAST_DAYS:
        means = {when: found.mean for when, found in numbers.items()}
        spreads = {when: found.spread for when, found in numbers.items()}
        # Of values that hardly differ, a change within a percent is none.
        least = max(SPREAD_SHARE * median(spreads.values()), MEAN_SHARE * abs(median(means.values())))
        error = max(least, column.numbers.mean_error)
        expected = expected_range(day, means, lambda _: error, deviations)
        yield _judge(place, "mean", column.numbers.mean, expected)
        spread_error = max(least, column.numbers.spread_error)
        expected = expected_range(day, spreads, lambda _: spread_error, deviations)
        yield _judge(place, "spread", column.numbers.spread, expected)
    shares = {when: profile.shares for when, profile in past.items() if profile.shares}
    if column.shares and len(shares) >= LEAST_DAYS:
        usual = _usual(shares.values())
        distances = {when: _distance(found, usual) for when, found in shares.items()}
        expected = expected_range(day, distances, lambda _: max(LEAST_DISTANCE, DISTANCE_ERROR / rows**0.5), deviations)
        yield _judge(place, "distance", _distance(column.shares, usual), expected)


def _share_error(share: float, rows: int) -> float:
    """The standard error of a share among so many rows; one that was never seen may still be possible (Laplace)."""
    share = (share * rows + 1) / (rows + 2)
    return float(np.sqrt(share * (1 - share) / rows))


def _usual(past: Collection[Mapping[str, float]]) -> dict[str, float]:
    """The mean share of each value over days: a day with many rows counts as one with few."""
    total: dict[str, float] = {}
    for shares in past:
        for value, share in shares.items():
            total[value] = total.get(value, 0.0) + share / len(past)
    return total


def _distance(left: Mapping[str, float], right: Mapping[str, float]) -> float:
    return sum(abs(left.get(value, 0.0) - right.get(value, 0.0)) for value in left.keys() | right.keys()) / 2


def _judge(place: tuple[date, str], measure: Measure, value: float, expected: tuple[float, float]) -> Finding:
    low, high = expected
    if measure != "mean":
        low = max(low, 0.0)  # The others are counts, shares and distances.
    verdict: Verdict = "too low" if value < low else "too high" if value > high else "in range"
    return Finding(*place, measure, value, low, high, verdict)


def expected_range(
    day: date, past: Mapping[date, float], least: Callable[[float], float], deviations: float
) -> tuple[float, float]:
    """What past days let expect of a measure.

    Args:
        day: The day to expect it of.
        past: Past day to the measure then.
        least: The least that a deviation is taken for, given the median.
        deviations: How many deviations from the median are in range.

    Returns:
        The least and the most that is in range, for all days or for the same weekdays.
    """
    weekdays: dict[int, list[float]] = defaultdict(list)
    for when, value in past.items():
        weekdays[when.weekday()].append(value)
    deviation = _deviation(past.values())
    if len(past) == HISTORY_DAYS:
        # Where weekdays differ, the deviation of all days is mostly that difference.
        centers = {weekday: median(values) for weekday, values in weekdays.items()}
        around = median(abs(value - centers[when.weekday()]) for when, value in past.items())
        deviation = min(deviation, WEEKDAY_FACTOR * MAD_TO_SIGMA * around)
    margin = 1 + SMALL_SAMPLE / len(past)
    center = median(past.values())
    reach = deviations * max(margin * deviation, least(center))
    low, high = center - reach, center + reach
    if len(same := weekdays[day.weekday()]) >= LEAST_WEEKDAYS:
        center = median(same)
        # A few days may agree by chance: theirs is at least the deviation of all days.
        reach = deviations * max(margin * deviation, margin * _deviation(same), least(center))
        low, high = min(low, center - reach), max(high, center + reach)
    return low, high


def _deviation(values: Collection[float]) -> float:
    center = median(values)
    return MAD_TO_SIGMA * median(abs(value - center) for value in values)
