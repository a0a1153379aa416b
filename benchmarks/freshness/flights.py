"""Flight events that happen now, at a steady rate."""

import json
import random
import threading
import time
from datetime import UTC, datetime
from itertools import count

from confluent_kafka import Producer

from freshdata.services.kafka import client_config
from freshdata.settings import Settings

CARRIERS = ("AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV", "9E")
AIRPORTS = ("ATL", "BOS", "CLT", "DCA", "DEN", "FLL", "LAX", "MCO", "ORD", "SFO")
TICK = 0.02  # seconds between two bursts


class Flights(threading.Thread):
    """Sends departures of today until it is stopped; no two have one key.

    Args:
        settings: The instance.
        topic: The topic.
        rate: Events a second.

    Attributes:
        sent: Events sent.
    """

    def __init__(self, settings: Settings, topic: str, rate: int) -> None:
        super().__init__(name="flights", daemon=True)
        self.sent = 0
        self._rate = rate
        self._topic = topic
        self._stopped = threading.Event()
        self._config = {**client_config(settings), "linger.ms": 5, "compression.type": "lz4"}

    def run(self) -> None:
        """Send."""
        producer = Producer(self._config)
        chance, numbers, started = random.Random(1), count(), time.monotonic()  # noqa: S311 - test data
        while not self._stopped.wait(TICK):
            while self.sent < (time.monotonic() - started) * self._rate:
                event = departure(next(numbers), chance)
                producer.produce(self._topic, json.dumps(event).encode(), event["event_id"])
                self.sent += 1
            producer.poll(0)
        producer.flush(30)

    def stop(self) -> None:
        """Stop, when Kafka has everything."""
        self._stopped.set()
        self.join()


def departure(number: int, chance: random.Random) -> dict[str, object]:
    """One event that happens now."""
    now = datetime.now(UTC)
    return {
        "event_id": f"{now:%Y%m%d}-{number:012d}",
        "event_type": "departed",
        "tenant_id": CARRIERS[number % len(CARRIERS)],
        "event_time": now.isoformat(timespec="milliseconds"),
        "flight_date": f"{now:%Y-%m-%d}",
        "flight": number // len(CARRIERS) % 9_999 + 1,
        "sched_dep_time": number // 159_984 % 2_400,
        "scheduled_departure": now.isoformat(timespec="seconds"),
        "tailnum": f"N{number % 4_000:05d}",
        "origin": ("EWR", "JFK", "LGA")[number % 3],
        "dest": AIRPORTS[number % len(AIRPORTS)],
        "dep_delay": chance.randrange(-10, 60),
        "distance": 1_000,
    }
