"""Confluent's wire format: a zero byte, the schema's id in four bytes, and the payload."""

from struct import Struct

HEADER = Struct(">bI")
MAGIC = 0


def unframed(message: bytes | None) -> tuple[int, bytes] | None:
    """A message's schema id and payload; None when it is not in the wire format.

    Plain JSON never begins with a zero byte.
    """
    if message is None or len(message) < HEADER.size or message[0] != MAGIC:
        return None
    return HEADER.unpack_from(message)[1], message[HEADER.size :]


def framed(schema_id: int, payload: bytes) -> bytes:
    """A payload in the wire format."""
    return HEADER.pack(MAGIC, schema_id) + payload
