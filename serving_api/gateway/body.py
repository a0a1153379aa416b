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

_array = msgspec.json.Decoder(list[msgspec.Raw])
_document = msgspec.json.Decoder(msgspec.Raw)


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
    inflate = _Inflater() if encoding == "gzip" else None
    body = bytearray()
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for chunk in chunks:
                part = inflate(chunk, MAX_BODY + 1 - len(body)) if inflate else chunk
                received(len(part))
                body += part
                if len(body) > MAX_BODY:
                    raise too_large(f"The body is larger than {MAX_BODY:,} bytes.")
    except TimeoutError:
        raise RefusedError(
            408, f"The body did not come within {READ_SECONDS:.0f} s.", remedy="Send it again.", headers=CLOSE
        ) from None
    if inflate and not inflate.complete:
        raise RefusedError(400, "The gzip data ends too early.", remedy="Send the whole body.")
    return bytes(body)


CLOSE = {"Connection": "close"}


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
        raise too_large(f"There are {len(events):,} events, at most {MAX_EVENTS:,} may be.")
    return events


def _json_events(text: bytes) -> list[bytes]:
    if text and text[:1] not in b"[{":
        raise RefusedError(400, "The body is no JSON object or array.", remedy="Send an event, or an array of events.")
    try:
        if text[:1] == b"[":
            return [bytes(raw) for raw in _array.decode(text)]
        return [bytes(_document.decode(text))] if text else []
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise RefusedError(400, f"The body is no JSON: {error}.", remedy="Correct it.") from error


class _Inflater:
    """Unpacks gzip, which may have several members."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(GZIP)

    @property
    def complete(self) -> bool:
        """Whether the last member has come to its end."""
        return self._member.eof

    def __call__(self, chunk: bytes, room: int) -> bytes:
        """Unpack a part; what is longer than the room is cut off, as it is too much anyway."""
        parts = b""
        while chunk and len(parts) < room:
            if self._member.eof:
                self._member = zlib.decompressobj(GZIP)
            try:
                parts += self._member.decompress(chunk, room - len(parts))
            except zlib.error as error:
                raise RefusedError(400, f"The body is no gzip: {error}.", remedy="Pack it again.") from error
            chunk = self._member.unused_data
        return parts
