"""``freshdata status`` tells of a stream what its check tells."""

import json
from datetime import UTC, date, datetime

import pytest
import typer
from typer.testing import CliRunner

from freshdata.cli.services import status
from freshdata.clock import instance_clock
from freshdata.freshness import describe, stream_freshness
from freshdata.lake.catalog import open_catalog
from freshdata.services.status import read_status
from tests.lakes import departures, ingest
from tests.silver import take_in

NOW = datetime(2013, 1, 6, tzinfo=UTC)
app = typer.Typer(pretty_exceptions_enable=False)
app.command()(status)


@pytest.fixture(autouse=True)
def _late(instance, monkeypatch):
    monkeypatch.setenv("FRESHDATA_HOME", str(instance.home))
    instance_clock(instance.home).set(start=date(2013, 1, 1), now=NOW)
    rows = departures(date(2013, 1, 3))
    ingest(instance, "flight_events", rows)
    take_in(instance, rows)


def test_the_streams_freshness_is_what_the_check_judges(instance, contracts):
    streams = {stream.stream: stream for stream in read_status(instance).streams}
    judged = stream_freshness(instance, open_catalog(instance), contracts["flight_events"], NOW)
    assert streams["flight_events"].freshness == judged
    assert streams["weather"].freshness is None
    assert " ".join(describe(judged).split()) in " ".join(CliRunner().invoke(app).stdout.split())


def test_as_json_it_names_the_late_tenants():
    found = json.loads(CliRunner().invoke(app, ["--json"]).stdout)
    (flights,) = [stream for stream in found["streams"] if stream["stream"] == "flight_events"]
    assert [(tenant["tenant"], tenant["status"]) for tenant in flights["freshness"]["tenants"]] == [
        ("UA", "late"),
        ("AA", "late"),
    ]
