"""Rejected events as lines of JSON that can be edited, and such lines as corrections."""

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from freshdata.errors import QuarantineError
from freshdata.quarantine.events import Place, RejectedEvent


@dataclass(frozen=True)
class Correction:
    """What a rejected event is to be sent again as.

    Attributes:
        place: Where the rejected event was.
        ingested_at: Its record timestamp; None when the place alone is to name it.
        payload: The payload to send.
    """

    place: Place
    ingested_at: datetime | None
    payload: bytes | None


def to_line(event: RejectedEvent) -> str:
    """An event as one line of JSON; key and payload are text if they are UTF-8, else base64 under another name."""
    again = event.replayed
    content = {
        "at": str(event.place),
        "ingested_at": event.ingested_at.isoformat(),
        "reason": event.reason,
        "contract_version": event.contract_version,
        "sent_again_at": again.at.isoformat() if again else None,
        "sent_again_as": str(again.place) if again else None,
    }
    return json.dumps(content | _plain("key", event.key) | _plain("payload", event.payload))


def read_corrections(stream: str, lines: Iterable[bytes], source: str) -> list[Correction]:
    """Read lines of :func:`to_line`, edited or not; only ``at``, ``ingested_at`` and the payload count.

    Args:
        stream: The stream's name.
        lines: The lines; empty ones are left out.
        source: Where they are from, for messages.

    Raises:
        QuarantineError: one of them is no correction, or there are none.
    """
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.append(_correction(json.loads(line.decode())))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise QuarantineError(
                stream,
                f"line {number} of {source} is no correction: {what}.",
                remedy=f"Write it as `freshdata quarantine show {stream} --json` does, the payload as text.",
            ) from error
    if not found:
        raise QuarantineError(
            stream,
            f"{source} holds no corrections.",
            remedy=f"Begin with `freshdata quarantine show {stream} --json`.",
        )
    return found


def _plain(name: str, content: bytes | None) -> dict[str, str | None]:
    if content is None:
        return {name: None}
    try:
        return {name: content.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(content).decode()}


def _correction(content: Any) -> Correction:
    if not isinstance(content, dict):
        raise TypeError("it is no JSON object")
    at = content["at"]
    place = Place.parse(at) if isinstance(at, str) else None
    if place is None:
        raise ValueError(f"at is {at!r}, not PARTITION:OFFSET")
    time = content.get("ingested_at")
    ingested_at = datetime.fromisoformat(time) if time is not None else None
    if ingested_at is not None and ingested_at.tzinfo is None:
        ingested_at = ingested_at.replace(tzinfo=UTC)
    return Correction(place, ingested_at, _payload(content))


def _payload(content: dict[str, Any]) -> bytes | None:
    if ("payload" in content) == ("payload_base64" in content):
        raise ValueError("it needs either payload or payload_base64")
    if "payload" in content:
        text = content["payload"]
        if text is not None and not isinstance(text, str):
            raise TypeError("payload is not text")
        return None if text is None else text.encode()
    try:
        return base64.b64decode(content["payload_base64"], validate=True)
    except binascii.Error as error:
        raise ValueError(f"payload_base64: {error}") from error
