"""Run real gateway processes, and talk to them."""

import base64
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka import Consumer, TopicPartition

from freshdata.api_keys import create_key, keys_file
from freshdata.services.kafka import client_config, end_offsets, ensure_topics
from freshdata.services.processes import free_port
from freshdata.settings import Settings
from tests.streams import flight_contract, wait_for

EVENTS = "/v1/streams/flight_events/events"


@dataclass
class Door:
    """A running gateway.

    Attributes:
        process: Its process.
        address: Where it is.
        log: Its log.
    """

    process: subprocess.Popen[bytes]
    address: str
    log: Path
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.address, timeout=60)

    def post(self, token: str, content: Any, path: str = EVENTS, **headers: str) -> httpx.Response:
        """Post events: an object or a list as JSON, bytes as they are."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        default = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return self.client.post(path, content=data, headers=default | names)


def make_key(settings: Settings, tenant: str = "UA", streams: tuple[str, ...] = ()) -> str:
    """The secret text of a new key."""
    return create_key(keys_file(settings), tenant=tenant, streams=streams)[1]


@contextmanager
def gateway(
    settings: Settings, environment: dict[str, str], *, port: int | None = None, ready: bool = True, **extra: str
) -> Iterator[Door]:
    """A gateway process, killed at the end if it still runs."""
    if settings.kafka_bootstrap and ready:
        ensure_topics(settings, [flight_contract(settings)])
    port = port or free_port()
    log = settings.home / "gateway.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving_api.gateway"],
            env={**environment, "FRESHDATA_GATEWAY_PORT": str(port), **extra},
            stdout=output,
            stderr=output,
        )
    door = Door(process, f"http://127.0.0.1:{port}", log)
    try:
        wait_for(lambda: answers(door, "/readyz" if ready else "/healthz"), "an answer of the gateway", log)
        yield door
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text()[-3000:]
    finally:
        door.client.close()
        if process.poll() is None:
            process.kill()
            process.wait(30)


def answers(door: Door, path: str) -> bool:
    """Whether it answers with success; fails when its process has ended."""
    assert door.process.poll() is None, door.log.read_text()[-3000:]
    try:
        return httpx.get(door.address + path, timeout=5).is_success
    except httpx.TransportError:
        return False


def records(settings: Settings) -> list[tuple[bytes | None, bytes]]:
    """Key and value of every record of the flight topic."""
    topic = flight_contract(settings).rules.topic
    ends = end_offsets(settings, topic)
    consumer = Consumer({**client_config(settings), "group.id": "test-gateway", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, number, 0) for number in ends])
    found: list[tuple[bytes | None, bytes]] = []
    while len(found) < sum(ends.values()):
        for message in consumer.consume(1000, 1.0):
            assert message.error() is None
            found.append((message.key(), message.value()))
    consumer.close()
    return found


def basic(name: str) -> str:
    """An Authorization header of another style."""
    return "Basic " + base64.b64encode(f"{name}:".encode()).decode()
