"""What somebody on call is told: each change once."""

from datetime import UTC, datetime, timedelta

from freshdata.contracts import Heartbeat
from freshdata.freshness import Arrival, Terms, judge
from freshdata.freshness.alerts import Alert, alerts, still_late

START = datetime(2013, 1, 10, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
TERMS = Terms(2 * HOUR, Heartbeat(2 * HOUR), 48 * HOUR)


def tick(told: dict[str, datetime], now: datetime, **newest: datetime) -> tuple[list[Alert], dict[str, datetime]]:
    held = [Arrival(tenant, moment.date(), moment, moment) for tenant, moment in newest.items()]
    found = list(alerts("orders", told, judge(held, TERMS, now), now))
    return found, still_late(told, found)


def test_late_is_told_once_and_so_is_fresh_again() -> None:
    told: dict[str, datetime] = {}
    states = []
    for hours, newest in [(1, 0), (3, 0), (4, 0), (5, 0), (6, 6), (7, 6)]:
        found, told = tick(told, START + hours * HOUR, A=START + newest * HOUR)
        states += [(hours, alert.state, [one.tenant for one in alert.tenants]) for alert in found]
    assert states == [(3, "late", ["A"]), (6, "resolved", ["A"])]
    assert told == {}


def test_an_alert_says_who_since_when_how_far_behind_and_why() -> None:
    (alert,), _ = tick({}, START + 3 * HOUR, A=START, B=START + 3 * HOUR)
    assert alert.text == (
        "orders: A late since 2013-01-10 14:00 UTC, 3 h 00 min behind, SLA 2 h 00 min: "
        "the producer is silent, the worker has read what Kafka holds"
    )
    assert alert.payload() == {
        "stream": "orders",
        "state": "late",
        "at": "2013-01-10T15:00:00+00:00",
        "text": alert.text,
        "tenants": [
            {
                "tenant": "A",
                "since": "2013-01-10T14:00:00+00:00",
                "late_seconds": 3600.0,
                "newest_event": "2013-01-10T12:00:00+00:00",
                "lag_seconds": 10800.0,
                "sla_seconds": 7200.0,
                "why": "the producer is silent, the worker has read what Kafka holds",
            }
        ],
    }


def test_the_end_says_how_long_it_was_late() -> None:
    _, told = tick({}, START + 3 * HOUR, A=START)
    (alert,), _ = tick(told, START + 5 * HOUR, A=START + 5 * HOUR)
    assert alert.text == "orders: A fresh again, after being late for 3 h 00 min"


def test_tenants_that_become_late_together_are_one_alert() -> None:
    (alert,), told = tick({}, START + 5 * HOUR, A=START + HOUR, B=START, C=START + 4 * HOUR)
    assert [one.tenant for one in alert.tenants] == ["B", "A"]
    # Who becomes late later is told alone.
    (alert,), _ = tick(told, START + 7 * HOUR, A=START + HOUR, B=START, C=START + 4 * HOUR)
    assert [one.tenant for one in alert.tenants] == ["C"]


def test_a_tenant_that_is_given_up_is_not_called_fresh() -> None:
    _, told = tick({}, START + 3 * HOUR, A=START)
    (alert,), told = tick(told, START + 60 * HOUR, A=START)
    assert (alert.state, told) == ("idle", {})
    assert "silent for so long that nothing is expected any more" in alert.text
    # Nor one that is not even named any more.
    (alert,), _ = tick({"A": START}, START + 60 * HOUR)
    assert alert.state == "idle"


def test_what_was_told_already_is_left_out() -> None:
    (alert,), _ = tick({}, START + 3 * HOUR, A=START, B=START)
    assert alert.without({}) == alert
    assert alert.without(alert.transitions) is None
    left = alert.without({"A": alert.transitions["A"], "B": "resolved 2013-01-09T00:00:00+00:00"})
    assert left is not None
    assert [one.tenant for one in left.tenants] == ["B"]
