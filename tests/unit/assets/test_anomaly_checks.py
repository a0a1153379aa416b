"""Which tables and days are judged, and by which numbers."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from freshdata.contracts import Contract
from freshdata.contracts.model import AnomalyRules
from freshdata_assets.defs.anomalies.checks import JUDGED_DAYS, anomaly_checks, judged_days, most_tolerant
from freshdata_assets.platform import Platform, asset_key
from freshdata_assets.scope import Scope

FLIGHTS = "silver.flight_events"
BACKFILL = Scope(live=False, first=date(2012, 12, 30), last=date(2013, 1, 4))


@pytest.mark.parametrize(("now", "last"), [(datetime(2013, 1, 4, 5), 2), (datetime(2013, 1, 4, 6), 3)])  # noqa: DTZ001
def test_a_day_is_judged_when_no_event_of_it_can_come_in_time_any_more(
    platform: Platform, now: datetime, last: int
) -> None:
    platform.clock.set(start=date(2013, 1, 1), now=now.replace(tzinfo=UTC))
    recent = judged_days(platform, platform.models[FLIGHTS], Scope(live=True, first=None, last=None))
    assert (len(recent), recent[-1]) == (JUDGED_DAYS, date(2013, 1, last))
    assert set(judged_days(platform, platform.models["gold.carrier_day"], BACKFILL)) >= {date(2012, 12, 30), *recent}
    assert date(2013, 1, 4) not in judged_days(platform, platform.models[FLIGHTS], BACKFILL)


def test_gold_goes_by_the_most_tolerant_of_its_streams(platform: Platform, contracts: dict[str, Contract]) -> None:
    weather = contracts["weather"]
    own = replace(weather.rules, anomalies=AnomalyRules(volume=9, ignored=("visib",)))
    other = Platform(platform.settings, contracts | {"weather": replace(weather, stream=own)}, platform.models)
    assert most_tolerant(other, platform.models["gold.delay_by_weather"]) == AnomalyRules(volume=9)
    assert most_tolerant(other, platform.models["gold.carrier_day"]) == AnomalyRules()


def test_a_check_that_cannot_judge_warns_and_does_not_fail_the_run(platform: Platform) -> None:
    checks = list(anomaly_checks(platform))
    tables = [name for name, model in platform.models.items() if model.daily]
    assert {key.asset_key for check in checks for key in check.check_keys} == {asset_key(name) for name in tables}
    result = dg.materialize(
        [dg.AssetsDefinition(specs=[dg.AssetSpec(asset_key(name)) for name in tables]), *checks],
        selection=dg.AssetSelection.all_asset_checks(),
    )
    verdicts = result.get_asset_check_evaluations()
    assert {(verdict.passed, verdict.severity) for verdict in verdicts} == {(False, dg.AssetCheckSeverity.WARN)}
    assert "does not exist" in str(verdicts[0].description)


def test_days_are_judged_once_an_hour_whether_anything_came_or_not(platform: Platform) -> None:
    checks = list(anomaly_checks(platform))
    tables = [dg.AssetSpec(asset_key(model.name)) for model in platform.models.values()]
    definitions, dagster = dg.Definitions(assets=tables, asset_checks=checks), dg.DagsterInstance.ephemeral()
    start, cursor, asked = datetime(2013, 1, 4, 3), None, []  # noqa: DTZ001 - Dagster takes it as UTC.
    for minute in (0, 4, 6, 40, 64, 66):
        evaluated = dg.evaluate_automation_conditions(
            definitions, dagster, cursor=cursor, evaluation_time=start + timedelta(minutes=minute)
        )
        cursor = evaluated.cursor
        asked.append(evaluated.total_requested)
    assert asked == [0, 0, len(checks), 0, 0, len(checks)]
