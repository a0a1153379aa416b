"""What is found unusual of a day, and what is not."""

import json
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshdata.contracts.model import AnomalyRules
from freshdata.quality.anomalies import (
    HISTORY_DAYS,
    LEAST_DAYS,
    MOST_CATEGORIES,
    DayProfile,
    expected_range,
    judge_day,
    judge_days,
    profile_day,
)
from freshdata.sample.flights import flight_events

DAY = date(2013, 3, 1)
RULES = AnomalyRules()
STATES = ["departed", "arrived", "cancelled"]


def ordinary(rng, rows=None, *, mean=20.0, shares=(0.49, 0.49, 0.02), nulls=0.02):
    """A day's rows whose number, nulls, values and categories vary by chance alone."""
    count = int(rng.poisson(1000 if rows is None else rows))
    delay = rng.normal(mean, 10, count)
    return pa.table(
        {
            "delay": pa.array(delay, mask=rng.random(count) < nulls),
            "state": pa.array(rng.choice(STATES, count, p=shares)),
            "late": pa.array(rng.random(count) < 0.1),
            "distance": pa.array(rng.integers(100, 2500, count)),
        }
    )


def past_of(rng, days=HISTORY_DAYS, **given):
    return {DAY - timedelta(days=n): profile_day(ordinary(rng, **given)) for n in range(1, days + 1)}


def anomalies(found, past, rules=RULES):
    findings = judge_day(DAY, profile_day(found) if isinstance(found, pa.Table) else found, past, rules)
    return {(finding.column, finding.measure): finding.verdict for finding in findings if finding.anomalous}


@pytest.mark.parametrize(
    ("unusual", "column", "measure", "verdict"),
    [
        ({"rows": 500}, "", "rows", "too low"),
        ({"rows": 2000}, "", "rows", "too high"),
        ({"nulls": 0.15}, "delay", "null share", "too high"),
        ({"nulls": 1.0}, "delay", "null share", "too high"),
        ({"mean": 30.0}, "delay", "mean", "too high"),
        ({"mean": -9.0}, "delay", "mean", "too low"),
        ({"shares": (0.95, 0.03, 0.02)}, "state", "distance", "too high"),
        ({"shares": (0.4, 0.4, 0.2)}, "state", "distance", "too high"),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_what_is_unusual_is_found(seed, unusual, column, measure, verdict):
    rng = np.random.default_rng(seed)
    past = past_of(rng)
    assert anomalies(ordinary(rng, **unusual), past)[column, measure] == verdict


def test_another_unit_is_found_by_the_spread():
    rng = np.random.default_rng(1)
    past, today = past_of(rng), ordinary(rng)
    tenfold = pa.array((today["distance"].to_numpy() - 1300) * 10 + 1300)
    found = anomalies(today.set_column(3, "distance", tenfold), past)
    assert found == {("distance", "spread"): "too high"}


def test_a_new_value_and_one_that_is_gone_are_found():
    rng = np.random.default_rng(2)
    past, today = past_of(rng), ordinary(rng)
    renamed = pa.array([value.replace("arrived", "landed") for value in today["state"].to_pylist()])
    assert ("state", "distance") in anomalies(today.set_column(1, "state", renamed), past)


def test_ordinary_noise_is_not_found():
    judged = found = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        findings = judge_day(DAY, profile_day(ordinary(rng)), past_of(rng), RULES)
        judged += len(findings)
        found += sum(finding.anomalous for finding in findings)
    assert judged >= 120 * 11
    assert found <= judged / 1000


def test_few_days_are_enough_and_make_few_false_alarms():
    judged = found = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        findings = judge_day(DAY, profile_day(ordinary(rng)), past_of(rng, LEAST_DAYS), RULES)
        judged += len(findings)
        found += sum(finding.anomalous for finding in findings)
    assert found <= judged / 200
    rng = np.random.default_rng(0)
    assert ("", "rows") in anomalies(ordinary(rng, rows=100), past_of(rng, LEAST_DAYS))


def test_numbers_that_are_far_from_normal_are_not_found():
    found = judged = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        days = [profile_day(pa.table({"delay": np.exp(rng.normal(2, 1.2, 800))})) for _ in range(HISTORY_DAYS + 1)]
        past = {DAY - timedelta(days=n): profile for n, profile in enumerate(days[1:], 1)}
        findings = judge_day(DAY, days[0], past, RULES)
        judged += len(findings)
        found += sum(finding.anomalous for finding in findings)
    assert found <= judged / 100


def weekly(rng, day):
    weekend = day.weekday() >= 5
    return ordinary(rng, 400 if weekend else 1000, mean=8 if weekend else 20, nulls=0.2 if weekend else 0.02)


@pytest.mark.parametrize("seed", range(3))
def test_weekends_are_judged_by_weekends(seed):
    rng = np.random.default_rng(seed)
    days = [DAY + timedelta(days=n) for n in range(-HISTORY_DAYS, 14)]
    known = {day: profile_day(weekly(rng, day)) for day in days}
    judged = days[HISTORY_DAYS:]
    assert not [finding for finding in judge_days(judged, known, RULES) if finding.anomalous]
    friday = DAY
    assert friday.weekday() == 4
    past = {day: profile for day, profile in known.items() if day < friday}
    assert anomalies(ordinary(rng, 400), past)["", "rows"] == "too low"


def test_what_was_the_same_every_day_may_move_a_little():
    same = profile_day(pa.table({"flights": [3.0] * 100, "carrier": ["UA"] * 100}))
    past = {DAY - timedelta(days=n): same for n in range(1, HISTORY_DAYS + 1)}
    moved = profile_day(pa.table({"flights": [3.0] * 98 + [4.0] * 12, "carrier": ["UA"] * 108 + ["AA"] * 2}))
    assert anomalies(same, past) == {}
    assert anomalies(moved, past) == {}
    gone = profile_day(pa.table({"flights": [9.0] * 40, "carrier": ["AA"] * 40}))
    assert anomalies(gone, past) == {
        ("", "rows"): "too low", ("flights", "mean"): "too high", ("carrier", "distance"): "too high",
    }  # fmt: skip


def test_unusual_days_of_the_past_do_not_hide_another():
    rng = np.random.default_rng(3)
    past = past_of(rng) | {DAY - timedelta(days=n): profile_day(ordinary(rng, rows=20, nulls=1.0)) for n in (2, 9, 15)}
    assert anomalies(ordinary(rng), past) == {}
    assert set(anomalies(ordinary(rng, rows=20, nulls=1.0), past)) >= {("", "rows"), ("delay", "null share")}


def test_a_single_far_value_is_no_shift():
    rng = np.random.default_rng(4)
    past, today = past_of(rng), ordinary(rng)
    far = today["distance"].to_numpy().copy()
    far[0] = 10_000_000
    assert anomalies(today.set_column(3, "distance", pa.array(far)), past) == {}


def test_a_year_of_real_flights():
    events = flight_events().drop_columns(["suffix", "event_time", "scheduled_departure"]).sort_by("flight_date")
    known, begin = {}, 0
    for counted in pc.value_counts(events["flight_date"].combine_chunks()).to_pylist():
        known[counted["values"]] = profile_day(events.slice(begin, counted["counts"]).drop_columns(["flight_date"]))
        begin += counted["counts"]
    found = {(each.day, each.column, each.measure) for each in judge_days(known, known, RULES) if each.anomalous}
    assert len({day for day, _, _ in found}) == 16
    # A blizzard, and Thanksgiving.
    assert {(date(2013, 2, 9), "event_type", "distance"), (date(2013, 11, 28), "", "rows")} <= found


def test_with_a_short_past_a_day_is_still_learned_from():
    rng = np.random.default_rng(5)
    (finding,) = judge_day(DAY, profile_day(ordinary(rng, rows=1)), past_of(rng, LEAST_DAYS - 1), RULES)
    assert (finding.verdict, finding.anomalous, finding.low, finding.high) == ("still learning", False, None, None)


def test_days_without_rows_are_judged_and_learned_from():
    rng = np.random.default_rng(6)
    known = {DAY - timedelta(days=n): profile_day(ordinary(rng)) for n in range(2, 12)}
    yesterday = DAY - timedelta(days=1)
    empty, today = judge_days([yesterday, DAY], known, RULES)
    assert (empty.day, empty.value, empty.verdict) == (yesterday, 0, "too low")
    assert (today.day, today.verdict) == (DAY, "too low")
    # Nothing is expected of a time before the first rows.
    assert judge_days([DAY - timedelta(days=30)], known, RULES) == []


def test_a_stream_of_working_days_may_rest_on_sunday():
    rng = np.random.default_rng(7)
    working = [DAY + timedelta(days=n) for n in range(-HISTORY_DAYS - 7, 0)]
    known = {day: profile_day(ordinary(rng)) for day in working if day.weekday() != 6}
    sunday = max(day for day in working if day.weekday() == 6)
    (finding,) = judge_days([sunday], known, RULES)
    assert finding.verdict == "in range"


def test_rules_say_how_far_is_far_and_what_is_left_alone():
    rng = np.random.default_rng(8)
    past, today = past_of(rng), ordinary(rng, rows=500, nulls=0.15)
    assert set(anomalies(today, past)) == {("", "rows"), ("delay", "null share")}
    assert set(anomalies(today, past, replace(RULES, volume=50.0))) == {("delay", "null share")}
    assert set(anomalies(today, past, replace(RULES, nulls=50.0))) == {("", "rows")}
    assert set(anomalies(today, past, replace(RULES, ignored=("delay",)))) == {("", "rows")}
    shifted = ordinary(rng, mean=30)
    assert set(anomalies(shifted, past)) == {("delay", "mean")}
    assert anomalies(shifted, past, replace(RULES, distribution=50.0)) == {}


def test_the_columns_of_a_day():
    profile = profile_day(
        pa.table(
            {
                "price": pa.array([Decimal("1.50"), None, Decimal("2.50"), None]),
                "wind": [1.0, float("nan"), float("inf"), 3.0],
                "code": pa.array(["a", "a", "b", None]).dictionary_encode(),
                "late": [True, None, False, False],
                "day": [DAY] * 4,
                "unknown": pa.nulls(4, pa.int32()),
            }
        )
    )
    price, wind, code = (profile.columns[name] for name in ("price", "wind", "code"))
    assert (price.nulls, price.numbers and price.numbers.mean, price.numbers and price.numbers.spread) == (0.5, 2, 0.5)
    # What is no number is no value.
    assert (wind.nulls, wind.numbers and wind.numbers.mean) == (0.5, 2)
    assert (code.nulls, code.shares) == (0.25, {"a": 2 / 3, "b": 1 / 3})
    assert profile.columns["late"].shares == {"True": 1 / 3, "False": 2 / 3}
    assert (profile.columns["day"].nulls, profile.columns["day"].shares) == (0, None)
    assert (profile.columns["unknown"].nulls, profile.columns["unknown"].numbers) == (1, None)
    names = profile_day(pa.table({"name": [str(number) for number in range(MOST_CATEGORIES + 1)]}))
    assert names.columns["name"].shares is None


def test_statistics_survive_json():
    for table in (ordinary(np.random.default_rng(9)), ordinary(np.random.default_rng(9)).slice(0, 0)):
        profile = profile_day(table)
        assert DayProfile.from_json(json.loads(json.dumps(profile.to_json()))) == profile


PAST = st.lists(st.floats(-1e6, 1e6), min_size=LEAST_DAYS, max_size=HISTORY_DAYS).map(
    lambda values: {DAY - timedelta(days=n): value for n, value in enumerate(values, 1)}
)


@given(PAST, st.floats(0, 100), st.floats(0.5, 20))
def test_the_median_is_in_range_and_more_deviations_are_a_wider_range(past, floor, deviations):
    low, high = expected_range(DAY, past, lambda _: floor, deviations)
    assert low <= np.median(list(past.values())) <= high
    wider = expected_range(DAY, past, lambda _: floor, 2 * deviations)
    assert wider[0] <= low
    assert high <= wider[1]


@given(PAST, st.floats(0.1, 100))
def test_a_range_moves_with_its_past(past, floor):
    low, high = expected_range(DAY, past, lambda _: floor, 5)
    moved = expected_range(DAY, {day: 2 * value + 1000 for day, value in past.items()}, lambda _: 2 * floor, 5)
    assert moved == pytest.approx((2 * low + 1000, 2 * high + 1000), rel=1e-6, abs=1e-3)
