"""What Gold must say about the events that were sent, worked out without SQL."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

Row = dict[str, Any]
Number = float | None


def gold_rows(events: Iterable[Row]) -> dict[str, dict[tuple[Any, ...], Row]]:
    """Each Gold table's rows by their grain.

    Args:
        events: The flight events as Bronze stores them; there is no weather.
    """
    flights: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for event in events:
        flights[tuple(event[name] for name in ("flight_date", "tenant_id", "flight", "sched_dep_time"))].append(event)
    flown = [_flight(of_flight) for of_flight in flights.values()]
    tables: dict[str, tuple[tuple[str, ...], Callable[[list[Row]], Row]]] = {
        "gold.carrier_day": (("flight_date", "tenant_id"), _carrier_day),
        "gold.route_day": (("flight_date", "origin", "dest"), _route_day),
        "gold.delay_by_weather": (("flight_date", "origin", "condition"), _delay),
    }
    expected: dict[str, dict[tuple[Any, ...], Row]] = {}
    for table, (grain, aggregate) in tables.items():
        groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for flight in flown:
            groups[tuple(flight[name] for name in grain)].append(flight)
        expected[table] = {key: dict(zip(grain, key, strict=True)) | aggregate(group) for key, group in groups.items()}
    return expected | {"gold.carrier_month": _carrier_months(expected["gold.carrier_day"].values())}


def _carrier_months(days: Iterable[Row]) -> dict[tuple[Any, ...], Row]:
    months: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for day in days:
        months[day["flight_date"].replace(day=1), day["tenant_id"]].append(day)
    return {
        key: {
            "flight_month": key[0],
            "tenant_id": key[1],
            "flights": sum(day["flights"] for day in group),
            "cancelled": sum(day["cancelled"] for day in group),
            "days": len(group),
            "busiest_day_flights": max(day["flights"] for day in group),
        }
        for key, group in months.items()
    }


def _flight(events: list[Row]) -> Row:
    flight = {name: max(event[name] for event in events) for name in ("flight_date", "tenant_id", "origin", "dest")}
    for delay, kind in (("dep_delay", "departed"), ("arr_delay", "arrived")):
        known = [event[delay] for event in events if event["event_type"] == kind and event[delay] is not None]
        flight[delay] = max(known, default=None)
    flight["cancelled"] = int(any(event["event_type"] == "cancelled" for event in events))
    return flight | {"condition": "unknown", "distance": max(event["distance"] for event in events)}


def _carrier_day(flights: list[Row]) -> Row:
    arrivals = _known(flights, "arr_delay")
    return _delay(flights) | {
        "mean_arr_delay_min": _mean(arrivals),
        "p90_arr_delay_min": _p90(arrivals),
        "on_time_share": _mean([float(delay < 15) for delay in arrivals]),
    }


def _route_day(flights: list[Row]) -> Row:
    row = _carrier_day(flights)
    del row["p90_arr_delay_min"]
    distance = max(flight["distance"] for flight in flights)
    return row | {"arrivals": len(_known(flights, "arr_delay")), "distance": distance}


def _delay(flights: list[Row]) -> Row:
    return {
        "flights": len(flights),
        "cancelled": sum(flight["cancelled"] for flight in flights),
        "mean_dep_delay_min": _mean(_known(flights, "dep_delay")),
    }


def _known(flights: list[Row], delay: str) -> list[float]:
    return [flight[delay] for flight in flights if flight[delay] is not None]


def _mean(values: list[float]) -> Number:
    return sum(values) / len(values) if values else None


def _p90(values: list[float]) -> Number:
    if not values:
        return None
    ordered, place = sorted(values), (len(values) - 1) * 0.9
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
