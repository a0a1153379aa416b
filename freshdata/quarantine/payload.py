"""Show bytes that may be anything to a person: nothing in them reaches the terminal as a command to it."""

import msgspec

from freshdata.privacy import SEALED

MOST_CHARACTERS = 2000
MOST_LINES = 40
EXCERPT = 200  # characters
SEALED_TEXT = "(sealed: it may hold personal data, which FRESHDATA_PRIVACY_SECRET_FILE opens)"


def readable(payload: bytes | None) -> str:
    """A payload for people: JSON with indentation, else text, with escapes for what cannot be printed.

    A long one is cut, and says so at its end.
    """
    if payload is None:
        return "(no payload: a tombstone)"
    if payload.startswith(SEALED):
        return SEALED_TEXT
    if not payload.strip():
        return f"(nothing but {len(payload)} blank bytes)" if payload else "(empty)"
    try:
        # It changes blanks alone: digits and fields that come twice stay as they were sent.
        pretty = msgspec.json.format(payload, indent=2)
    except (msgspec.MsgspecError, RecursionError):
        pretty = payload
    text = pretty.decode(errors="backslashreplace")
    shown = "\n".join(text[:MOST_CHARACTERS].split("\n")[:MOST_LINES])
    cut = f"\n… cut: {len(payload):,} bytes in all, --json prints them" if len(shown) < len(text) else ""
    return printable(shown, keep="\n") + cut


def excerpt(payload: bytes | None) -> str:
    """The beginning of a payload in one line."""
    if payload is None:
        return "(no payload: a tombstone)"
    if payload.startswith(SEALED):
        return SEALED_TEXT
    text = payload[: EXCERPT * 4].decode(errors="backslashreplace")
    return printable(text[:EXCERPT]) + ("…" if len(text) > EXCERPT or len(payload) > EXCERPT * 4 else "")


def printable(text: str, *, keep: str = "") -> str:
    """Text with escapes in place of control characters and others that cannot be seen.

    Args:
        text: The text.
        keep: Characters that stay whatever they are.
    """
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )
