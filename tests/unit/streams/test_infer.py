"""What is inferred of a sample, what is refused, and what is written."""

import json
import subprocess
import sys

import pytest
import yaml

from freshdata.contracts import load_contract
from freshdata.errors import ConfigError, SampleError
from freshdata.settings import Settings
from freshdata.streams.infer import infer
from freshdata.streams.model import Choices
from freshdata.streams.new import new_stream
from freshdata.streams.samples import Sample, read_file
from tests import samples


def inferred(events, **choices):
    rows = read_rows(events)
    return infer("things", Sample("the test", rows), Choices(**choices))


def read_rows(events):
    from freshdata.streams.samples import _object

    return [_object(json.dumps(event).encode()) for event in events]


def types(stream):
    return {each.source_name: each.physical for each in stream.fields}


def test_types_are_what_the_values_are():
    stream = inferred(samples.rides())
    assert types(stream) == {
        "rideId": "string", "city": "string", "startedAt": "timestamptz", "status": "string", "distanceKm": "double",
        "fare": "decimal(18,2)", "tip": "decimal(18,2)", "seats": "bigint", "shared": "boolean", "from": "string",
        "promo": "string", "zip": "string",
    }  # fmt: skip
    assert stream.field("status").enum == ("cancelled", "done", "no_show")
    assert stream.field("city").enum == ()  # The tenants of tomorrow are others.
    assert not stream.field("promo").required
    assert stream.field("fare").required
    assert {kept.source_name for kept in stream.kept} == {"rider", "stops", "odd", "nothing"}
    assert (stream.key, stream.event_time, stream.tenant) == ("ride_id", "started_at", "city")
    assert stream.field("from_value").source_name == "from"


def test_versions_of_a_key_are_told_from_repeats():
    stream = inferred(samples.orders())
    assert (stream.key, stream.version, stream.tenant) == ("order_id", "updated_at", "account_id")
    assert types(stream)["total"] == "decimal(18,2)"
    assert types(stream)["ordered_on"] == "date"
    assert stream.derives_date
    assert stream.field("event_date_value").source_name == "event_date"


def test_a_date_near_the_event_time_is_the_day_of_the_event():
    events = [event | {"event_date": event["startedAt"][:10]} for event in samples.rides(100)]
    stream = inferred(events)
    assert not stream.derives_date
    assert stream.event_date == "event_date"


def test_a_few_broken_values_do_not_hide_the_type():
    events = samples.rides(500)
    events[3]["seats"] = "many"
    events[4]["startedAt"] = "yesterday"
    stream = inferred(events)
    assert (types(stream)["seats"], stream.event_time) == ("bigint", "started_at")
    [seats] = [each for each in stream.decisions if each.what == "field seats"]
    assert seats.review
    assert "1 of 500 values" in seats.why


def test_a_choice_overrides_a_guess():
    stream = inferred(
        samples.rides(), tenant="zip", types={"fare": "double", "status": "string"}, partitions=7, owner="web"
    )
    assert (stream.tenant, stream.partitions, stream.owner) == ("zip", 7, "web")
    assert types(stream)["fare"] == "double"
    assert stream.field("status").enum == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e | {"startedAt": e["startedAt"].removesuffix("+00:00")}, "startedAt may be times"),
        (lambda e: {k: v for k, v in e.items() if k != "rideId"}, "no field tells one event from all others"),
        (lambda e: {"rideId": e["rideId"], "startedAt": e["startedAt"]}, "no field says whose an event is"),
        (lambda e: e | {"startedAt": 1_772_000_000}, "no field that every event has is a time"),
    ],
)
def test_what_cannot_be_a_stream_is_refused_with_a_remedy(change, message):
    with pytest.raises(SampleError, match=message) as refused:
        inferred([change(event) for event in samples.rides(200)])
    assert refused.value.remedy


@pytest.mark.parametrize("choice", [{"key": "city"}, {"key": "fare"}, {"event_time": "city"}, {"tenant": "nope"}])
def test_a_choice_that_cannot_be_is_refused(choice):
    with pytest.raises(SampleError):
        inferred(samples.rides(200), **choice)


def test_messages_of_a_topic_must_be_keyed_by_a_field():
    rows = read_rows(samples.rides(100))
    keyed = Sample("the topic t", rows, keys=[row["rideId"].encode() for row in rows], topic="t", partitions=3)
    stream = infer("things", keyed, Choices())
    assert (stream.key, stream.topic, stream.partitions) == ("ride_id", "t", 3)
    with pytest.raises(SampleError, match="not keyed by one of their fields"):
        infer("things", Sample("the topic t", rows, keys=[None] * 100, topic="t", partitions=3), Choices())


@pytest.fixture
def project(tmp_path):
    return Settings().model_copy(update={"project": tmp_path, "home_override": tmp_path / "home"})


def test_files_are_never_overwritten_unless_told(project, tmp_path):
    sample = read_file(samples.write(tmp_path / "rides.jsonl", samples.rides(200), "no JSON"))
    made = new_stream(project, "rides", sample, Choices())
    assert all(path.is_file() for path in made.files)
    made.files[1].write_text("mine")
    with pytest.raises(ConfigError, match=r"rides\.sql"):
        new_stream(project, "rides", sample, Choices())
    assert made.files[1].read_text() == "mine"
    new_stream(project, "rides", sample, Choices(), overwrite=True)
    assert made.files[1].read_text() != "mine"


@pytest.mark.parametrize("events", [samples.rides(300), samples.orders(), samples.readings()])
def test_the_contract_is_clean_by_the_standard_too(project, tmp_path, events):
    made = new_stream(project, "things", read_file(samples.write(tmp_path / "s.jsonl", events)), Choices())
    assert load_contract(made.files[0]).rules.dedupe_key == made.contract.rules.dedupe_key
    document = yaml.safe_load(made.files[0].read_text())
    assert document["schema"][0]["properties"]
    command = [f"{sys.prefix}/bin/datacontract", "lint", "--no-inline-references", str(made.files[0])]
    linted = subprocess.run(command, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout


def test_a_dry_run_writes_nothing(project, tmp_path):
    sample = read_file(samples.write(tmp_path / "s.jsonl", samples.readings()))
    made = new_stream(project, "readings", sample, Choices(), write=False)
    assert not any(path.exists() for path in made.files)
    assert {(each.name, each.source_name) for each in made.inferred.fields} >= {("key", "@key"), ("c", "°C")}
