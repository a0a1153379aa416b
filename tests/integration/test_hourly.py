"""Hours from end to end: a contract, two models in hours, and one in days made of them."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from freshdata.errors import FreshDataError
from freshdata.intervals import HOUR
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.lake.query import connect
from freshdata.settings import Settings
from freshdata.transform.manifest import load_manifest
from freshdata.transform.runner import Runner, open_runner
from tests.bronze import rows
from tests.hourly import DAYS, HOURS, SILVER, START, clicks, project_with_models
from tests.lakes import ingest
from tests.runs import follow

pytestmark = pytest.mark.integration

DAY = START.date()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = project_with_models(tmp_path_factory.mktemp("project"))
    for number in range(5):
        ingest(settings, "clicks", clicks(START + number * HOUR, 3))
    return settings


@pytest.fixture(scope="module")
def runner(settings: Settings) -> Iterator[Runner]:
    with open_runner(settings) as runner:
        follow(runner)
        yield runner


def files(settings: Settings, model: str) -> dict[Any, set[str]]:
    """The files of each partition."""
    table = load_table(open_catalog(settings), model)
    found: dict[Any, set[str]] = {}
    for task in table.scan().plan_files():
        found.setdefault(task.file.partition[0], set()).add(task.file.file_path)
    return found


def assert_as_made_whole(settings: Settings, runner: Runner) -> None:
    with connect(settings) as connection:
        for model in (SILVER, HOURS, DAYS):
            whole = connection.execute(runner.render_full(model)).to_arrow_table().to_pylist()
            stored = rows(open_catalog(settings), model)
            assert sorted(map(repr, stored)) == sorted(repr({name: row[name] for name in stored[0]}) for row in whole)


OWN_DAY = "- {name: on_date, logicalType: date, physicalType: date, required: true}\n      "
OWN_DAYS = "eventDateField, value: on_date}\n      - {property: eventTimeField,"


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        (
            "sqlmesh_models/models/silver/clicks.sql",
            "cron '@hourly',",
            "",
            "has an hour_column of type TIMESTAMPTZ, and",
        ),
        ("contracts/clicks.odcs.yaml", "eventTimeField,", OWN_DAYS, "has days of its own"),
    ],
)
def test_hours_that_could_not_be_told_are_refused(
    tmp_path: Path, file: str, old: str, new: str, complaint: str
) -> None:
    settings = project_with_models(tmp_path)
    path = settings.project / file
    text = path.read_text().replace(old, new)
    path.write_text(text.replace("- {name: click_id", OWN_DAY + "- {name: click_id") if new else text)
    with pytest.raises(FreshDataError, match=complaint):
        load_manifest(settings)


def test_a_first_live_run_makes_every_hour(settings: Settings, runner: Runner) -> None:
    silver = [row["event_hour"] for row in rows(open_catalog(settings), SILVER)]
    assert sorted(silver) == sorted(START + number * HOUR for number in range(5) for _ in range(3))
    assert runner.manifest[SILVER].granularity == "hour"
    counts = [(row["event_date"], row["shop"], row["clicks"]) for row in rows(open_catalog(settings), DAYS)]
    after = DAY + timedelta(days=1)
    assert sorted(counts) == [(DAY, "a", 4), (DAY, "b", 2), (after, "a", 6), (after, "b", 3)]
    assert_as_made_whole(settings, runner)


def test_late_news_costs_its_hour_and_the_day_of_that(settings: Settings, runner: Runner) -> None:
    before = {model: files(settings, model) for model in (SILVER, HOURS, DAYS)}
    late = clicks(START, 1, click_id="late", clicked_at=START + timedelta(minutes=59))
    ingest(settings, "clicks", late, at=START + 30 * HOUR)
    runs = follow(runner)
    assert runs[SILVER].partitions == {START: 4}
    assert runs[HOURS].partitions == {START: 2}
    assert runs[DAYS].partitions == {DAY: 2}
    for model, old in before.items():
        new = files(settings, model)
        assert {part for part in new if new[part] != old.get(part)} == {next(iter(sorted(new)))}
    assert_as_made_whole(settings, runner)
    assert {run.note for run in follow(runner).values()} == {"up to date"}


def test_a_correction_replaces_a_row_of_an_hour(settings: Settings, runner: Runner) -> None:
    hour = START + HOUR
    ingest(settings, "clicks", clicks(hour, 1, price=50.0), at=START + 31 * HOUR)
    assert follow(runner)[SILVER].partitions == {hour: 3}
    prices = [row["price"] for row in rows(open_catalog(settings), SILVER) if row["event_hour"] == hour]
    assert sorted(prices) == [1.0, 2.0, 50.0]
    assert_as_made_whole(settings, runner)


def test_a_run_by_partition_restores_just_the_hours_asked_for(settings: Settings, runner: Runner) -> None:
    right = rows(open_catalog(settings), SILVER)
    for hour in (START + HOUR, START + 2 * HOUR):
        load_table(open_catalog(settings), SILVER).delete(f"event_hour = '{hour.isoformat()}'")
    assert runner.run_partitions(SILVER, START + HOUR, START + HOUR).partitions == {START + HOUR: 3}
    restored = rows(open_catalog(settings), SILVER)
    assert restored == [row for row in right if row["event_hour"] != START + 2 * HOUR]
    # A day is all of its hours.
    after = DAY + timedelta(days=1)
    assert len(runner.run_partitions(SILVER, after, after).partitions) == 24
    assert rows(open_catalog(settings), SILVER) == right
    follow(runner)
    assert_as_made_whole(settings, runner)


def test_a_rebuild_swaps_the_hours_of_its_days(settings: Settings, runner: Runner) -> None:
    right = rows(open_catalog(settings), HOURS)
    load_table(open_catalog(settings), HOURS).delete(f"event_hour = '{START.isoformat()}'")
    rebuilt = runner.rebuild(HOURS, (DAY, DAY))
    assert (rebuilt.days, rebuilt.gained, rebuilt.lost) == ((START.replace(hour=0), START.replace(hour=23)), 2, 0)
    assert runner.rebuild(HOURS).snapshot_id is None
    assert rows(open_catalog(settings), HOURS) == right
