"""What ``show --json`` prints, ``replay --from`` reads."""

import json
from datetime import UTC, datetime

import pytest

from freshdata.errors import QuarantineError
from freshdata.quarantine import Place, RejectedEvent
from freshdata.quarantine.corrections import read_corrections, to_line

AT = datetime(2013, 1, 5, 12, tzinfo=UTC)


def rejected(payload, key=b"k"):
    return RejectedEvent(Place(3, 7), AT, key, payload, "why", "1.0.0")


@pytest.mark.parametrize("payload", [None, b"", b'{"a": 1}', "Zürich\u2028\n".encode(), b"\xff\x00", b"x" * 100_000])
def test_a_line_that_is_not_edited_keeps_every_byte(payload):
    line = to_line(rejected(payload))
    assert "\n" not in line
    [correction] = read_corrections("s", [line.encode(), b"", b"  "], "-")
    assert (correction.place, correction.ingested_at, correction.payload) == (Place(3, 7), AT, payload)


def test_text_is_text_and_bytes_have_another_name():
    text, binary = json.loads(to_line(rejected(b"{}"))), json.loads(to_line(rejected(b"\xff", key=b"\xfe")))
    assert (text["at"], text["payload"], text["key"]) == ("3:7", "{}", "k")
    assert "payload" not in binary
    assert (binary["payload_base64"], binary["key_base64"]) == ("/w==", "/g==")


def test_place_and_payload_are_enough():
    [correction] = read_corrections("s", [b'{"at": "3:7", "payload": "{}"}'], "-")
    assert correction.ingested_at is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "line 2 of fixed.ndjson is no correction"),
        (b"[]", "no JSON object"),
        (b"\xff", "utf-8"),
        (b'{"payload": "{}"}', "'at' is missing"),
        (b'{"at": "7", "payload": "{}"}', "'7', not PARTITION:OFFSET"),
        (b'{"at": 7, "payload": "{}"}', "7, not PARTITION:OFFSET"),
        (b'{"at": "3:7"}', "either payload or payload_base64"),
        (b'{"at": "3:7", "payload": "", "payload_base64": ""}', "either payload or payload_base64"),
        (b'{"at": "3:7", "payload": {"a": 1}}', "payload is not text"),
        (b'{"at": "3:7", "payload": "\\ud800"}', "surrogates not allowed"),
        (b'{"at": "3:7", "payload_base64": "*"}', "payload_base64"),
        (b'{"at": "3:7", "ingested_at": "today", "payload": "{}"}', "isoformat"),
    ],
)
def test_a_line_that_is_no_correction_is_named(line, said):
    with pytest.raises(QuarantineError, match=r"(?s).*") as raised:
        read_corrections("s", [b'{"at": "3:7", "payload": "{}"}', line], "fixed.ndjson")
    assert "line 2 of fixed.ndjson" in raised.value.message
    assert said in raised.value.message
    assert raised.value.remedy


def test_an_empty_file_is_an_error_with_a_remedy():
    with pytest.raises(QuarantineError, match="holds no corrections"):
        read_corrections("s", [b""], "standard input")
