"""Flights as events: a departure and an arrival, or a cancellation, each at the moment it happened (UTC)."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from freshdata.sample.source import YEAR, read_source

STREAM = "flight_events"
NEW_YORK = "America/New_York"
# The airports table lacks them.
MISSING_ZONES = {
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/St_Thomas",
}
DAY = 24 * 60  # minutes
SUFFIX = {"departed": "dep", "arrived": "arr", "cancelled": "can"}


def flight_events() -> pa.Table:
    """All events of all flights of the source year.

    Returns:
        The contract's columns without ``event_id``, and with ``suffix`` (what the id ends with). In the source's order:
        departures, then arrivals, then cancellations.
    """
    source = read_source("flights")
    flights = {name: source[name].combine_chunks() for name in source.column_names}
    count = len(source)
    date = _date(flights)
    departure = utc(date, minutes(flights["sched_dep_time"]), pa.repeat(NEW_YORK, count))
    common = {
        "tenant_id": flights["carrier"],
        "flight_date": date,
        "flight": flights["flight"],
        "sched_dep_time": flights["sched_dep_time"],
        "scheduled_departure": departure,
        "tailnum": flights["tailnum"],
        "origin": flights["origin"],
        "dest": flights["dest"],
        "distance": flights["distance"],
    }
    left = later(departure, pc.fill_null(flights["dep_delay"], 0))
    base = pa.table(common)
    flew = pc.is_valid(flights["dep_delay"])
    return pa.concat_tables(
        [
            _events(base, "departed", left, dep_delay=flights["dep_delay"]).filter(flew),
            _events(
                base,
                "arrived",
                _arrivals(flights, date, departure, left),
                arr_delay=flights["arr_delay"],
                air_time=flights["air_time"],
            ).filter(flew),
            _events(base, "cancelled", departure).filter(pc.invert(flew)),
        ]
    )


def minutes(hhmm: Any) -> Any:
    """Minutes after midnight of a time written as ``hhmm`` (2400 is midnight at the day's end)."""
    hours = pc.divide(hhmm, 100)
    return pc.add(pc.multiply(hours, 60), pc.subtract(hhmm, pc.multiply(hours, 100)))


def utc(date: Any, minute: Any, zone: Any) -> Any:
    """The moment of a local time.

    Args:
        date: Local dates.
        minute: Minutes after that date's midnight; may be 24 hours and more, meaning the days after.
        zone: IANA name of each row's time zone.

    Returns:
        Timestamps in UTC. Of a time that clocks show twice the first is taken, of one they skip the end of the gap.
    """
    local = pc.add(date.cast(pa.timestamp("s")), pc.multiply(minute.cast(pa.int64()), 60).cast(pa.duration("s")))
    result = pa.nulls(len(local), pa.timestamp("s", "UTC"))
    for name in pc.unique(zone).to_pylist():
        here = pc.equal(zone, name)
        moments = pc.assume_timezone(local.filter(here), name, ambiguous="earliest", nonexistent="latest")
        result = pc.replace_with_mask(result, here, moments.cast(pa.timestamp("s", "UTC")))
    return result


def later(moment: Any, by_minutes: Any) -> Any:
    """Moments plus minutes."""
    return pc.add(moment, pc.multiply(by_minutes.cast(pa.int64()), 60).cast(pa.duration("s")))


def _arrivals(flights: dict[str, Any], date: Any, departure: Any, left: Any) -> Any:
    """When each flight arrived: by schedule and delay, else the clock there, else schedule and departure delay."""
    airports = read_source("airports")
    zones = dict(zip(airports["faa"].to_pylist(), airports["tzone"].to_pylist(), strict=True)) | MISSING_ZONES
    codes = flights["dest"].dictionary_encode()
    zone = pc.take(pa.array([zones[code] for code in codes.dictionary.to_pylist()]), codes.indices)
    scheduled = _first_after(date, minutes(flights["sched_arr_time"]), zone, departure)
    by_clock = _first_after(date, minutes(flights["arr_time"]), zone, left)
    return pc.coalesce(
        later(scheduled, flights["arr_delay"]), by_clock, later(scheduled, pc.fill_null(flights["dep_delay"], 0))
    )


def _first_after(date: Any, minute: Any, zone: Any, moment: Any) -> Any:
    """The first time after ``moment`` that clocks in ``zone`` show ``minute`` (delays reach two days)."""
    days = [utc(date, pc.add(minute, number * DAY), zone) for number in range(3)]
    return pc.if_else(pc.greater(days[0], moment), days[0], pc.if_else(pc.greater(days[1], moment), days[1], days[2]))


def _events(base: pa.Table, kind: str, time: Any, **measured: Any) -> pa.Table:
    unknown = pa.nulls(len(base), pa.int32())
    added = {
        "event_type": pa.repeat(kind, len(base)),
        "event_time": time,
        **{name: measured.get(name, unknown) for name in ("dep_delay", "arr_delay", "air_time")},
        "suffix": pa.repeat(SUFFIX[kind], len(base)),
    }
    for name, values in added.items():
        base = base.append_column(name, values)
    return base


def _date(flights: dict[str, Any]) -> Any:
    number = pc.add(pc.add(YEAR * 10000, pc.multiply(flights["month"], 100)), flights["day"])
    return pc.strptime(number.cast(pa.string()), format="%Y%m%d", unit="s").cast(pa.date32())
