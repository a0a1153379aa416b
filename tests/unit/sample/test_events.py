"""The sample's events are the source's flights and observations, at the right moments."""

from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from freshdata.errors import PrerequisiteError
from freshdata.sample.flights import flight_events
from freshdata.sample.source import month_days, read_source
from freshdata.sample.timeline import _flight_id, _observation_id
from freshdata.sample.weather import weather_events


@pytest.fixture(scope="module")
def flights():
    return flight_events()


@pytest.fixture(scope="module")
def by_id(flights):
    ids = _flight_id(flights).to_pylist()
    rows = flights.select(["event_time", "dep_delay", "arr_delay", "scheduled_departure"]).to_pylist()
    return dict(zip(ids, rows, strict=True))


def test_every_flight_of_the_year_departs_and_arrives_or_is_cancelled(flights, by_id):
    assert len(read_source("flights")) == 336_776
    counts = {row["values"]: row["counts"] for row in pc.value_counts(flights["event_type"]).to_pylist()}
    assert counts == {"departed": 328_521, "arrived": 328_521, "cancelled": 8_255}
    assert len(by_id) == len(flights)  # All ids differ.
    without = flights.filter(pc.equal(flights["event_type"], "arrived"))["arr_delay"].null_count
    assert without == 1_175


def test_the_schedule_agrees_with_the_sources_own_utc_hour(flights):
    source = read_source("flights")
    flew = pc.is_valid(source["dep_delay"])
    hours = pc.floor_temporal(
        flights.filter(pc.equal(flights["event_type"], "departed"))["scheduled_departure"], unit="hour"
    )
    assert hours.to_pylist() == source.filter(flew)["time_hour"].to_pylist()


@pytest.mark.parametrize(
    ("event", "moment"),
    [
        # Checked by hand from the source's local times and delays.
        ("UA-1545-20130101-0515-dep", (1, 1, 10, 17)),  # 05:15 EST + 2
        ("UA-1545-20130101-0515-arr", (1, 1, 14, 30)),  # Houston 08:19 CST + 11
        ("B6-725-20130101-0545-arr", (1, 1, 14, 4)),  # Aguadilla (not among the airports) 10:22 AST - 18
        ("HA-51-20130101-0900-arr", (1, 2, 1, 16)),  # Honolulu 15:30 HST - 14
        ("UA-1482-20130101-2030-dep", (1, 2, 1, 35)),
        ("UA-1482-20130101-2030-arr", (1, 2, 7, 37)),  # Los Angeles 00:05 PST of the next day - 28
        ("HA-51-20130109-0900-dep", (1, 10, 11, 41)),  # 21 h 41 min late
        ("HA-51-20130109-0900-arr", (1, 10, 22, 42)),
        ("B6-727-20130309-2359-dep", (3, 10, 5, 53)),  # 23:59 EST + 54, two hours before clocks change
        ("B6-727-20130309-2359-arr", (3, 10, 9, 4)),  # 04:38 AST + 26
        ("DL-461-20130310-0600-dep", (3, 10, 9, 53)),  # 06:00 EDT - 7
        ("DL-461-20130310-0600-arr", (3, 10, 12, 15)),  # Atlanta 08:30 EDT - 15
        ("US-334-20130701-0655-arr", (7, 1, 16, 4)),  # Phoenix 09:06 MST (no summer time) - 2
        ("AA-655-20130701-0800-arr", (7, 1, 15, 54)),  # Saint Thomas 12:00 AST - 6
        ("US-1632-20130727-0106-can", (7, 27, 5, 6)),  # at its scheduled departure
        ("UA-322-20131103-0520-dep", (11, 3, 10, 19)),  # 05:20 EST - 1, after clocks changed back
        ("UA-322-20131103-0520-arr", (11, 3, 13, 51)),  # Houston 08:00 CST - 9
        ("MQ-4525-20130101-1530-arr", (1, 2, 1, 34)),  # no delay known; the clock at its arrival: 19:34 CST
        ("EV-4204-20130101-1930-arr", (1, 2, 5, 6)),  # no clock either: 22:20 CST + departure delay 46
    ],
)
def test_moments(by_id, event, moment):
    assert by_id[event]["event_time"] == datetime(2013, *moment, tzinfo=UTC)


def test_arrivals_follow_departures(by_id):
    for event, row in by_id.items():
        if event.endswith("-arr"):
            departed = by_id[event.removesuffix("arr") + "dep"]
            assert departed["event_time"] < row["event_time"]
            assert (row["dep_delay"], departed["arr_delay"]) == (None, None)


def test_weather_is_whole_and_dated_locally():
    weather = weather_events()
    ids = _observation_id(weather).to_pylist()
    assert (len(weather), len(set(ids))) == (26_115, 26_115)
    assert ids[0] == "EWR-20130101T0600Z"
    assert weather["weather_date"][0].as_py() == date(2013, 1, 1)
    source = read_source("weather")
    days = [
        date(2013, month, day)
        for month, day in zip(source["month"].to_pylist(), source["day"].to_pylist(), strict=True)
    ]
    assert weather["weather_date"].to_pylist() == days


def test_nulls_of_the_source_are_nulls():
    assert read_source("flights")["tailnum"].null_count == 2_512
    assert read_source("planes")["speed"].null_count == 3_299
    assert read_source("planes").schema.field("speed").type == pa.int32()


def test_an_unknown_file_is_a_clear_error():
    with pytest.raises(PrerequisiteError, match="no data file for trains"):
        read_source("trains")


def test_months():
    assert month_days(1) == (date(2013, 1, 1), date(2013, 2, 1))
    assert month_days(12) == (date(2013, 1, 1), date(2014, 1, 1))
    with pytest.raises(ValueError, match="13"):
        month_days(13)
