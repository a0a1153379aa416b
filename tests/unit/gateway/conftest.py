"""The gateway in this process, with a Kafka that can be told to fail."""

import asyncio
import json

import httpx
import pytest

from freshdata.api_keys import create_key, keys_file
from freshdata.clock import instance_clock
from freshdata.contracts import load_contracts
from freshdata.settings import PROJECT
from serving_api.gateway.app import Gateway
from tests.streams import START

EVENTS = "/v1/streams/flight_events/events"


class MemoryWriter:
    """Takes events instead of Kafka.

    Attributes:
        available: Whether it pretends to be there.
        problem: Why it takes no event, or None.
        written: What it took: topic, key, value and timestamp.
        held: The events whose outcome it keeps to itself as long as it is told to hold.
    """

    def __init__(self):
        self.available = True
        self.hold = False
        self.problem = None
        self.written = []
        self.held = []

    def write(self, topic, key, value, timestamp, done):
        def answer():
            if self.problem is None:
                self.written.append((topic, key, value, timestamp))
                done(None)
            else:
                done(self.problem)

        if self.hold:
            self.held.append(answer)
        else:
            asyncio.get_running_loop().call_soon(answer)


class Door:
    """A gateway that is talked to without a socket."""

    def __init__(self, settings, contracts=None):
        self.settings = settings
        self.writer = MemoryWriter()
        self.gateway = Gateway(settings, contracts or load_contracts(PROJECT / "contracts"), self.writer)
        self.token = create_key(keys_file(settings), tenant="UA")[1]
        self.runner = asyncio.Runner()
        transport = httpx.ASGITransport(self.gateway.app())
        self.client = httpx.AsyncClient(transport=transport, base_url="http://gateway")

    def send(self, content, *, token=None, path=EVENTS, **headers):
        """The request that posts events: JSON, or bytes, all at once or as they come."""
        data = json.dumps(content).encode() if isinstance(content, dict | list) else content
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        default = {"Authorization": f"Bearer {token or self.token}", "Content-Type": "application/json"}
        return self.client.post(path, content=data, headers=default | names)

    def post(self, content, **options):
        return self.runner.run(self.send(content, **options))

    def get(self, path):
        return self.runner.run(self.client.get(path))

    @property
    def values(self):
        """The values that were written."""
        return [json.loads(value) for _, _, value, _ in self.writer.written]

    def close(self):
        self.runner.run(self.client.aclose())
        self.runner.close()
        self.gateway._store.close()


@pytest.fixture
def doors(instance):
    """Makes gateways over one instance, as one after another is started."""
    instance_clock(instance.home).set(start=START.date(), now=START)
    opened = []

    def make(contracts=None, **changes):
        opened.append(Door(instance.model_copy(update=changes), contracts))
        return opened[-1]

    yield make
    for door in opened:
        door.close()


@pytest.fixture
def door(doors):
    """A gateway."""
    return doors()
