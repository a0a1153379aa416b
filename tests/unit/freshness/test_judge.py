"""Which tenants are fresh, late or idle, why, and which days are incomplete."""

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from freshdata.contracts import Heartbeat
from freshdata.freshness import Arrival, Freshness, Terms, describe, judge

NOW = datetime(2013, 1, 10, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
TERMS = Terms(36 * HOUR, Heartbeat(36 * HOUR), 72 * HOUR)
# News is due within the hour, but a night's silence is normal, and HA sends twice a week.
NIGHTS = Terms(HOUR, Heartbeat(10 * HOUR, {"HA": 4 * DAY}), 7 * DAY)


def arrival(tenant: str, age: timedelta, length: timedelta = timedelta(0)) -> Arrival:
    last = NOW - age
    return Arrival(tenant, last.date(), last - length, last)


def statuses(found: Freshness) -> dict[str, str]:
    return {tenant.tenant: tenant.status for tenant in found.tenants}


def test_each_side_of_each_limit() -> None:
    ages = {"A": 36 * HOUR, "B": 37 * HOUR, "C": 72 * HOUR, "D": 73 * HOUR}
    found = judge([arrival(tenant, age) for tenant, age in ages.items()], TERMS, NOW)
    assert [tenant.tenant for tenant in found.tenants] == ["C", "B", "D", "A"]
    assert statuses(found) == {"A": "fresh", "B": "late", "C": "late", "D": "idle"}


def test_an_event_ahead_of_the_clock_is_fresh_without_lag() -> None:
    (tenant,) = judge([arrival("A", -HOUR)], TERMS, NOW).tenants
    assert (tenant.status, tenant.lag) == ("fresh", timedelta(0))


def test_idle_tenants_do_no_harm_but_a_dead_stream_does() -> None:
    def passed(*ages: timedelta) -> bool:
        return judge([arrival(str(number), age) for number, age in enumerate(ages)], TERMS, NOW).passed

    assert passed(HOUR, 100 * HOUR)
    assert not passed(HOUR, 40 * HOUR)
    assert not passed(100 * HOUR, 200 * HOUR)
    assert not passed()


def test_normal_silence_is_idle_and_longer_silence_is_late_since_it_was_too_long() -> None:
    found = judge([arrival("AA", 9 * HOUR), arrival("UA", 11 * HOUR), arrival("HA", 90 * HOUR)], NIGHTS, NOW)
    assert statuses(found) == {"UA": "late", "HA": "idle", "AA": "idle"}
    assert found.late[0].since == NOW - HOUR
    assert found.late[0].cause == "producer"
    # A stream that is silent as it may be is not dead.
    assert judge([arrival("AA", 9 * HOUR)], NIGHTS, NOW).passed


def test_where_the_events_are_held_up() -> None:
    def cause(unread: int | None) -> str | None:
        return judge([arrival("A", 40 * HOUR)], TERMS, NOW, unread=unread).late[0].cause

    assert (cause(0), cause(7), cause(None)) == ("producer", "worker", "unknown")


def test_events_that_silver_owes_are_no_silence() -> None:
    held, owed = [arrival("HA", 50 * HOUR)], [arrival("HA", 3 * HOUR), arrival("HA", timedelta(0))]
    (tenant,) = judge(held, NIGHTS, NOW, unseen=owed).tenants
    assert (tenant.status, tenant.cause, tenant.since) == ("late", "silver", NOW - 2 * HOUR)
    # What has just come in is on its way.
    (tenant,) = judge(held, NIGHTS, NOW, unseen=owed[1:]).tenants
    assert tenant.status == "idle"
    # Older events than the newest in Silver make nobody fresher.
    (tenant,) = judge(held, NIGHTS, NOW, unseen=[arrival("HA", 60 * HOUR)]).tenants
    assert tenant.status == "idle"


def test_a_stuck_silver_is_late_for_as_long_as_events_come_in() -> None:
    owed = [arrival("A", timedelta(0), length=20 * DAY)]
    assert judge([arrival("A", 20 * DAY)], TERMS, NOW, unseen=[arrival("A", age * DAY) for age in range(20)]).late
    assert statuses(judge([], TERMS, NOW, unseen=owed)) == {"A": "late"}
    # A backfill of what nobody waits for any more is not late.
    assert statuses(judge([], TERMS, NOW, unseen=[arrival("A", 20 * DAY)])) == {"A": "idle"}


def test_a_tenant_that_silver_does_not_have_yet_is_late_when_its_first_event_waits_too_long() -> None:
    found = judge([], TERMS, NOW, unseen=[arrival("A", 40 * HOUR), arrival("B", HOUR)])
    assert statuses(found) == {"A": "late", "B": "fresh"}
    assert found.late[0].newest is None


def days(arrivals: list[Arrival], terms: Terms, unseen: list[Arrival] | None = None) -> list[tuple[int, str, str]]:
    found = judge(arrivals, terms, NOW, unseen=unseen or []).days
    return [(incomplete.day.day, incomplete.tenant, incomplete.cause) for incomplete in found]


def at(day: int, hour: int, tenant: str = "A") -> Arrival:
    moment = datetime(2013, 1, day, hour, tzinfo=UTC)
    return Arrival(tenant, moment.date(), moment, moment)


def test_a_day_without_an_event_or_that_ends_early_is_incomplete() -> None:
    whole = [at(day, 20) for day in range(3, 10)]
    assert days(whole, NIGHTS) == []
    # The 6th lacks all, the 8th its evening.
    holed = [item for item in whole if item.day.day not in (6, 8)] + [at(8, 6)]
    assert days(holed, NIGHTS) == [(8, "A", "producer"), (6, "A", "producer")]
    assert days(holed, NIGHTS, unseen=[at(8, 22)]) == [(8, "A", "silver"), (6, "A", "producer")]


def test_a_tenant_with_a_longer_heartbeat_may_leave_out_days() -> None:
    assert days([at(5, 20, "HA"), at(8, 20, "HA")], NIGHTS) == []


def test_a_day_is_judged_once_it_is_over_and_the_sla_has_passed() -> None:
    assert days([at(8, 6)], NIGHTS) == [(9, "A", "producer"), (8, "A", "producer")]
    assert days([at(8, 6)], Terms(13 * HOUR, Heartbeat(10 * HOUR), 7 * DAY)) == [(8, "A", "producer")]


def test_a_local_day_ends_where_the_next_begins() -> None:
    # East of UTC, the 8th ends in the afternoon, and the 9th begins.
    local = [
        Arrival("A", date(2013, 1, day), *(datetime(2013, 1, day + shift, hour, tzinfo=UTC) for shift, hour in ends))
        for day in range(7, 10)
        for ends in [((-1, 13), (0, 12))]
    ]
    assert days(local, Terms(HOUR, Heartbeat(6 * HOUR), 7 * DAY)) == [(9, "A", "producer")]


def test_one_line_says_who_is_late_since_when_and_why() -> None:
    found = judge([arrival("AA", timedelta(0)), arrival("UA", 11 * HOUR)], NIGHTS, NOW, unread=1200)
    assert describe(found) == (
        "1 fresh, 1 late, 0 idle; "
        "UA late since 2013-01-10 11:00 UTC: the worker is behind, 1,200 records of the topic are unread"
    )
    found = judge([*(at(9, 23, tenant) for tenant in "ABCDEFG"), *(at(9, 1, f"late-{n}") for n in "XY")], TERMS, NOW)
    assert describe(found) == "9 fresh, 0 late, 0 idle"
    ends_early = [at(day, hour, tenant) for tenant in "ABCDEFG" for day, hour in ((9, 6), (10, 11))]
    assert describe(judge(ends_early, NIGHTS, NOW)) == (
        "7 fresh, 0 late, 0 idle; 2013-01-09 incomplete for A, B, C, D, E and 2 more: "
        "the producer is silent, the worker has read what Kafka holds"
    )
    assert describe(judge([], NIGHTS, NOW)) == "no event yet"
    assert "no tenant sends any more" in describe(judge([arrival("A", 8 * DAY)], NIGHTS, NOW))


TENANTS = st.sampled_from(["A", "B", "HA"])
ARRIVALS = st.lists(st.builds(arrival, TENANTS, st.integers(0, 400).map(lambda hours: hours * HOUR)), max_size=12)


@given(ARRIVALS, ARRIVALS)
def test_taking_in_what_bronze_holds_makes_nobody_late(held: list[Arrival], owed: list[Arrival]) -> None:
    after, stuck = judge([*held, *owed], NIGHTS, NOW).late, judge(held, NIGHTS, NOW, unseen=owed).late
    assert {tenant.tenant for tenant in after} <= {tenant.tenant for tenant in stuck}


@given(ARRIVALS, ARRIVALS)
def test_every_late_tenant_has_a_reason_and_was_not_late_before_it(held: list[Arrival], owed: list[Arrival]) -> None:
    for tenant in judge(held, NIGHTS, NOW, unseen=owed).tenants:
        assert (tenant.status == "late") == (tenant.cause is not None) == (tenant.since is not None)
        if tenant.since is not None:
            assert tenant.since < NOW


@given(ARRIVALS, st.integers(0, 200))
def test_a_longer_heartbeat_excuses_and_never_accuses(held: list[Arrival], hours: int) -> None:
    longer = Terms(NIGHTS.sla, Heartbeat(NIGHTS.heartbeat.longest + hours * HOUR), NIGHTS.idle_after)
    shorter = Terms(NIGHTS.sla, Heartbeat(NIGHTS.heartbeat.longest), NIGHTS.idle_after)
    accused, excused = ({tenant.tenant for tenant in judge(held, terms, NOW).late} for terms in (shorter, longer))
    assert excused <= accused


@given(ARRIVALS)
def test_without_news_a_tenant_is_fresh_then_silent_then_late_then_idle(held: list[Arrival]) -> None:
    order = ["fresh", "quiet", "late", "gone"]
    for name in {item.tenant for item in held}:
        places = []
        for hours in range(0, 400, 5):
            found = {one.tenant: one for one in judge(held, NIGHTS, NOW + hours * HOUR).tenants}[name]
            quiet = "quiet" if found.lag <= found.allowed else "gone"
            places.append(order.index(quiet if found.status == "idle" else found.status))
        assert places == sorted(places)
