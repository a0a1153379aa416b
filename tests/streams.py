"""Send events to a real broker and run real worker processes on them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from freshdata.contracts import Contract, load_contracts
from freshdata.lake.catalog import open_catalog
from freshdata.lake.progress import Progress, read_progress
from freshdata.services.kafka import client_config, end_offsets, ensure_topics
from freshdata.settings import Settings
from freshdata.verify.ingest import verify_ingest

START = datetime(2013, 1, 5, 12, tzinfo=UTC)
DEADLINE = 240.0  # On a machine that is busy with something else too.
BROKEN: list[bytes | None] = [None, b"", b"{", b"\xff\xfe", b"[]", b'{"event_id": 1}']


def flight_event(number: int, **changes: Any) -> dict[str, Any]:
    """One valid departure; the same number always gives the same event."""
    happened = START + timedelta(seconds=number * 30)
    return {
        "event_id": f"UA-{number:06d}-dep",
        "event_type": "departed",
        "tenant_id": ("UA", "AA", "DL")[number % 3],
        "event_time": happened.isoformat(),
        "flight_date": (happened.date()).isoformat(),
        "flight": number % 9000 + 1,
        "sched_dep_time": 600,
        "scheduled_departure": (happened - timedelta(minutes=5)).isoformat(),
        "tailnum": f"N{number % 50:03d}",
        "origin": "EWR",
        "dest": "ORD",
        "dep_delay": 5,
        "distance": 719,
    } | changes


def flight_contract(settings: Settings) -> Contract:
    """The flight stream's contract of this instance."""
    return load_contracts(settings.contracts_dir)["flight_events"]


def assert_verified(settings: Settings) -> dict[str, int]:
    """Compare the topic with what is stored, row by row; returns what became of its records."""
    findings, counts = verify_ingest(settings, open_catalog(settings), flight_contract(settings))
    assert [finding for finding in findings if not finding.ok] == []
    assert counts["consumed"] == counts["accepted"] + counts["duplicates"] + counts["rejected"]
    return counts


def send(settings: Settings, records: list[tuple[bytes | None, bytes | None, datetime]]) -> None:
    """Send records (key, value, timestamp) and wait until Kafka has them all."""
    contract = flight_contract(settings)
    ensure_topics(settings, [contract])
    producer = Producer({**client_config(settings), "linger.ms": 5})
    for key, value, timestamp in records:
        producer.produce(contract.rules.topic, value, key, timestamp=int(timestamp.timestamp() * 1000))
        producer.poll(0)
    assert producer.flush(30) == 0


def disorderly(count: int, seed: int, first: int = 0) -> list[tuple[bytes | None, bytes | None, datetime]]:
    """Valid events with repeats, late ones and broken ones between them."""
    chance = random.Random(seed)  # noqa: S311 - a seeded test
    records: list[tuple[bytes | None, bytes | None, datetime]] = []
    held: list[tuple[bytes | None, bytes | None, datetime]] = []
    for number in range(first, first + count):
        event = flight_event(number)
        at = datetime.fromisoformat(event["event_time"])
        record = (event["event_id"].encode(), json.dumps(event).encode(), at)
        if chance.random() < 0.03:
            held.append(record)
            continue
        records.append(record)
        if chance.random() < 0.05:
            records.append(chance.choice(records))
        if chance.random() < 0.04:
            records.append((f"bad-{seed}-{number}".encode(), chance.choice(BROKEN), at))
    return records + [(key, value, at) for key, value, _ in held]


@contextmanager
def worker(settings: Settings, environment: dict[str, str], **extra: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process of the flight stream; killed at the end if it still runs."""
    log = settings.home / "worker.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "stream_workers", "flight_events"],
            env={**environment, "PYTHONFAULTHANDLER": "1", **extra},
            stdout=output,
            stderr=output,
        )
    try:
        yield process
        process.terminate()
        # A worker that is still importing its libraries dies by the signal; a running one commits and ends.
        try:
            assert process.wait(30) in (0, -signal.SIGTERM, -signal.SIGKILL)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # It says on which line each thread hangs.
            process.wait(30)
            raise AssertionError(f"the worker did not end\n{log.read_text()[-9000:]}") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(30)


def owners(settings: Settings) -> list[set[int]]:
    """The partitions of each member of the flight workers' group, as the broker sees it."""
    admin = AdminClient(client_config(settings))
    [group] = admin.describe_consumer_groups([f"freshdata-{flight_contract(settings).rules.topic}"]).values()
    return [{part.partition for part in member.assignment.topic_partitions} for member in group.result(30).members]


def wait_for(condition: Callable[[], Any], what: str, log: Path | None = None) -> Any:
    """The first true value of a condition; fails when it does not come true."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    tail = log.read_text()[-3000:] if log and log.is_file() else ""
    raise AssertionError(f"{what} did not happen in {DEADLINE:.0f} s\n{tail}")


def progress(settings: Settings) -> Progress | None:
    """Bronze's progress, or None."""
    catalog = open_catalog(settings)
    name = flight_contract(settings).table
    return read_progress(catalog.load_table(name)) if catalog.table_exists(name) else None


def caught_up(settings: Settings) -> bool:
    """Whether Bronze has committed every offset of the topic."""
    done = progress(settings)
    ends = {p: end for p, end in end_offsets(settings, flight_contract(settings).rules.topic).items() if end}
    return done is not None and {p: d.offset for p, d in done.partitions.items()} == ends


def wait_until_caught_up(settings: Settings) -> Progress:
    """Wait until Bronze has every record of the topic."""
    wait_for(lambda: caught_up(settings), "catching up", settings.home / "worker.log")
    done = progress(settings)
    assert done is not None
    return done


def pid_exists(pid: int) -> bool:
    """Whether a process of this id runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
