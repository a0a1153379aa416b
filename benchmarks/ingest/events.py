"""The events all contenders read, the topic they lie in, and the project whose contract describes them."""

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
from confluent_kafka import Producer

from freshdata.contracts import Contract, load_contracts
from freshdata.lake.catalog import ensure_table, open_catalog
from freshdata.services.kafka import client_config, ensure_topics
from freshdata.settings import Settings

CONTRACTS = Path(__file__).with_name("contracts")
STREAM = "events"
TENANTS = 20
PRODUCTS = 5_000
DUPLICATES = 0.05  # share of the events that repeat one of the last thousand
LOOK_BACK = 1_000  # events
FIRST_EVENT = 1_700_000_000_000  # milliseconds since the epoch
DISORDER = 60_000  # milliseconds by which an event may be older than its place in the stream
EVENT = (
    '{"event_id":"%032x","tenant_id":"tenant-%03d","event_type":"%s","event_time":"%s","user_id":"u%06d",'
    '"product_id":"p%04d","quantity":%d,"price":%.2f,"currency":"EUR","country":"DE","session":"session-%05d"}'
)
TYPES = ("order", "click", "view", "pay")
PRODUCER = {
    "linger.ms": 50,
    "batch.num.messages": 50_000,
    "queue.buffering.max.messages": 1_000_000,
    "compression.type": "lz4",
}


@dataclass(frozen=True)
class Topic:
    """A filled topic.

    Attributes:
        name: Its name.
        events: Records in it.
        distinct: Different event ids among them.
        mean_bytes: Mean size of a record's value.
    """

    name: str
    events: int
    distinct: int
    mean_bytes: float


def product(number: int) -> tuple[str, str]:
    """Id and category of a product."""
    return f"p{number:04d}", f"category {number % 40}"


def make_project(folder: Path, topic: str) -> None:
    """Write a project whose stream contract names a topic."""
    contracts = folder / "contracts"
    contracts.mkdir(parents=True, exist_ok=True)
    for path in CONTRACTS.iterdir():
        (contracts / path.name).write_text(path.read_text().replace("TOPIC", topic))


def prepare_home(settings: Settings) -> Contract:
    """Create the stream's topic and fill its lookup table in the instance's lake; returns the stream's contract."""
    contracts = load_contracts(settings.contracts_dir)
    ensure_topics(settings, [contracts[STREAM]])
    lookup = contracts["products"]
    ids, categories = zip(*map(product, range(PRODUCTS)), strict=True)
    rows = pa.table({"product_id": ids, "category": categories}, schema=lookup.arrow_schema)
    ensure_table(open_catalog(settings), lookup.table, lookup.arrow_schema).append(rows)
    return contracts[STREAM]


@lru_cache(maxsize=256)
def _clock(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def events(
    count: int, seed: int, *, now: bool = False, tenants: int = TENANTS, repeats: float = DUPLICATES
) -> Iterator[tuple[int, bytes]]:
    """Number and value of events; the same seed gives the same. A repeat has the number of the event it repeats.

    Args:
        count: How many.
        seed: Seed of the generator.
        now: Whether each event happens the moment it is asked for; otherwise time runs by 2 ms an event, out of order.
        tenants: Number of tenants.
        repeats: Share of the events that repeat an earlier one.
    """
    chance = random.Random(seed)  # noqa: S311 - test data
    pick = chance.random
    recent = [0] * LOOK_BACK
    for number in range(count):
        repeat = number >= LOOK_BACK and pick() < repeats
        event = recent[int(pick() * LOOK_BACK)] if repeat else number
        recent[number % LOOK_BACK] = event
        millis = time.time_ns() // 1_000_000 if now else FIRST_EVENT + number * 2 - int(pick() * DISORDER)
        value = EVENT % (
            event,
            int(pick() * tenants),
            TYPES[int(pick() * 4)],
            f"{_clock(millis // 1000)}.{millis % 1000:03d}Z",
            int(pick() * 100_000),
            int(pick() * PRODUCTS),
            int(pick() * 10),
            pick() * 100,
            int(pick() * 100_000),
        )
        yield event, value.encode()


def fill(settings: Settings, topic: str, stream: Iterable[tuple[int, bytes]], advance: Callable[[int], None]) -> Topic:
    """Send events as fast as Kafka takes them.

    Args:
        settings: The instance.
        topic: An existing topic.
        stream: Number and value of each event.
        advance: Told how many events were sent since it was last called.
    """
    producer = Producer({**client_config(settings), **PRODUCER})
    count = distinct = size = 0
    for number, (event, value) in enumerate(stream):
        count += 1
        distinct += event == number
        size += len(value)
        send(producer, topic, event, value)
        if number % 10_000 == 9_999:
            producer.poll(0)
            advance(10_000)
    if producer.flush(120):
        raise TimeoutError(f"Kafka did not take all events of {topic}")
    return Topic(topic, count, distinct, size / count)


def send(producer: Producer, topic: str, event: int, value: bytes) -> None:
    """Send one event, and wait while the producer's queue is full."""
    while True:
        try:
            producer.produce(topic, value, b"%032x" % event)
        except BufferError:
            producer.poll(0.1)
        else:
            return
