"""Post alerts to the address that ``FRESHDATA_ALERT_WEBHOOK`` names."""

import json
import time
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any
from urllib.request import Request, urlopen

TIMEOUT = 5.0  # seconds
# A sensor's tick has a minute for everything.
PATIENCE = 15.0  # seconds


def post_alerts(address: str, payloads: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """Post payloads as JSON, each by itself, those of one stream in their order.

    Args:
        address: Where to.
        payloads: The payloads, the oldest first.

    Returns:
        Those that were not taken, to be posted again, and the last reason; an empty string when all were.
    """
    deadline = time.monotonic() + PATIENCE
    left: list[dict[str, Any]] = []
    held_up: set[str] = set()
    reason = ""
    for payload in payloads:
        # "Resolved" before "late" would read as an alert that lasts.
        if payload["stream"] in held_up or time.monotonic() > deadline:
            left.append(payload)
            continue
        try:
            _post(address, payload)
        except (OSError, HTTPException) as error:
            held_up.add(payload["stream"])
            left.append(payload)
            reason = f"{type(error).__name__}: {error}"
    return left, reason or ("the receiver is slow" if left else "")


def _post(address: str, payload: dict[str, Any]) -> None:
    body = json.dumps(payload).encode()
    request = Request(address, body, {"Content-Type": "application/json"}, method="POST")  # noqa: S310 (http or https by settings)
    with urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
        answer.read()
