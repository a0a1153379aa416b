"""The freshness sensor on a real lake: what it tells, and that it tells it once."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import pytest
from pydantic import AnyHttpUrl

from freshdata.settings import Settings
from freshdata_assets.defs.freshness import sensor as module
from freshdata_assets.defs.freshness.alerts import alert_key
from freshdata_assets.defs.freshness.sensor import State, freshness_sensor
from freshdata_assets.platform import Platform
from tests.lakes import departures, ingest
from tests.silver import take_in

CHECK = dg.AssetCheckKey(dg.AssetKey(["silver", "flight_events"]), "tenant_freshness")
START = datetime(2013, 1, 4, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)


class OnCall:
    """A daemon that evaluates the sensor, and the instance in which it stores what that says."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.dagster = dg.DagsterInstance.ephemeral()
        self.cursor: str | None = None
        self.restart()

    def restart(self) -> None:
        """Load the code location anew; what Dagster stores stays."""
        self.sensor = freshness_sensor(self.platform)

    def tick(self, *, cut_off: bool = False) -> list[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
        """Evaluate the sensor, and store its events and, unless the daemon is killed in between, its cursor."""
        with dg.build_sensor_context(instance=self.dagster, cursor=self.cursor) as context:
            result = self.sensor(context)
        assert isinstance(result, dg.SensorResult)
        for event in result.asset_events:
            self.dagster.report_runless_asset_event(event)
        if not cut_off:
            self.cursor = result.cursor
        return list(result.asset_events)  # type: ignore[arg-type]

    def at(self, moment: datetime) -> None:
        self.platform.clock.set(start=date(2013, 1, 1), now=moment)

    @property
    def told(self) -> list[tuple[str, list[str]]]:
        """State and tenants of each alert, the oldest first."""
        records = self.dagster.fetch_materializations(alert_key("flight_events"), limit=100).records
        events = [record.asset_materialization for record in reversed(records)]
        return [
            (event.metadata["freshdata/state"].value, [row.data["tenant"] for row in table(event, "freshdata/tenants")])
            for event in events
            if event
        ]

    @property
    def outcomes(self) -> list[bool]:
        """The check's evaluations, the oldest first."""
        history = self.dagster.event_log_storage.get_asset_check_execution_history(CHECK, limit=100)
        return [record.event.dagster_event.asset_check_evaluation_data.passed for record in reversed(history)]  # type: ignore[union-attr]


def table(event: Any, name: str) -> Any:
    return event.metadata[name].records


@pytest.fixture
def on_call(platform: Platform) -> OnCall:
    return OnCall(platform)


def flow(settings: Settings, rows: list[dict[str, Any]]) -> None:
    ingest(settings, "flight_events", rows)
    take_in(settings, rows)


def test_nothing_is_told_of_streams_that_nothing_came_in_for(on_call: OnCall) -> None:
    assert on_call.tick() == []
    ingest(on_call.platform.settings, "flight_events", [])
    assert on_call.tick() == []
    # Silver does not exist yet: what comes in is judged all the same.
    ingest(on_call.platform.settings, "flight_events", departures(date(2013, 1, 3)))
    (event,) = on_call.tick()
    assert isinstance(event, dg.AssetCheckEvaluation)
    assert event.passed


def test_a_tenant_that_becomes_late_is_one_alert_however_often_one_looks(on_call: OnCall) -> None:
    flow(on_call.platform.settings, departures(date(2013, 1, 3)))
    on_call.tick()
    assert (on_call.told, on_call.outcomes) == ([], [True])

    flow(on_call.platform.settings, departures(date(2013, 1, 5), 1))
    on_call.at(START + 40 * HOUR)
    on_call.tick()
    for hours in range(1, 5):
        on_call.at(START + (40 + hours) * HOUR)
        on_call.tick()
    assert (on_call.told, on_call.outcomes) == ([("late", ["AA"])], [True, False])

    on_call.restart()
    on_call.tick()
    assert on_call.told == [("late", ["AA"])]

    flow(on_call.platform.settings, departures(date(2013, 1, 5), 4, event_id="again"))
    for _ in range(3):
        on_call.tick()
    assert on_call.told == [("late", ["AA"]), ("resolved", ["AA"])]
    assert on_call.outcomes == [True, False, True]
    (record, *_) = on_call.dagster.fetch_materializations(alert_key("flight_events"), limit=1).records
    event = record.asset_materialization
    assert event is not None
    # Late from the 5th, 17:03 on, 48 hours after its newest event; it is the 6th, 1:00.
    assert event.description == "flight_events: AA fresh again, after being late for 7 h 57 min"


def test_an_alert_says_why_and_so_does_the_check(on_call: OnCall) -> None:
    flow(on_call.platform.settings, departures(date(2013, 1, 3)))
    on_call.tick()
    ingest(on_call.platform.settings, "flight_events", departures(date(2013, 1, 5)))
    on_call.at(datetime(2013, 1, 5, 18, tzinfo=UTC))
    alert, check = on_call.tick()
    why = "Silver is behind Bronze, which holds newer events"
    assert alert.description == (
        f"flight_events: UA, AA late since 2013-01-05 17:02 UTC, 48 h 58 min behind, SLA 48 h 00 min: {why}"
    )
    assert check.description == f"0 fresh, 2 late, 0 idle; UA, AA late since 2013-01-05 17:02 UTC: {why}"
    assert [row.data["why"] for row in table(check, "freshdata/tenants")] == [why, why]


def test_an_idle_tenant_raises_nothing(on_call: OnCall) -> None:
    flow(on_call.platform.settings, [*departures(date(2012, 12, 30)), *departures(date(2013, 1, 3), 1)])
    on_call.tick()
    assert (on_call.told, on_call.outcomes) == ([], [True])


def test_a_new_tenant_is_watched_from_its_first_event_on(on_call: OnCall) -> None:
    flow(on_call.platform.settings, departures(date(2013, 1, 3)))
    on_call.tick()
    flow(on_call.platform.settings, departures(date(2013, 1, 4), 1, tenant_id="HA", event_id="first"))
    flow(on_call.platform.settings, departures(date(2013, 1, 6), event_id="later"))
    on_call.at(datetime(2013, 1, 6, 18, tzinfo=UTC))
    on_call.tick()
    assert on_call.told == [("late", ["HA"])]


def test_an_incomplete_day_is_named_with_its_reason(on_call: OnCall) -> None:
    flow(on_call.platform.settings, departures(date(2013, 1, 1)))
    flow(on_call.platform.settings, [row for day in (4, 5, 6) for row in departures(date(2013, 1, day))])
    on_call.at(datetime(2013, 1, 6, 18, tzinfo=UTC))
    (check,) = on_call.tick()
    assert isinstance(check, dg.AssetCheckEvaluation)
    assert check.passed
    (day,) = table(check, "freshdata/incomplete_days")
    assert (day.data["day"], day.data["tenants"]) == ("2013-01-03", "AA, UA")
    assert "2013-01-03 incomplete for AA, UA: " in str(check.description)


def test_a_check_that_says_the_same_is_reported_hourly(on_call: OnCall, monkeypatch: pytest.MonkeyPatch) -> None:
    flow(on_call.platform.settings, departures(date(2013, 1, 3)))
    on_call.tick()
    assert on_call.tick() == []
    monkeypatch.setattr(module, "REPORT_SECONDS", 0.0)
    assert len(on_call.tick()) == 1
    assert on_call.outcomes == [True, True]


def test_a_check_is_reported_again_when_its_table_was_written(on_call: OnCall) -> None:
    flow(on_call.platform.settings, departures(date(2013, 1, 3)))
    on_call.tick()
    on_call.dagster.report_runless_asset_event(dg.AssetMaterialization(CHECK.asset_key))
    assert len(on_call.tick()) == 1
    assert on_call.tick() == []


def test_a_tick_that_is_cut_off_tells_nothing_twice(on_call: OnCall) -> None:
    flow(on_call.platform.settings, departures(date(2013, 1, 3)))
    on_call.tick()
    on_call.at(START + 40 * HOUR)
    on_call.tick(cut_off=True)
    on_call.tick()
    on_call.tick()
    assert on_call.told == [("late", ["UA", "AA"])]
    flow(on_call.platform.settings, departures(date(2013, 1, 5), event_id="again"))
    on_call.tick(cut_off=True)
    on_call.tick()
    assert on_call.told == [("late", ["UA", "AA"]), ("resolved", ["UA", "AA"])]
    # The next time is another time.
    on_call.at(START + 90 * HOUR)
    on_call.tick()
    assert on_call.told[2:] == [("late", ["UA", "AA"])]


@dataclass
class Receiver:
    """A webhook's receiver, which takes what it is sent, or refuses it."""

    address: str = ""
    refuses: bool = False
    asked: int = 0
    taken: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.asked += 1
            if not found.refuses:
                assert self.headers["Content-Type"] == "application/json"
                found.taken.append(json.loads(body))
            self.send_response(503 if found.refuses else 204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        found.address = f"http://127.0.0.1:{server.server_port}/alerts"
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def paged(platform: Platform, receiver: Receiver) -> OnCall:
    settings = platform.settings.model_copy(update={"alert_webhook": AnyHttpUrl(receiver.address)})
    return OnCall(Platform(settings, platform.contracts, platform.models))


def test_each_alert_is_posted_once(paged: OnCall, receiver: Receiver) -> None:
    flow(paged.platform.settings, departures(date(2013, 1, 3)))
    paged.tick()
    assert receiver.asked == 0
    paged.at(START + 40 * HOUR)
    paged.tick()
    paged.tick()
    (payload,) = receiver.taken
    assert (payload["stream"], payload["state"]) == ("flight_events", "late")
    assert [tenant["tenant"] for tenant in payload["tenants"]] == ["UA", "AA"]


def test_what_the_webhook_refuses_is_posted_again_in_order_and_never_lost(paged: OnCall, receiver: Receiver) -> None:
    flow(paged.platform.settings, departures(date(2013, 1, 3)))
    paged.tick()
    receiver.refuses = True
    paged.at(START + 40 * HOUR)
    paged.tick()
    assert (receiver.asked, receiver.taken) == (1, [])
    # Dagster has the alert whatever the webhook does.
    assert paged.told == [("late", ["UA", "AA"])]

    flow(paged.platform.settings, departures(date(2013, 1, 5), event_id="again"))
    paged.restart()
    paged.tick()
    # "Resolved" waits behind "late".
    assert receiver.asked == 2
    receiver.refuses = False
    paged.tick()
    paged.tick()
    assert [payload["state"] for payload in receiver.taken] == ["late", "resolved"]
    assert State.from_json(paged.cursor).unsent == []


def test_a_receiver_that_is_gone_fails_nothing(paged: OnCall) -> None:
    settings = paged.platform.settings.model_copy(update={"alert_webhook": AnyHttpUrl("http://127.0.0.1:9/")})
    paged.platform = Platform(settings, paged.platform.contracts, paged.platform.models)
    paged.restart()
    flow(settings, departures(date(2013, 1, 3)))
    paged.at(START + 40 * HOUR)
    paged.tick()
    assert paged.told == [("late", ["UA", "AA"])]
    assert len(State.from_json(paged.cursor).unsent) == 1
