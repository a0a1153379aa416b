"""From a request's body to the events in it, each as the bytes it was written as."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable

import msgspec

from serving_api.gateway.refusals import RefusedError

MAX_BODY = 10 * 1024 * 1024  # bytes, unpacked
MAX_EVENTS = 10_000
READ_SECONDS = 30.0  # for a whole body
JSON = "application/json"
NDJSON = ("application/x-ndjson", "application/ndjson")
BLANK = b" \t\r\n"
GZIP = 31  # zlib's name for the format
CLOSE = {"Connection": "close"}


class _Object(msgspec.Struct, gc=False):
    """Any JSON object; nothing of it is kept."""


_objects = msgspec.json.Decoder(list[_Object])
_array = msgspec.json.Decoder(list[msgspec.Raw])
_object = msgspec.json.Decoder(_Object)


async def read_body(chunks: AsyncIterator[bytes], encoding: str, received: Callable[[int], None]) -> bytes:
    """Read a body, and unpack it.

    Args:
        chunks: The body as it comes in.
        encoding: Its ``Content-Encoding``.
        received: Called with the number of bytes, unpacked, of each part; what it raises ends the reading.

    Raises:
        RefusedError: it is packed in an unknown way or wrongly, too large, or came too slowly.
    """
    if encoding not in ("", "identity", "gzip"):
        raise RefusedError(415, f"Content-Encoding {encoding[:40]!r} is not known.", remedy="Send gzip, or none.")
    unpack = zlib.decompressobj(GZIP) if encoding == "gzip" else None
    body = bytearray()
    came = 0
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for chunk in chunks:
                part = unpack.decompress(chunk, MAX_BODY + 1 - len(body)) if unpack else chunk
                came += len(chunk)
                received(max(len(chunk), len(part)))
                body += part
                if len(body) > MAX_BODY or came > MAX_BODY:
                    raise too_large(f"The body is larger than {MAX_BODY:,} bytes.")
    except TimeoutError:
        raise RefusedError(
            408, f"The body did not come within {READ_SECONDS:.0f} s.", remedy="Send it again.", headers=CLOSE
        ) from None
    except zlib.error as error:
        raise RefusedError(400, f"The body is no gzip: {error}.", remedy="Pack it again.") from error
    if unpack and (not unpack.eof or unpack.unused_data):
        raise RefusedError(400, "The gzip data ends too early, or too late.", remedy="Send one gzip member, all of it.")
    return bytes(body)


def too_large(message: str) -> RefusedError:
    """A refusal of more than a request may hold."""
    return RefusedError(413, message, remedy="Send it in several requests.", headers=CLOSE)


def split_events(body: bytes, media_type: str) -> list[bytes]:
    """The events of a body: one JSON object, an array of them, or one a line.

    Raises:
        RefusedError: the media type is another one, or the body is no JSON, or has no events, or too many.
    """
    if media_type in NDJSON:
        if body.count(b"\n") > 2 * MAX_EVENTS:  # Blank lines count as little, but they count.
            raise too_large(f"There are more than {MAX_EVENTS:,} lines.")
        # Not `splitlines`: a carriage return inside of an object is only a blank.
        events = [line for line in (line.strip(BLANK) for line in body.split(b"\n")) if line]
    elif media_type == JSON:
        events = _json_events(body.strip(BLANK))
    else:
        shown = f"Content-Type {media_type[:80]!r} is not known." if media_type else "There is no Content-Type."
        raise RefusedError(415, shown, remedy=f"Send {JSON} or {NDJSON[0]}.")
    if not events:
        raise RefusedError(400, "There are no events in the body.", remedy="Send at least one.")
    if len(events) > MAX_EVENTS:
        raise too_large(f"There are more than {MAX_EVENTS:,} events.")
    return events


def _json_events(text: bytes) -> list[bytes]:
    try:
        if not text.startswith(b"["):
            if text:
                _object.decode(text)
            return [text] if text else []
        # Counted first: millions of tiny ones take a tenth of the memory so.
        if len(_objects.decode(text)) > MAX_EVENTS:
            raise too_large(f"There are more than {MAX_EVENTS:,} events.")
        return [bytes(raw) for raw in _array.decode(text)]
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise RefusedError(
            400,
            f"The body is no JSON object or array of objects: {error}.",
            remedy="Send an event, or an array of them.",
        ) from error
