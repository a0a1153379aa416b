"""Signed webhooks: who signed a delivery, and the event that it becomes.

A delivery belongs to the tenant whose secret signed it. What was signed and taken is remembered by its signature, so
that a delivery that is sent again, by its sender or by somebody who has recorded it, is not written again.
"""

import hmac
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from freshdata.contracts import Contract
from freshdata.contracts.model import Webhook
from freshdata.errors import ConfigError
from freshdata.settings import Settings
from freshdata.watched import Watched
from serving_api.gateway.refusals import RefusedError

TOLERANCE = 300  # seconds that a signed time may be off
MISSING: Any = object()

# Stream, sender and tenant to the secrets that are valid.
Secrets = dict[str, dict[str, dict[str, list[str]]]]
_decode = msgspec.json.Decoder(float_hook=Decimal).decode  # No digit of an amount is lost.
_encode = msgspec.json.Encoder(decimal_format="number").encode


def webhook_secrets(settings: Settings) -> Watched[Secrets]:
    """The secrets, as their file is now."""
    path = settings.webhook_secrets or settings.gateway_dir / "webhook-secrets.json"
    return Watched(path, _read_secrets, {})


def _read_secrets(path: Path) -> Secrets:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Secrets)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(
            f"The webhook secrets in {path} cannot be read: {error}.",
            remedy='Write {"STREAM": {"SENDER": {"TENANT": ["SECRET"]}}}.',
        ) from error


def verify(
    webhook: Webhook, headers: Mapping[str, str], body: bytes, tenants: Mapping[str, Sequence[str]]
) -> tuple[str, list[str]]:
    """Who signed a delivery.

    Args:
        webhook: How it must be signed.
        headers: Its headers, by names in lower case.
        body: Its body as it came.
        tenants: Tenant to its secrets.

    Returns:
        The tenant, and its signatures: while a secret is rotated there may be one by each.

    Raises:
        RefusedError: nobody did, or too long ago.
    """
    signed, given = _stripe(headers, body) if webhook.signature == "stripe" else _github(headers, body)
    found: dict[str, list[str]] = {}
    for tenant, secrets in tenants.items():
        for secret in secrets:
            wanted = hmac.new(secret.encode(), signed, "sha256").hexdigest()
            for signature in given:
                # All are compared: the time taken says nothing of which one it was.
                if hmac.compare_digest(wanted.encode(), signature.encode(errors="surrogateescape")) and secret:
                    found.setdefault(tenant, []).append(signature)
    if not found:
        raise RefusedError(401, "The signature is not right.", remedy="Sign with the secret of this endpoint.")
    return next(iter(found.items()))


def to_event(
    contract: Contract, sender: str, headers: Mapping[str, str], body: bytes, *, tenant: str, received: datetime
) -> bytes:
    """The event that a delivery becomes; whether the contract takes it is not judged here.

    Args:
        contract: The stream's contract, which says where the fields come from.
        sender: Who sent it.
        headers: The delivery's headers, by names in lower case.
        body: Its body.
        tenant: Whose secret signed.
        received: When it came.

    Raises:
        RefusedError: the body is no JSON.
    """
    try:
        document = _decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ArithmeticError) as error:
        raise RefusedError(400, f"The body is no JSON: {error}.", remedy="Send JSON, not a form.") from error
    columns = {column.name: column for column in contract.columns}
    event: dict[str, Any] = {}
    for name, source in contract.rules.webhooks[sender].fields.items():
        kind, _, rest = source.partition(".")
        if kind == "received":
            value: Any = received.isoformat()
        elif kind == "header":
            value = headers.get(rest.lower(), MISSING)
        else:
            value = _at(document, rest.split(".") if rest else [])
        if value is not MISSING:
            event[columns[name].source_name] = _fitting(value, columns[name].type)
    event[columns[contract.rules.tenant_field].source_name] = tenant
    return _encode(event)


def _stripe(headers: Mapping[str, str], body: bytes) -> tuple[bytes, list[str]]:
    pairs = [part.strip().partition("=") for part in headers.get("stripe-signature", "").split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    if len(times) != 1 or not times[0].isascii() or not times[0].isdigit() or len(times[0]) > 12:
        raise RefusedError(401, "There is no Stripe-Signature with one t=TIME.", remedy="Sign the delivery.")
    if abs(time.time() - int(times[0])) > TOLERANCE:
        raise RefusedError(
            401, f"The delivery was signed more than {TOLERANCE} s ago or ahead.", remedy="Sign it anew; check clocks."
        )
    return f"{times[0]}.".encode() + body, [value for name, _, value in pairs if name == "v1"]


def _github(headers: Mapping[str, str], body: bytes) -> tuple[bytes, list[str]]:
    if not headers.get("x-github-delivery"):
        raise RefusedError(400, "There is no X-GitHub-Delivery.", remedy="Send the delivery's id.")
    style, _, signature = headers.get("x-hub-signature-256", "").partition("=")
    return body, [signature] if style == "sha256" else []


def _at(value: Any, path: Sequence[str]) -> Any:
    """The value at a path; a number is a place in an array."""
    for step in path:
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isascii() and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return MISSING
    return value


def _fitting(value: Any, kind: pa.DataType) -> Any:
    """A value as its column has it: seconds since the epoch as a time, anything but text as JSON text."""
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        try:
            if pa.types.is_timestamp(kind):
                moment = datetime.fromtimestamp(float(value), UTC)
                return (moment if kind.tz else moment.replace(tzinfo=None)).isoformat()
            if pa.types.is_date(kind):
                return datetime.fromtimestamp(float(value), UTC).date().isoformat()
        except (ValueError, OverflowError, OSError):
            return value  # The contract refuses it, with its reason.
    if pa.types.is_string(kind) and value is not None and not isinstance(value, str):
        return _encode(value).decode()
    return value
