"""Writes to Kafka from an event loop: each ends with the brokers' acknowledgement, or with why there is none."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from freshdata.services.kafka import client_config
from freshdata.settings import Settings

PROMISED = {"enable.idempotence": True, "acks": "all", "log_level": "0"}
DEFAULTS = {
    "compression.type": "lz4",
    "linger.ms": 2,
    # Whoever waits for it gives up about then, and sends it again.
    "message.timeout.ms": 10_000,
    "message.max.bytes": 16 * 1024 * 1024,
    "queue.buffering.max.messages": 200_000,
    "queue.buffering.max.kbytes": 131_072,
    "reconnect.backoff.max.ms": 1_000,
}
POLL_SECONDS = 0.001
PROBE_SECONDS = 5.0
PROBE_AGAIN_SECONDS = 0.5
PROBE_TIMEOUT = 2.0
# What the event itself is to blame for: it would be refused again.
REFUSED = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """Why Kafka does not have an event.

    Attributes:
        reason: Kafka's words.
        final: Whether it would refuse the event again.
    """

    reason: str
    final: bool


# Called with None once the brokers have the event.
Done = Callable[[Failure | None], None]


class EventWriter:
    """An idempotent producer whose callbacks run in the event loop.

    Attributes:
        available: Whether Kafka answered when it was last asked.
        broken: Set when the client cannot go on: only a new process can.
    """

    def __init__(self, settings: Settings, topics: Sequence[str]) -> None:
        self.available = False
        self.broken = asyncio.Event()
        self._topic = next(iter(topics), None)
        self._suspect = asyncio.Event()
        self._ticking = False
        self._producer = Producer({**DEFAULTS, **client_config(settings), **PROMISED, "error_cb": self._failed})

    def write(self, topic: str, key: bytes, value: bytes, timestamp: int, done: Done) -> None:
        """Write an event; ``done`` is called later, or at once if there is no room for it.

        Args:
            topic: The topic.
            key: Message key.
            value: Message value.
            timestamp: Record timestamp, in milliseconds.
            done: Called with the outcome.
        """

        def delivered(error: KafkaError | None, _message: Any) -> None:
            if error is None:
                done(None)
            else:
                self._report(error, done)

        try:
            self._producer.produce(topic, value, key, timestamp=timestamp, on_delivery=delivered)
        except BufferError:
            done(Failure("the queue to Kafka is full", final=False))
        except KafkaException as error:
            self._report(error.args[0], done)
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_soon(self._tick)

    async def probe(self) -> None:
        """Ask Kafka whether it is there."""
        try:
            # One topic: of a large cluster, all would be a large answer.
            available = bool((await asyncio.to_thread(self._producer.list_topics, self._topic, PROBE_TIMEOUT)).brokers)
        except KafkaException:
            available = False
        if available != self.available:
            logger.warning("Kafka %s", "answers" if available else "does not answer")
        self.available = available

    async def watch(self) -> None:
        """Ask Kafka now and then, and at once when something went wrong, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(PROBE_SECONDS if self.available else PROBE_AGAIN_SECONDS):
                    await self._suspect.wait()
            except TimeoutError:
                pass
            self._suspect.clear()
            self._producer.poll(0)
            await self.probe()

    async def close(self) -> None:
        """Wait until Kafka has what was given to it, or the time for it is over."""
        await asyncio.to_thread(self._producer.flush, 5.0)

    def _tick(self) -> None:
        self._producer.poll(0)
        if len(self._producer):
            asyncio.get_running_loop().call_later(POLL_SECONDS, self._tick)
        else:
            self._ticking = False

    def _report(self, error: KafkaError, done: Done) -> None:
        final = error.code() in REFUSED
        if not final:
            self._failed(error)
        done(Failure(error.str(), final))

    def _failed(self, error: KafkaError) -> None:
        self._suspect.set()
        if error.fatal():
            logger.critical("The Kafka client cannot go on: %s", error.str())
            self.broken.set()
