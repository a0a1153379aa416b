"""Send the events of a file to a stream's topic, as its producer would."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Producer

from freshdata.contracts import Contract
from freshdata.errors import ServiceError
from freshdata.services.kafka import client_config, ensure_topics
from freshdata.settings import Settings
from freshdata.streams.samples import read_lines

CONFIG: dict[str, Any] = {
    "enable.idempotence": True,
    "linger.ms": 20,
    "compression.type": "zstd",
    "log_level": "0",  # A broker that has just started is asked again; what fails is told by the delivery.
}
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Sent:
    """What was sent.

    Attributes:
        messages: Messages that Kafka has.
        keyless: Those without the field that is the key: they will go to quarantine.
    """

    messages: int
    keyless: int


def send_file(settings: Settings, contract: Contract, path: Path, advance: Callable[[int], None]) -> Sent:
    """Send each line of a file as an event, now, keyed by the contract's key; a line that is no event is sent as well.

    Args:
        settings: The instance.
        contract: The stream's contract.
        path: File of JSON Lines; it may be compressed (``.gz``).
        advance: Told of every thousand messages that were sent.

    Raises:
        SampleError: the file cannot be read.
        ServiceError: Kafka did not take all of it.
    """
    ensure_topics(settings, [contract])
    [field] = [column.source_name for column in contract.columns if column.name == contract.rules.dedupe_key[0]]
    producer = Producer(client_config(settings) | CONFIG)
    failed: list[str] = []

    def delivered(error: object, _: object) -> None:
        if error is not None:
            failed.append(str(error))

    sent = keyless = 0
    for line in read_lines(path):
        key = _key(line, field)
        keyless += key is None
        while True:
            try:
                producer.produce(contract.rules.topic, line, key, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
        sent += 1
        if sent % 1000 == 0:
            producer.poll(0)
            advance(1000)
    left = producer.flush(PATIENCE_SECONDS)
    if left or failed:
        raise ServiceError(
            "kafka",
            f"Kafka did not take {left + len(failed)} of {sent} messages{': ' + failed[0] if failed else ''}.",
            remedy="Look at `freshdata status`, and send the file again: what it has already is a duplicate.",
        )
    return Sent(sent, keyless)


def _key(line: bytes, field: str) -> bytes | None:
    try:
        value = msgspec.json.decode(line).get(field)
    except (msgspec.DecodeError, AttributeError, RecursionError, UnicodeError):
        return None
    return None if value is None else str(value).encode()
