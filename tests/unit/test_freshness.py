"""Which tenants are fresh, late or idle."""

from datetime import UTC, date, datetime, timedelta

from freshdata.contracts import Contract
from freshdata.freshness import judge, newest_events, stream_freshness
from freshdata.lake.catalog import open_catalog
from freshdata.settings import Settings
from tests.lakes import departures, ingest

NOW = datetime(2013, 1, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


def statuses(**ages: timedelta) -> dict[str, str]:
    newest = {tenant: NOW - age for tenant, age in ages.items()}
    freshness = judge(newest, now=NOW, sla=36 * HOUR, idle_after=72 * HOUR)
    return {tenant.tenant: tenant.status for tenant in freshness.tenants}


def test_each_side_of_each_limit() -> None:
    ages = {"A": 36 * HOUR, "B": 37 * HOUR, "C": 72 * HOUR, "D": 73 * HOUR}
    assert statuses(**ages) == {"D": "idle", "C": "late", "B": "late", "A": "fresh"}


def test_an_event_ahead_of_the_clock_is_fresh_without_lag() -> None:
    freshness = judge({"A": NOW + HOUR}, now=NOW, sla=HOUR, idle_after=2 * HOUR)
    assert (freshness.tenants[0].status, freshness.tenants[0].lag) == ("fresh", timedelta(0))


def test_idle_tenants_do_no_harm_but_a_dead_stream_does() -> None:
    def passed(*ages: timedelta) -> bool:
        newest = {str(number): NOW - age for number, age in enumerate(ages)}
        return judge(newest, now=NOW, sla=36 * HOUR, idle_after=72 * HOUR).passed

    assert passed(HOUR, 100 * HOUR)
    assert not passed(HOUR, 40 * HOUR)
    assert not passed(100 * HOUR, 200 * HOUR)
    assert not passed()


def test_the_newest_event_of_each_tenant_over_all_files(instance: Settings, contracts: dict[str, Contract]) -> None:
    for day in (date(2013, 1, 2), date(2013, 1, 1)):
        ingest(instance, "flight_events", departures(day))
    ingest(instance, "flight_events", departures(date(2013, 1, 9), 1))
    table = open_catalog(instance).load_table("bronze.flight_events")
    newest = newest_events(table, contracts["flight_events"])
    assert newest == {
        "UA": datetime(2013, 1, 9, 17, tzinfo=UTC),
        "AA": datetime(2013, 1, 2, 17, 3, tzinfo=UTC),
    }
    freshness = stream_freshness(table, contracts["flight_events"], NOW)
    assert [(tenant.tenant, tenant.status) for tenant in freshness.tenants] == [("AA", "idle"), ("UA", "fresh")]
