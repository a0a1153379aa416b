"""One tenant cannot starve another, and is told when it may go on."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from freshdata.api_keys import create_key, keys_file
from freshdata.settings import Settings, TenantLimits
from serving_api.gateway.limits import BYTES_IN_FLIGHT_OF_A_TENANT, Limits
from serving_api.gateway.refusals import RefusedError
from tests.streams import flight_event

UA, AA = flight_event(0), flight_event(1)


class Time:
    now = 0.0

    def __call__(self):
        return self.now


def limits(time, **of_all):
    return Limits(Settings(gateway_limits=TenantLimits(**of_all)), clock=time)


def send(limits, events=1, size=1, tenant="UA"):
    with limits.admit(tenant) as admission:
        admission.received(size)
        admission.spend(events)


@pytest.mark.parametrize("what", ["events", "size"])
def test_the_rate_holds_on_average_and_a_request_of_any_size_gets_through(what):
    time = Time()
    rate = {"events": "events_per_second", "size": "bytes_per_second"}[what]
    tried = limits(time, **{rate: 100})
    send(tried, **{what: 100})
    with pytest.raises(RefusedError) as refused:
        send(tried)
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "1")
    time.now += 1
    send(tried, **{what: 550})
    with pytest.raises(RefusedError) as refused:
        send(tried)
    wait = int(refused.value.headers["Retry-After"])
    assert wait in (5, 6)
    time.now += wait
    send(tried)
    send(tried, tenant="AA")


def test_a_silent_tenant_saves_up_one_second_and_no_more():
    time = Time()
    tried = limits(time, events_per_second=10)
    time.now += 3600
    send(tried, events=10)
    with pytest.raises(RefusedError):
        send(tried)


def test_one_tenants_requests_do_not_take_anothers_place(doors):
    door = doors(gateway_limits=TenantLimits(requests_in_flight=2))
    other = create_key(keys_file(door.settings), tenant="AA")[1]
    door.writer.hold = True

    async def crowd():
        waiting = [asyncio.create_task(door.send(UA)) for _ in range(2)]
        while len(door.writer.held) < 2:
            await asyncio.sleep(0)
        refused = await door.send(UA)
        door.writer.hold = False
        let_in = await door.send(AA, token=other)
        for answer in door.writer.held:
            answer()
        return refused, let_in, await asyncio.gather(*waiting), await door.send(UA)

    refused, let_in, waiting, later = door.runner.run(crowd())
    assert (refused.status_code, let_in.status_code) == (429, 202)
    assert refused.headers["Retry-After"]
    assert [answer.status_code for answer in [*waiting, later]] == [202] * 3
    assert 'freshdata_gateway_limited_total{limit="requests in flight",tenant="UA"} 1.0' in door.get("/metrics").text


def test_bytes_in_flight_are_bounded_and_given_back():
    tried = limits(Time(), bytes_per_second=1e12)
    half = BYTES_IN_FLIGHT_OF_A_TENANT // 2 + 1
    with tried.admit("UA") as first, tried.admit("UA") as second:
        first.received(half)
        with pytest.raises(RefusedError, match="bytes in flight"):
            second.received(half)
        with tried.admit("AA") as other:
            other.received(half)
    assert tried.size == 0
    send(tried, size=half)


def test_the_whole_gateway_holds_so_many_bytes_only():
    tried = limits(Time(), bytes_per_second=1e12)
    quarter = BYTES_IN_FLIGHT_OF_A_TENANT
    with tried.admit("A") as a, tried.admit("B") as b, tried.admit("C") as c, tried.admit("D") as d:
        for admission in (a, b, c, d):
            admission.received(quarter)
        with tried.admit("E") as e, pytest.raises(RefusedError) as refused:
            e.received(1)
    assert refused.value.status == 503


def test_a_daily_quota_counts_what_was_written_and_survives_a_restart(doors):
    quota = {"gateway_tenants": {"UA": TenantLimits(events_per_day=3)}}
    door = doors(**quota)
    assert door.post([UA, {}]).status_code == 207
    door.gateway._store.save_usage(door.gateway._limits.usage)
    door = doors(**quota)
    assert door.post([UA] * 3).status_code == 429
    assert door.post([UA] * 2).status_code == 202
    refused = door.post(UA)
    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 24 * 3600 + 1
    other = create_key(keys_file(door.settings), tenant="AA")[1]
    assert door.post(AA, token=other).status_code == 202


def test_what_is_given_back_after_midnight_is_not_of_the_new_day(monkeypatch):
    class Calendar(datetime):
        today = datetime(2013, 1, 5, 23, 59, tzinfo=UTC)

        @classmethod
        def now(cls, _zone):
            return cls.today

    monkeypatch.setattr("serving_api.gateway.limits.datetime", Calendar)
    tried = limits(Time(), events_per_day=10)
    with tried.admit("UA") as late:
        late.spend(8)
        late.give_back(1)
        assert tried.usage == {"UA": ("2013-01-05", 7)}
        Calendar.today += timedelta(minutes=2)
        send(tried, events=10)
        late.give_back(2)
    assert tried.usage == {"UA": ("2013-01-06", 10)}


def test_limits_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("FRESHDATA_GATEWAY_LIMITS", json.dumps({"events_per_second": 50, "events_per_day": 10}))
    monkeypatch.setenv("FRESHDATA_GATEWAY_TENANTS", json.dumps({"UA": {"events_per_second": 500}}))
    settings = Settings()
    assert settings.limits_of("AA").events_per_second == 50
    assert settings.limits_of("UA") == TenantLimits(events_per_second=500, events_per_day=10)
