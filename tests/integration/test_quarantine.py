"""Rejected events on a real broker, with a real worker: listed, shown, corrected, sent again, and taken in once."""

import json
import subprocess
import sys
from datetime import datetime

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from freshdata.lake.catalog import open_catalog
from freshdata.services.kafka import client_config, end_offsets
from tests.streams import assert_verified, flight_contract, flight_event, send, wait_until_caught_up, worker

pytestmark = pytest.mark.integration

AT = datetime.fromisoformat(flight_event(0)["event_time"])
GOOD = [flight_event(number) for number in range(5)]


def encoded(event):
    return json.dumps(event).encode()


def key_of(event):
    return event["event_id"].encode()


@pytest.fixture
def quarantine(streaming, environment):
    """Runs ``freshdata quarantine``; returns its exit code, what it printed, and what it said beside."""

    def run(*arguments, given=None):
        result = subprocess.run(
            [sys.executable, "-m", "freshdata.cli", "quarantine", *arguments],
            env={**environment(streaming), "COLUMNS": "200"}, input=given, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Traceback" not in result.stderr
        return result.returncode, result.stdout, " ".join(result.stderr.split())

    return run


@pytest.fixture
def reject(streaming, environment):
    """Sends records, beside good events, and lets a worker take them in."""

    def run(*records):
        send(streaming, [(key_of(event), encoded(event), AT) for event in GOOD])
        send(streaming, [(key, value, AT) for key, value in records])
        ingest(streaming, environment)

    return run


def ingest(settings, environment):
    with worker(settings, environment(settings)):
        wait_until_caught_up(settings)


def bronze(settings):
    """Bronze's rows by event id; no event is there twice."""
    rows = open_catalog(settings).load_table("bronze.flight_events").scan().to_arrow().to_pylist()
    assert len({row["event_id"] for row in rows}) == len(rows)
    return {row["event_id"]: row for row in rows}


def records_of(settings):
    """Every record of the topic."""
    ends = end_offsets(settings, flight_contract(settings).rules.topic)
    consumer = Consumer({**client_config(settings), "group.id": "test", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(flight_contract(settings).rules.topic, number, 0) for number in ends])
    found = []
    while len(found) < sum(ends.values()):
        found += consumer.consume(sum(ends.values()) - len(found), 10)
    consumer.close()
    return found


def limit_topic(settings, size):
    """Have the topic refuse messages beyond a size, in bytes."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    topic = ConfigResource(ResourceType.TOPIC, flight_contract(settings).rules.topic, incremental_configs=[entry])
    admin = AdminClient(client_config(settings))  # Held by a name: collected, it cancels its answers.
    [answer] = admin.incremental_alter_configs([topic]).values()
    answer.result(30)


def replayed(outcome):
    code, printed, said = outcome
    assert printed, said
    return code, json.loads(printed)


def test_corrected_events_appear_once_and_the_others_stay(streaming, environment, quarantine, reject):
    wrong_type, no_json, wrong_key = flight_event(10, flight="9"), flight_event(11), flight_event(12)
    reject(
        (key_of(wrong_type), encoded(wrong_type)),
        (None, encoded(no_json)[:-1]),
        (b"another", encoded(wrong_key)),
        (b"\xff", b"\xff\x00"),
    )
    found = {one["reason"]: one for one in json.loads(quarantine("list", "flight_events", "--json")[1])}
    assert {one["waiting"] for one in found.values()} == {1}
    assert "the message key is not the event's event_id" in found
    assert "weather: no event was rejected." in quarantine("list")[1]
    code, printed, _ = quarantine("show", "flight_events", "--json")
    lines = {line["reason"]: line for line in map(json.loads, printed.splitlines())}
    assert code == 0
    assert len(lines) == 4
    assert [line["payload_base64"] for line in lines.values() if "payload_base64" in line] == ["/wA="]
    shown = quarantine("show", "flight_events", "--reason", "$.flight")[1]
    assert '"flight": "9"' in shown
    # One is mended, one is complete by now, one has the right payload, and one is left as it is.
    edited = []
    for line in lines.values():
        if "payload" in line:
            line["payload"] = line["payload"].replace('"flight": "9"', '"flight": 9')
            line["payload"] += "" if line["payload"].endswith("}") else "}"
        edited.append(json.dumps(line))
    code, outcome = replayed(quarantine("replay", "flight_events", "--from", "-", "--json", given="\n".join(edited)))
    assert code == 1
    assert len(outcome["sent"]) == 3
    [refused] = outcome["refused"]
    assert "payload_base64" in next(line for line in lines.values() if line["at"] == refused["at"])
    ingest(streaming, environment)
    rows = bronze(streaming)
    assert rows.keys() == {event["event_id"] for event in [*GOOD, wrong_type, no_json, wrong_key]}
    assert rows["UA-000010-dep"]["flight"] == 9
    counts = assert_verified(streaming)
    assert (counts["rejected"], counts["duplicates"]) == (4, 0)
    # Each new record says which one it is the correction of; a key that was right has kept its partition.
    marked = {
        dict(one.headers())["freshdata-replay-of"].decode(): one for one in records_of(streaming) if one.headers()
    }
    assert marked.keys() == {one["at"] for one in outcome["sent"]}
    assert {one.key() for one in marked.values()} == {key_of(wrong_type), key_of(no_json), key_of(wrong_key)}
    mended = next(one for one in marked.values() if one.key() == key_of(wrong_type))
    assert mended.partition() == int(lines["Expected `int`, got `str` - at `$.flight`"]["at"].split(":")[0])
    # A second time nothing is sent, but for what is named.
    before = sum(end_offsets(streaming, flight_contract(streaming).rules.topic).values())
    code, again = replayed(quarantine("replay", "flight_events", "--from", "-", "--json", given="\n".join(edited)))
    assert (code, again["sent"], again["sent_before"], len(again["refused"])) == (1, [], 3, 1)
    assert sum(end_offsets(streaming, flight_contract(streaming).rules.topic).values()) == before
    waiting = {one["reason"]: one["waiting"] for one in json.loads(quarantine("list", "--json")[1])}
    assert sorted(waiting.values()) == [0, 0, 0, 1]
    assert "sent again corrected" in quarantine("show", "flight_events", "--reason", "$.flight")[1]
    line = next(json.dumps(line) for line in lines.values() if line["key"] == "UA-000010-dep")
    fixed = line.replace('\\"flight\\": \\"9\\"', '\\"flight\\": 9')
    code, printed, _ = quarantine("replay", "flight_events", "--from", "-", "--again", given=fixed)
    assert code == 0
    assert "1 sent to" in " ".join(printed.split())
    ingest(streaming, environment)
    assert bronze(streaming).keys() == rows.keys()
    assert assert_verified(streaming)["duplicates"] == 1


def test_events_are_sent_unchanged_once_the_contract_takes_them(streaming, environment, quarantine, reject):
    gated = [flight_event(number, gate=f"C{number}") for number in range(20, 23)]
    broken = flight_event(30, origin="ewr")
    unnamed = flight_event(31)
    reject(
        *((key_of(event), encoded(event)) for event in gated),
        (key_of(broken), encoded(broken)),
        (None, encoded(unnamed)),
    )
    code, outcome = replayed(quarantine("replay", "flight_events", "--reason", "unknown field", "--json"))
    assert (code, outcome["sent"], len(outcome["refused"])) == (1, [], 3)
    path = streaming.contracts_dir / "flight_events.odcs.yaml"
    gate = "      - {name: gate, logicalType: string, physicalType: string}\n      - name: distance\n"
    text = path.read_text().replace("version: 1.0.0", "version: 1.1.0", 1)
    path.write_text(text.replace("      - name: distance\n", gate, 1))
    # The file alone changes nothing for the worker.
    code, printed, _ = quarantine("replay", "flight_events", "--all")
    assert code == 1
    told = " ".join(printed.split())
    assert "3 are still refused and were not sent" in told
    assert "freshdata contract publish flight_events" in told
    assert "1 sent to" in told  # The one that only lacked its key.
    command = [sys.executable, "-m", "freshdata.cli", "contract", "publish", "flight_events"]
    subprocess.run(command, env=environment(streaming), check=True, capture_output=True)
    code, outcome = replayed(quarantine("replay", "flight_events", "--all", "--json"))
    assert (code, len(outcome["sent"]), outcome["sent_before"], outcome["contract_version"]) == (1, 3, 1, "1.1.0")
    [refused] = outcome["refused"]
    assert "$.origin" in refused["reason"]
    ingest(streaming, environment)
    rows = bronze(streaming)
    assert rows.keys() == {event["event_id"] for event in [*GOOD, *gated, unnamed]}
    assert {rows[event["event_id"]]["gate"] for event in gated} == {"C20", "C21", "C22"}
    assert (rows["UA-000020-dep"]["_ingested_at"] > AT, rows["UA-000020-dep"]["_late"]) == (True, False)
    assert_verified(streaming)
    shown = quarantine("show", "flight_events", "--reason", "gate")[1]
    assert shown.count("sent again 2") == 3
    # What a crash between sending and noting leaves: they are sent once more, and the worker knows their keys.
    open_catalog(streaming).drop_table("quarantine.flight_events__replays")
    _, outcome = replayed(quarantine("replay", "flight_events", "--all", "--json"))
    assert len(outcome["sent"]) == 4
    ingest(streaming, environment)
    assert bronze(streaming).keys() == rows.keys()
    assert assert_verified(streaming)["duplicates"] == 4


def test_a_key_that_contradicts_its_event_is_a_question_for_a_person(streaming, quarantine, reject):
    event = flight_event(40)
    reject((b"another", encoded(event)))
    code, outcome = replayed(quarantine("replay", "flight_events", "--all", "--json"))
    assert (code, outcome["sent"]) == (1, [])
    assert outcome["refused"][0]["reason"] == "the message key is not the event's event_id"


def test_what_kafka_does_not_take_is_told_and_still_waits(streaming, environment, quarantine, reject):
    event = flight_event(50, flight="9")
    reject((key_of(event), encoded(event)))
    line = json.loads(quarantine("show", "flight_events", "--json")[1])
    line["payload"] = line["payload"].replace('"9"', "9")
    limit_topic(streaming, 200)
    code, outcome = replayed(quarantine("replay", "flight_events", "--from", "-", "--json", given=json.dumps(line)))
    assert (code, outcome["sent"], len(outcome["failed"])) == (1, [], 1)
    assert "large" in outcome["failed"][0]["error"].lower()
    assert json.loads(quarantine("list", "--json")[1])[0]["waiting"] == 1
    code, _, said = quarantine("replay", "flight_events", "7:7")
    assert code == 1
    assert "no rejected event is at 7:7. `freshdata quarantine show flight_events`" in said
