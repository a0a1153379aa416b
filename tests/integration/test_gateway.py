"""A real gateway before a real Kafka: what is answered 202 is in the topic, whatever happens."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress

import httpx
import pytest

from freshdata.lake.catalog import open_catalog
from freshdata.services.broker import broker_program, running_broker
from freshdata.services.processes import Supervisor, read_json
from tests.gateway import EVENTS, answers, gateway, make_key, records
from tests.streams import assert_verified, flight_contract, flight_event, wait_for, wait_until_caught_up, worker

pytestmark = pytest.mark.integration


def mine(first, count):
    return [flight_event(3 * number) for number in range(first, first + count)]


def written(events):
    return [json.dumps(event).encode() for event in events]


class Client(threading.Thread):
    """Sends batches of events of its own one after another until it is not answered any more.

    Attributes:
        acknowledged: The events that were answered 202.
    """

    def __init__(self, door, token, number):
        super().__init__(daemon=True)
        self.acknowledged = []
        self._door, self._token, self._number = door, token, number

    def run(self):
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/x-ndjson"}
        with httpx.Client(base_url=self._door.address, timeout=60) as client, suppress(httpx.TransportError):
            for batch in range(90):
                events = mine(self._number * 2_000 + 20 * batch, 1 + batch % 20)
                answer = client.post(EVENTS, content=b"\n".join(written(events)), headers=headers)
                assert answer.status_code == 202, answer.text
                self.acknowledged += events


def load(door, token):
    """Clients at work that have been answered some."""
    clients = [Client(door, token, number) for number in range(4)]
    for client in clients:
        client.start()
    wait_for(lambda: all(len(client.acknowledged) > 100 for client in clients), "some load", door.log)
    return clients


def ended(clients):
    """What clients were acknowledged until they ended."""
    for client in clients:
        client.join(60)
        assert not client.is_alive()
    return [event for client in clients for event in client.acknowledged]


def test_accepted_is_what_the_topic_holds_row_by_row(streaming, environment):
    """Good events, bad ones and repeats until it is told to stop; then all through a worker, beside some by kcat."""
    tokens = {tenant: make_key(streaming, tenant) for tenant in ("UA", "AA")}
    mixed = [flight_event(number) for number in range(300)]
    with gateway(streaming, environment(streaming)) as door:
        clients = load(door, tokens["UA"])
        answer = door.post(tokens["AA"], [*mixed, {"event_id": "broken"}], Idempotency_Key="retry")
        assert answer.status_code == 207
        assert answer.json()["accepted"] == 100
        # A client that got no answer sends again: under its key nothing is written, without one repeats are.
        again = door.post(tokens["AA"], [*mixed, {"event_id": "broken"}], Idempotency_Key="retry")
        assert again.content == answer.content
        repeated = clients[0].acknowledged[:50]
        assert door.post(tokens["UA"], repeated).status_code == 202
        [target] = streaming.metrics_dir.iterdir()
        assert json.loads(target.read_text())[0]["targets"] == [door.address.removeprefix("http://")]
        door.process.send_signal(signal.SIGTERM)
        assert door.process.wait(30) == 0
        sent = [*ended(clients), *(event for event in mixed if event["tenant_id"] == "AA")]
    assert not target.exists()
    held = records(streaming)
    # What was being written when it was told to stop was answered.
    assert Counter(value for _, value in held) == Counter(written([*sent, *repeated]))
    assert all(key == json.loads(value)["event_id"].encode() for key, value in held)
    by_kcat = _send_by_kcat(streaming, mine(8_000, 20))
    with worker(streaming, environment(streaming)):
        wait_until_caught_up(streaming)
    counts = assert_verified(streaming)
    assert (counts["accepted"], counts["duplicates"], counts["rejected"]) == (len(sent) + len(by_kcat), 50, 0)
    stored = open_catalog(streaming).load_table("bronze.flight_events").scan().to_arrow()["event_id"].to_pylist()
    assert sorted(stored) == sorted(event["event_id"] for event in [*sent, *by_kcat])


def _send_by_kcat(streaming, events):
    """Send plain JSON straight into the topic with another program; nothing where it is not installed."""
    if not shutil.which("kcat"):
        return []
    topic = ("-b", streaming.kafka_bootstrap, "-t", flight_contract(streaming).rules.topic)
    text = "".join(f"{event['event_id']}|{json.dumps(event)}\n" for event in events)
    subprocess.run(["kcat", "-P", *topic, "-K", "|"], input=text.encode(), check=True, timeout=60)
    return events


def test_what_was_acknowledged_survives_a_kill(streaming, environment):
    token = make_key(streaming)
    with gateway(streaming, environment(streaming)) as door:
        assert door.post(token, flight_event(0), Idempotency_Key="one").status_code == 202
        clients = load(door, token)
        door.process.send_signal(signal.SIGKILL)
        assert door.process.wait(30) == -signal.SIGKILL
        acknowledged = written([flight_event(0), *ended(clients)])
    assert not Counter(acknowledged) - Counter(value for _, value in records(streaming))
    # Its successor knows the same keys, and what it had answered.
    with gateway(streaming, environment(streaming)) as door:
        again = door.post(token, flight_event(0), Idempotency_Key="one")
        assert (again.status_code, again.headers["Idempotent-Replayed"]) == (202, "true")


def test_without_its_broker_it_says_so_and_goes_on_when_it_is_back(instance, environment):
    token = make_key(instance)
    config = json.dumps({"message.timeout.ms": "2000"})
    with Supervisor(instance.logs) as supervisor:
        supervisor.start("kafka", lambda: broker_program(instance))
        pid = read_json(instance.run_dir / "kafka.json")["pid"]
        own = instance.model_copy(update={"kafka_bootstrap": running_broker(instance)})
        with gateway(own, environment(own), FRESHDATA_KAFKA_CONFIG=config) as door:
            assert door.post(token, flight_event(0)).status_code == 202
            os.kill(pid, signal.SIGSTOP)
            try:
                lost = door.post(token, flight_event(3))
                assert lost.status_code == 503
                assert lost.json()["errors"][0]["code"] == "unavailable"
                assert lost.headers["Retry-After"]
                wait_for(lambda: not answers(door, "/readyz"), "the gateway noticing", door.log)
                began = time.monotonic()
                assert door.post(token, flight_event(3)).status_code == 503
                assert time.monotonic() - began < 2.0  # It does not wait for Kafka any more.
                assert answers(door, "/healthz")
            finally:
                os.kill(pid, signal.SIGCONT)
            wait_for(lambda: answers(door, "/readyz"), "the broker's return", door.log)
            assert door.post(token, flight_event(3)).status_code == 202
            os.kill(pid, signal.SIGKILL)  # The supervisor starts it again.
            wait_for(lambda: read_json(instance.run_dir / "kafka.json")["pid"] != pid, "another broker", door.log)
            wait_for(lambda: door.post(token, flight_event(6)).status_code == 202, "the broker's return", door.log)
        held = {json.loads(value)["event_id"] for _, value in records(own)}
    assert held == {flight_event(number)["event_id"] for number in (0, 3, 6)}


def _refused_start(command, env):
    run = subprocess.run(
        [sys.executable, "-m", *command], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 1
    assert len(run.stderr.splitlines()) == 1
    return run.stderr


def test_a_mistake_in_its_start_is_one_line(instance, environment):
    assert "freshdata up" in _refused_start(["freshdata.cli", "gateway"], environment(instance))
    instance.gateway_dir.mkdir(parents=True)
    (instance.gateway_dir / "memory.db").write_text("This is no database." * 100)
    told = _refused_start(["serving_api.gateway"], environment(instance) | {"FRESHDATA_KAFKA_BOOTSTRAP": "localhost:9"})
    assert "memory.db cannot be used: file is not a database. Make it writable, or move it away" in told
