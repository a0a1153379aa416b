"""The demo's verdict: everything must hold, and what does not is named."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from freshdata.contracts import Heartbeat
from freshdata.demo.outcome import Answer, CheckOutcome, Outcome
from freshdata.demo.page import print_page
from freshdata.demo.reconcile import Check
from freshdata.freshness import Arrival, Terms, judge
from freshdata.lake.progress import PartitionProgress

NOW = datetime(2013, 2, 1, tzinfo=UTC)


TERMS = Terms(timedelta(hours=5), Heartbeat(timedelta(hours=5)), timedelta(days=3))


def fresh(hours):
    newest = {"UA": NOW - timedelta(hours=hours), "AA": NOW}
    return judge([Arrival(tenant, last.date(), last, last) for tenant, last in newest.items()], TERMS, NOW)


GOOD = Outcome(
    title="a test",
    claim="Every event is accounted for.",
    hints={"freshdata verify": "compare again"},
    now=NOW,
    progress={"flight_events": PartitionProgress(9, None, consumed=9, accepted=7, duplicates=1, rejected=1, late=1)},
    reasons={"the message is empty": 1, "x" * 200: 1},
    tables={"bronze.flight_events": (7, 1)},
    checks=[CheckOutcome("silver.flight_events", "not_null", passed=True, severity="ERROR")],
    freshness={"flight_events": fresh(1)},
    answers=[Answer("On time", [{"carrier": "UA", "share": 0.5}]), Answer("Nothing", [])],
    reconciliation=[Check("sent = stored", "9", "9")],
    steps=[("start", 1.0)],
    failures=[],
    logs=Path("/logs"),
)


def page(outcome):
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    print_page(console, outcome)
    return console.export_text()


def test_all_holds():
    assert GOOD.ok
    assert "Every event is accounted for" in page(GOOD)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"reconciliation": [Check("sent = stored", "9", "8")]}, "sent = stored: 9 is not 8"),
        ({"failures": ["run 1 of live failed"]}, "run 1 of live failed"),
        ({"checks": [CheckOutcome("a.b", "c", passed=False, severity="ERROR")]}, "a.b: check c failed"),
        ({"freshness": {"flight_events": fresh(9)}}, "flight_events: a tenant is late"),
        ({"checks": []}, "Dagster recorded no check"),
    ],
)
def test_what_does_not_hold_is_named(change, problem):
    outcome = replace(GOOD, **change)
    assert not outcome.ok
    assert outcome.problems == [problem]
    assert problem in page(outcome)


def test_a_warning_is_shown_and_fails_nothing():
    outcome = replace(GOOD, checks=[CheckOutcome("a.b", "nulls", passed=False, severity="WARN")])
    assert outcome.ok
    assert "nulls (warn)" in page(outcome)
