"""The right answers, checked by hand for one day."""

from datetime import date

from freshdata.sample.expected import expected_carrier_day
from freshdata.sample.source import read_source


def test_a_day_by_hand():
    rows = expected_carrier_day(1).to_pylist()
    assert len({(row["flight_date"], row["tenant_id"]) for row in rows}) == len(rows) == 460
    assert sum(row["flights"] for row in rows) == 27_004
    assert sum(row["cancelled"] for row in rows) == 521
    american = next(row for row in rows if (row["flight_date"], row["tenant_id"]) == (date(2013, 1, 1), "AA"))
    source = [
        row for row in read_source("flights").slice(0, 900).to_pylist() if (row["day"], row["carrier"]) == (1, "AA")
    ]
    delays = sorted(row["arr_delay"] for row in source if row["arr_delay"] is not None)
    place = 0.9 * (len(delays) - 1)
    low = int(place)
    assert american["flights"] == len(source)
    assert american["cancelled"] == sum(row["dep_delay"] is None for row in source)
    assert abs(american["mean_arr_delay_min"] - sum(delays) / len(delays)) < 1e-9
    assert abs(american["p90_arr_delay_min"] - (delays[low] + (place - low) * (delays[low + 1] - delays[low]))) < 1e-9
    assert abs(american["on_time_share"] - sum(delay < 15 for delay in delays) / len(delays)) < 1e-9


def test_figures_without_a_flight_behind_them_are_null():
    rows = expected_carrier_day(1).to_pylist()
    grounded = [row for row in rows if row["cancelled"] == row["flights"]]
    assert [(row["flight_date"], row["tenant_id"]) for row in grounded] == [(date(2013, 1, 13), "YV")]
    assert grounded[0]["on_time_share"] is None
    assert grounded[0]["mean_dep_delay_min"] is None
