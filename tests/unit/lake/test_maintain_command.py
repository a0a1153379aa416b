"""``freshdata maintain`` says what it did to each table."""

import json
from datetime import date

import pytest
import typer
from typer.testing import CliRunner

from freshdata.cli.maintain import maintain
from freshdata.errors import LakeError
from tests.lakes import departures, ingest

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(maintain)


@pytest.fixture(autouse=True)
def _home(instance, monkeypatch):
    monkeypatch.setenv("FRESHDATA_HOME", str(instance.home))


def test_all_tables_are_maintained(instance):
    for _ in range(11):
        ingest(instance, "weather", [])
    ingest(instance, "flight_events", departures(date(2013, 1, 1)))
    result = CliRunner().invoke(app, ["--json"])
    done = {outcome["table"]: outcome for outcome in json.loads(result.stdout)}
    assert list(done) == ["bronze.flight_events", "bronze.weather", "quarantine.flight_events", "quarantine.weather"]
    assert (done["bronze.flight_events"]["snapshots"], done["bronze.flight_events"]["expired"]) == (1, 0)
    assert done["bronze.weather"]["snapshots"] == 11


def test_one_table_is_shown_in_a_table(instance):
    ingest(instance, "flight_events", departures(date(2013, 1, 1)))
    result = CliRunner().invoke(app, ["bronze.flight_events"])
    assert result.exit_code == 0
    assert "bronze.flight_events" in result.stdout
    assert "orphans" in result.stdout


def test_a_plan_says_what_is_needed_and_does_nothing(instance):
    day = date(2013, 1, 1)
    for number in range(10):
        ingest(instance, "flight_events", departures(day, 2, event_id=f"event-{number}"))
    [plan] = json.loads(CliRunner().invoke(app, ["bronze.flight_events", "--plan", "--json"]).stdout)
    assert plan["reasons"] == ["rewrite 20 files of 2 partitions", "merge 10 manifests"]
    assert plan["health"]["small_files"] == plan["health"]["files"] == 20
    assert [part["small_files"] for part in plan["health"]["needy"]] == [10, 10]
    shown = CliRunner().invoke(app, ["--plan"])
    assert shown.exit_code == 0
    assert "nothing" in shown.stdout
    [done] = json.loads(CliRunner().invoke(app, ["bronze.flight_events", "--json"]).stdout)
    assert (done["compaction"]["files_before"], done["compaction"]["files_after"]) == (20, 2)
    [again] = json.loads(CliRunner().invoke(app, ["bronze.flight_events", "--plan", "--json"]).stdout)
    assert again["reasons"] == []
    [rewritten] = json.loads(CliRunner().invoke(app, ["bronze.flight_events", "--rewrite", "--json"]).stdout)
    assert (rewritten["compaction"]["files_before"], rewritten["compaction"]["files_after"]) == (2, 2)


def test_an_unknown_table_is_an_error_with_a_remedy():
    error = CliRunner().invoke(app, ["bronze.nothing"]).exception
    assert isinstance(error, LakeError)
    assert error.remedy
