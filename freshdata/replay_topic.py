"""Read all partitions of a topic, from given offsets to given ones, without a consumer group."""

import time
from collections.abc import Iterator
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from freshdata.errors import ServiceError
from freshdata.services.kafka import client_config, end_offsets
from freshdata.settings import Settings

MESSAGES_PER_READ = 20_000
READ_SECONDS = 0.2  # consume() waits this long for a full list, so it is short
PATIENCE_SECONDS = 60.0


class TopicReader:
    """A consumer of all partitions of one topic; what transactions have aborted is not delivered.

    Args:
        settings: The instance.
        topic: The topic.

    Raises:
        ServiceError: Kafka does not answer, or has no such topic.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self.topic = topic
        self.partitions = sorted(end_offsets(settings, topic))
        self._reached: dict[int, int] = {}
        self._consumer = Consumer(
            client_config(settings)
            | {
                "group.id": "freshdata-replay",  # Named as the client demands it; nothing is stored under it.
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "queued.max.messages.kbytes": 65_536,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def bounds(self) -> dict[int, tuple[int, int]]:
        """For each partition the first offset of the log, and the one after the last record that is committed.

        Raises:
            ServiceError: Kafka does not answer.
        """
        try:
            return {
                number: self._consumer.get_watermark_offsets(
                    TopicPartition(self.topic, number), timeout=PATIENCE_SECONDS
                )
                for number in self.partitions
            }
        except KafkaException as error:
            raise self._refused(str(error)) from error

    def start(self, offsets: dict[int, int]) -> None:
        """Begin to read each partition at an offset."""
        self._reached = dict(offsets)
        self._consumer.assign([TopicPartition(self.topic, number, offset) for number, offset in offsets.items()])

    def read_to(self, ends: dict[int, int]) -> Iterator[list[Any]]:
        """Lists of messages until each partition has been read up to an offset, and maybe somewhat beyond.

        Args:
            ends: Kafka partition to the offset to stop before.

        Raises:
            ServiceError: Kafka does not deliver.
        """
        answered = time.monotonic()
        while any(self._reached[number] < end for number, end in ends.items()):
            messages = []
            for message in self._consumer.consume(MESSAGES_PER_READ, READ_SECONDS):
                answered = time.monotonic()
                error = message.error()
                if error is None:
                    messages.append(message)
                elif error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - its name in the public interface.
                    raise self._refused(error.str())
                if error is None or error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - as above.
                    # The markers that end transactions are never delivered: only the log's end tells they were passed.
                    self._reached[message.partition()] = message.offset() + (error is None)
            if messages:
                yield messages
                answered = time.monotonic()
            elif time.monotonic() - answered > PATIENCE_SECONDS:
                raise self._refused("it stopped answering")

    def _refused(self, why: str) -> ServiceError:
        return ServiceError(
            "kafka", f"Topic {self.topic} cannot be read: {why}.", remedy="Look at `freshdata status`, and try again."
        )
