"""Any bytes are shown so that a person can read them, and a terminal takes no orders from them."""

import pytest

from freshdata.quarantine.payload import excerpt, readable


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (None, "(no payload: a tombstone)"),
        (b"", "(empty)"),
        (b" \n", "(nothing but 2 blank bytes)"),
        (b'{"a":1.50,"a":2}', '{\n  "a": 1.50,\n  "a": 2\n}'),
        (b"departed EWR", "departed EWR"),
        (b"{}\n{}", "{}\n{}"),
        (b"\xff\xfe\x00", "\\xff\\xfe\\x00"),
        (b"\x1b[2Jgone", "\\x1b[2Jgone"),
        ('"Zürich\u202e"'.encode(), '"Zürich\\u202e"'),
        (b'"\xffD"', '"\\xffD"'),
    ],
)
def test_a_payload_is_readable(payload, shown):
    assert readable(payload) == shown


@pytest.mark.parametrize("payload", [b"x" * 5000, b"[" * 100_000, b"[" + b"1," * 500 + b"1]", b"a\n" * 100])
def test_a_long_one_is_cut_and_says_so(payload):
    shown = readable(payload)
    assert f"… cut: {len(payload):,} bytes in all" in shown
    assert len(shown) < 2100
    assert shown.count("\n") <= 41


def test_an_excerpt_is_one_short_line():
    assert excerpt(None) == "(no payload: a tombstone)"
    assert excerpt(b'{"a":\n1}') == '{"a":\\n1}'
    assert excerpt(b"x" * 200) == "x" * 200
    assert excerpt("ü".encode() * 1000) == "ü" * 200 + "…"
