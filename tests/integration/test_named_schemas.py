"""Avro, JSON Schema and plain JSON on one topic; the registry goes away and comes back."""

import io
import json
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, date, datetime

import fastavro
import pytest

from freshdata.contracts.avro_schema import avro_schema
from freshdata.contracts.json_schema import DRAFT, json_schema
from freshdata.lake.catalog import open_catalog
from freshdata.registry import framed, open_registry
from freshdata.services.registry import local_registry
from freshdata.settings import Settings
from tests.integration.test_worker_metrics import get, ready, sample
from tests.streams import (
    assert_verified,
    flight_contract,
    flight_event,
    progress,
    send,
    wait_for,
    wait_until_caught_up,
    worker,
)

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("registry_files")]


def avro(schema, number, schema_id):
    """An event as Avro in the wire format."""
    event = flight_event(number)
    for name in ("event_time", "scheduled_departure"):
        event[name] = datetime.fromisoformat(event[name]).astimezone(UTC)
    event["flight_date"] = date.fromisoformat(event["flight_date"])
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), event)
    return framed(schema_id, stream.getvalue())


def records(first, values):
    """Records of events from a number on, with these values."""
    events = [flight_event(number) for number in range(first, first + len(values))]
    return [
        (e["event_id"].encode(), v, datetime.fromisoformat(e["event_time"]))
        for e, v in zip(events, values, strict=True)
    ]


def test_workers_go_on_with_what_they_know_and_wait_for_what_they_do_not(streaming, environment):
    contract, log = flight_contract(streaming), streaming.home / "worker.log"
    own = Settings().for_home(streaming.home)  # With the project's pom.xml.
    first = avro_schema(contract)
    second = first | {"fields": [*first["fields"], {"name": "gate", "type": ["null", "string"], "default": None}]}
    with ExitStack() as services:
        services.enter_context(local_registry(own))
        registry = open_registry(streaming)
        old = registry.register("a-value", "AVRO", json.dumps(first))
        plain = registry.register("b-value", "JSON", json.dumps({"$schema": DRAFT} | json_schema(contract)))
        # With the same fields: the doc is another.
        new = registry.register("c-value", "AVRO", json.dumps(first | {"doc": "the next version"}))
        wider = registry.register("d-value", "AVRO", json.dumps(second))
        mixed = []
        for number in range(300):
            text = json.dumps(flight_event(number)).encode()
            mixed.append([avro(first, number, old), framed(plain, text), text][number % 3])
        send(streaming, records(0, mixed))
        send(streaming, records(300, [avro(first, 300, 999_999), b"\x00\x00\x00\x00\x01\x07"]))
        # It outlives the registry.
        running = worker(streaming, environment(streaming))
        running.__enter__()
        try:
            wait_until_caught_up(streaming)
            services.close()
            quarantine = open_catalog(streaming).load_table("quarantine.flight_events")
            reasons = sorted(quarantine.scan().to_arrow()["reason"].to_pylist())
            assert [reason.startswith("Schema 999999 is in no registry") for reason in reasons] == [True, False]
            # What is known goes on; what is not waits, and nothing of it is lost or refused.
            send(streaming, records(400, [avro(first, number, new) for number in range(400, 440)]))
            wait_for(lambda: "wait for the registry" in get(streaming, "/readyz")[1], "waiting for the registry", log)
            assert sample(streaming, "registry_refusals_total") >= 1
            assert progress(streaming).total().consumed == 302
            with local_registry(own):
                wait_until_caught_up(streaming)
                wait_for(lambda: ready(streaming), "readiness", log)
                send(streaming, records(500, [avro(second, 500, wider)]))
                wait_until_caught_up(streaming)
                counts = assert_verified(streaming)
                command = [sys.executable, "-m", "freshdata.cli", "contract", "test", "flight_events", "--json"]
                tried = subprocess.run(command, env=environment(streaming), capture_output=True, text=True, check=False)
        finally:
            running.__exit__(None, None, None)
    assert (counts["accepted"], counts["rejected"]) == (340, 3)
    # The same events, tried by hand on the contract's file.
    assert tried.returncode == 1
    trial = json.loads(tried.stdout)
    assert (trial["events"], trial["accepted"]) == (343, 340)
    assert sum(problem["events"] for problem in trial["problems"].values()) == 3
