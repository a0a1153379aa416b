"""Bad input between good events, of every kind at once: one worker takes it all and keeps everything."""

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import KafkaError, Message, Producer

from freshdata.contracts import load_contracts
from freshdata.lake.catalog import ensure_table, open_catalog
from freshdata.lake.progress import summary_property
from freshdata.services.kafka import client_config, ensure_topics
from freshdata.settings import PROJECT, Settings
from freshdata.verify.ingest import verify_ingest
from tests.streams import flight_contract, flight_event, progress, wait_until_caught_up, worker

pytestmark = pytest.mark.integration

DEEP = 100_000
LARGE = 10_000_000  # bytes
PARTITIONS = 4


def text(number: int, **changes: Any) -> bytes:
    """A departure as JSON."""
    return json.dumps(flight_event(number, **changes)).encode()


def swapped(number: int, old: bytes, new: bytes) -> bytes:
    """A departure's JSON with some bytes in place of others."""
    value = text(number)
    assert value.count(old) == 1
    return value.replace(old, new)


def with_more(number: int, more: bytes) -> bytes:
    """A departure's JSON with more members at its end."""
    return text(number)[:-1] + b", " + more + b"}"


def without(number: int, name: str) -> bytes:
    """A departure's JSON without a field."""
    return json.dumps({key: value for key, value in flight_event(number).items() if key != name}).encode()


def shifted(number: int, **distance: float) -> str:
    """A time away from that of an event."""
    return (datetime.fromisoformat(flight_event(number)["event_time"]) + timedelta(**distance)).isoformat()


OWN_KEY = b"the event's own key"
MALFORMED = r"JSON is malformed"
DEST, DISTANCE = b'"ORD"', b'"distance": 719'
# What a kind is called: its value, from an event's number; what the reason says; and its message key.
BAD: dict[str, tuple[Callable[[int], bytes | None], str, bytes | None]] = {
    "no JSON": (lambda _: b"departed UA 1545 EWR", MALFORMED, b"k"),
    "truncated": (lambda n: text(n)[:-1], "truncated", OWN_KEY),
    "two events": (lambda n: text(n) + b"\n" + text(n), "trailing", OWN_KEY),
    "an array": (lambda n: b"[" + text(n) + b"]", "Expected `object`, got `array`", OWN_KEY),
    "a BOM": (lambda n: b"\xef\xbb\xbf" + text(n), rf"{MALFORMED}.*byte 0", OWN_KEY),
    "UTF-16": (lambda n: text(n).decode().encode("utf-16"), rf"{MALFORMED}.*byte 0", OWN_KEY),
    "text for a number": (lambda n: text(n, flight="9"), r"Expected `int`, got `str` - at `\$\.flight`", OWN_KEY),
    "a number for text": (lambda n: text(n, origin=7), r"got `int` - at `\$\.origin`", OWN_KEY),
    "a boolean for a number": (lambda n: text(n, flight=True), r"got `bool` - at `\$\.flight`", OWN_KEY),
    "a fraction": (lambda n: text(n, flight=2.5), r"got `float` - at `\$\.flight`", OWN_KEY),
    "null in a required field": (lambda n: text(n, dest=None), r"got `null` - at `\$\.dest`", OWN_KEY),
    "no tenant": (lambda n: without(n, "tenant_id"), "missing required field `tenant_id`", OWN_KEY),
    "no key field": (lambda n: without(n, "event_id"), "missing required field `event_id`", OWN_KEY),
    "null key": (text, "the message key is not the event's event_id", None),
    "empty key": (text, "the message key is not the event's event_id", b""),
    "another key": (text, "the message key is not the event's event_id", b"UA-999999-dep"),
    "a key that is no text": (text, "the message key is not the event's event_id", b"\xff\xfe\x00"),
    "a tenant of another form": (lambda n: text(n, tenant_id="United"), r"regex .* - at `\$\.tenant_id`", OWN_KEY),
    "an empty tenant": (lambda n: text(n, tenant_id=""), r"regex .* - at `\$\.tenant_id`", OWN_KEY),
    "an unknown event type": (lambda n: text(n, event_type="vanished"), r"vanished.* - at `\$\.event_type`", OWN_KEY),
    "a number above its range": (lambda n: text(n, flight=10_000), r"<= 9999 - at `\$\.flight`", OWN_KEY),
    "a number below its range": (lambda n: text(n, distance=-1), r">= 1 - at `\$\.distance`", OWN_KEY),
    "a number beyond 64 bits": (lambda n: swapped(n, DISTANCE, b'"distance": 9223372036854775808'),
                                r"<= 12000 - at `\$\.distance`", OWN_KEY),
    "a number of 5000 digits": (lambda n: swapped(n, DISTANCE, b'"distance": 1' + b"0" * 5000),
                                r"out of range - at `\$\.distance`", OWN_KEY),
    "a number too large to write": (lambda n: swapped(n, DISTANCE, b'"distance": 1e999'),
                                    r"out of range - at `\$\.distance`", OWN_KEY),
    "NaN": (lambda n: swapped(n, DISTANCE, b'"distance": NaN'), MALFORMED, OWN_KEY),
    "Infinity": (lambda n: swapped(n, DISTANCE, b'"distance": -Infinity'), MALFORMED, OWN_KEY),
    "deep arrays": (lambda n: swapped(n, DEST, b"[" * DEEP + b"]" * DEEP), r"got `array` - at `\$\.dest`", OWN_KEY),
    "deep objects": (lambda _: b'{"a":' * DEEP + b"1" + b"}" * DEEP, "unknown field `a`", b"k"),
    "an unknown field": (lambda n: text(n, gate="A1"), "unknown field `gate`", OWN_KEY),
    "a deep unknown field": (lambda n: with_more(n, b'"x": ' + b"[" * DEEP + b"]" * DEEP), "field `x`", OWN_KEY),
    "invalid UTF-8": (lambda n: swapped(n, DEST, b'"\xff\xfeD"'), "'utf-8' codec can't decode byte 0xff", OWN_KEY),
    "overlong UTF-8": (lambda n: swapped(n, DEST, b'"\xc0\xafD"'), "'utf-8' codec can't decode byte 0xc0", OWN_KEY),
    "a surrogate in UTF-8": (lambda n: swapped(n, DEST, b'"\xed\xa0\x80"'), "'utf-8' codec can't decode", OWN_KEY),
    "half an escaped surrogate pair": (lambda n: swapped(n, DEST, b'"\\ud800"'), "surrogate pair", OWN_KEY),
    "a bare control character": (lambda n: swapped(n, DEST, b'"O\nD"'), MALFORMED, OWN_KEY),
    "an escaped control character": (lambda n: swapped(n, DEST, b'"O\\u0000D"'), r"at `\$\.dest`", OWN_KEY),
    "text of a megabyte": (lambda n: text(n, tailnum="N" * 1_000_000), r"at `\$\.tailnum`", OWN_KEY),
    "a tombstone": (lambda _: None, "tombstone", b"UA-000000-dep"),
    "a tombstone without a key": (lambda _: None, "tombstone", None),
    "an empty message": (lambda _: b"", "the message is empty", b"k"),
    "nothing but blanks": (lambda _: b" \n\t ", "the message is empty", b"k"),
    "two hours ahead": (lambda n: text(n, event_time=shifted(n, hours=2)), "event_time lies .* 1:00:00", OWN_KEY),
    "a century ahead": (lambda n: text(n, event_time=shifted(n, days=36_525)), "event_time lies more than", OWN_KEY),
    "year 9999": (lambda n: text(n, event_time="9999-12-31T23:59:59.999999Z"), "event_time lies more than", OWN_KEY),
    "year 10000": (lambda n: text(n, event_time="10000-01-01T00:00:00Z"), r"datetime - at `\$\.event_time`", OWN_KEY),
    "year 0": (lambda n: text(n, event_time="0000-12-31T23:59:59Z"), r"datetime - at `\$\.event_time`", OWN_KEY),
    "year 0 in UTC": (lambda n: text(n, scheduled_departure="0001-01-01T00:00:00+01:00"),
                      r"`\$\.scheduled_departure`", OWN_KEY),
    "a time without zone": (lambda n: text(n, event_time="2013-01-05T12:00:00"), r"timezone .*\$\.event_time", OWN_KEY),
    "a time as a number": (lambda n: text(n, event_time=1357387200), r"got `int` - at `\$\.event_time`", OWN_KEY),
    "30 February": (lambda n: text(n, flight_date="2013-02-30"), r"date - at `\$\.flight_date`", OWN_KEY),
    "10 MB that are no JSON": (lambda n: text(n)[:-1] + b" " * LARGE, "truncated", OWN_KEY),
    "10 MB in an unknown field": (lambda n: text(n, photo="x" * LARGE), "unknown field `photo`", OWN_KEY),
}  # fmt: skip
# Looks strange, and is an event all the same: what of it is stored.
ODD: dict[str, tuple[Callable[[int], bytes], dict[str, Any]]] = {
    "a tenant that the lookup lacks": (lambda n: text(n, tenant_id="ZZ"), {"tenant_id": "ZZ", "carrier_name": None}),
    "a field given twice": (lambda n: with_more(n, b'"distance": 720'), {"distance": 720}),
    "10 MB of blanks": (lambda n: text(n)[:-1] + b" " * LARGE + b"}", {"distance": 719}),
    "escapes": (lambda n: swapped(n, DEST, b'"\\u004fRD"'), {"dest": "ORD"}),
    "another zone": (lambda n: text(n, scheduled_departure="2013-01-05T13:00:00+02:00"),
                     {"scheduled_departure": datetime(2013, 1, 5, 11, tzinfo=UTC)}),
    # What stands for no time in many a system.
    "year 1": (lambda n: text(n, event_time="0001-01-01T00:00:00Z"), {"event_time": datetime(1, 1, 1, tzinfo=UTC)}),
    "year 1 in another field": (lambda n: text(n, scheduled_departure="0001-01-01T00:00:00Z"),
                                {"scheduled_departure": datetime(1, 1, 1, tzinfo=UTC)}),
}  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """A record's key and value, and where Kafka has put it."""

    key: bytes | None
    value: bytes | None
    partition: int
    offset: int


@dataclass
class Run:
    """What one worker made of all of it.

    Attributes:
        settings: The instance.
        sent: Kind to its record.
        good: Partition and offset to the good event there.
        quarantine: Partition and offset to what the quarantine has of the record.
        bronze: Partition and offset to what Bronze has of it.
        log: The worker's.
    """

    settings: Settings
    sent: dict[str, Sent] = field(default_factory=dict)
    good: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    quarantine: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    bronze: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    log: str = ""


def own_instance(folder: Path, broker: str) -> Settings:
    """An instance on the shared broker whose topic no other test uses."""
    shutil.copytree(PROJECT / "contracts", folder / "contracts")
    path = folder / "contracts" / "flight_events.odcs.yaml"
    topic = "flights.flight_events.v1"
    assert topic in path.read_text()
    path.write_text(path.read_text().replace(topic, f"{topic}.{uuid.uuid4().hex[:8]}"))
    return Settings().model_copy(
        update={"project": folder, "kafka_bootstrap": broker, "home_override": folder / "home"}
    )


def producer(settings: Settings) -> Producer:
    """A producer that lets everything through: what is too large is for the topic to say."""
    return Producer({**client_config(settings), "linger.ms": 5, "message.max.bytes": 100_000_000})


def produce(outcome: Run) -> None:
    """Send a record of each kind between two good events, in one partition after the other."""
    settings, contract = outcome.settings, flight_contract(outcome.settings)
    sender = producer(settings)
    kinds: dict[str, tuple[Callable[[int], bytes | None], bytes | None]] = {
        kind: (value, key) for kind, (value, _, key) in BAD.items()
    } | {kind: (value, OWN_KEY) for kind, (value, _) in ODD.items()}

    def put(number: int, key: bytes | None, value: bytes | None, kind: str | None) -> None:
        event = flight_event(number)
        key = event["event_id"].encode() if key is OWN_KEY else key
        at = int(datetime.fromisoformat(event["event_time"]).timestamp() * 1000)

        def delivered(error: KafkaError | None, message: Message) -> None:
            assert error is None, (kind, error)
            place = message.partition(), message.offset()
            if kind is None:
                outcome.good[place] = event
            else:
                outcome.sent[kind] = Sent(key, value, *place)

        part = number // 3 % PARTITIONS
        sender.produce(contract.rules.topic, value, key, part, on_delivery=delivered, timestamp=at)
        sender.poll(0)

    for number, (kind, (value, key)) in enumerate(kinds.items()):
        put(3 * number, OWN_KEY, text(3 * number), None)
        put(3 * number + 1, key, value(3 * number + 1), kind)
        put(3 * number + 2, OWN_KEY, text(3 * number + 2), None)
    assert sender.flush(60) == 0


@pytest.fixture(scope="module")
def run(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One worker's run over good events with a record of each kind between them."""
    settings = own_instance(tmp_path_factory.mktemp("bad"), broker)
    outcome, catalog = Run(settings), open_catalog(settings)
    names = load_contracts(settings.contracts_dir)["airlines"].arrow_schema
    carriers = [{"carrier": code, "name": f"Carrier {code}"} for code in ("UA", "AA", "DL")]
    ensure_table(catalog, "lookup.airlines", names).append(pa.Table.from_pylist(carriers, names))
    ensure_topics(settings, [flight_contract(settings)])
    produce(outcome)
    own = {"FRESHDATA_HOME": str(settings.home), "FRESHDATA_PROJECT": str(settings.project)}
    with worker(settings, {**os.environ, **own, "FRESHDATA_KAFKA_BOOTSTRAP": broker}) as process:
        wait_until_caught_up(settings)
        assert process.poll() is None
        assert [int(path.stem.rpartition("-")[2]) for path in settings.metrics_dir.iterdir()] == [process.pid]
    outcome.log = (settings.home / "worker.log").read_text()
    for row in catalog.load_table("quarantine.flight_events").scan().to_arrow().to_pylist():
        outcome.quarantine[row["partition"], row["offset"]] = row
    for row in catalog.load_table("bronze.flight_events").scan().to_arrow().to_pylist():
        outcome.bronze[row["_kafka_partition"], row["_offset"]] = row
    return outcome


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_record_is_kept_as_it_came_with_the_reason(run: Run, kind: str) -> None:
    sent = run.sent[kind]
    row = run.quarantine[sent.partition, sent.offset]
    assert row["payload"] == sent.value
    assert row["key"] == sent.key
    assert re.search(BAD[kind][1], row["reason"])
    assert len(row["reason"]) <= 500
    contract = flight_contract(run.settings)
    assert (row["topic"], row["contract_version"]) == (contract.rules.topic, contract.version)
    assert (sent.partition, sent.offset) not in run.bronze


@pytest.mark.parametrize("kind", ODD)
def test_what_looks_strange_and_fits_the_contract_is_stored(run: Run, kind: str) -> None:
    sent = run.sent[kind]
    row = run.bronze[sent.partition, sent.offset]
    assert ODD[kind][1].items() <= row.items()
    assert (sent.partition, sent.offset) not in run.quarantine


def test_all_good_events_around_them_are_in_bronze(run: Run) -> None:
    assert len(run.good) == 2 * (len(BAD) + len(ODD))
    for place, event in run.good.items():
        row = run.bronze[place]
        assert (row["event_id"], row["flight"]) == (event["event_id"], event["flight"])
        assert row["carrier_name"] == f"Carrier {event['tenant_id']}"
        assert row["event_time"] == datetime.fromisoformat(event["event_time"])
    assert len(run.bronze) == len(run.good) + len(ODD)
    assert len(run.quarantine) == len(BAD)
    findings, counts = verify_ingest(run.settings, open_catalog(run.settings), flight_contract(run.settings))
    assert [finding for finding in findings if not finding.ok] == []
    assert (counts["accepted"], counts["rejected"]) == (len(run.bronze), len(BAD))


def test_times_far_ahead_move_neither_the_newest_event_time_nor_the_watermark(run: Run) -> None:
    newest = dict.fromkeys(range(PARTITIONS), datetime(1970, 1, 1, tzinfo=UTC))
    for row in run.bronze.values():
        newest[row["_kafka_partition"]] = max(newest[row["_kafka_partition"]], row["event_time"])
    done = progress(run.settings)
    assert done is not None
    assert {number: part.max_event_time for number, part in done.partitions.items()} == {
        number: time.timestamp() * 1_000_000 for number, time in newest.items()
    }
    snapshot = open_catalog(run.settings).load_table("bronze.flight_events").current_snapshot()
    watermark = datetime.fromisoformat(str(summary_property(snapshot, "freshdata.watermark")))
    assert watermark == min(newest.values()) - flight_contract(run.settings).rules.allowed_lateness


def test_the_worker_was_never_disturbed(run: Run) -> None:
    assert run.log.count("assigned stream=") == 1
    assert "Traceback" not in run.log
    assert re.search(r"misses=airlines\.tenant_id:[1-9]", run.log)


@pytest.mark.parametrize(
    ("size", "ahead", "refusal"),
    [
        (17 * 1024 * 1024, timedelta(0), KafkaError.MSG_SIZE_TOO_LARGE),
        # By Kafka's own limit; such an event would agree with its record, and the watermark would follow it.
        (100, timedelta(days=400), KafkaError.INVALID_TIMESTAMP),
    ],
    ids=["larger than the topic takes", "a record from the future"],
)
def test_what_the_broker_refuses_its_producer_is_told(run: Run, size: int, ahead: timedelta, refusal: int) -> None:
    sender, errors = producer(run.settings), []
    at = int((datetime.now(UTC) + ahead).timestamp() * 1000)
    topic = flight_contract(run.settings).rules.topic
    sender.produce(topic, b"x" * size, b"k", timestamp=at, on_delivery=lambda error, _: errors.append(error))
    assert sender.flush(60) == 0
    assert [error.code() for error in errors] == [refusal]
