"""What the command says of a capture."""

import io

from rich.console import Console

from freshdata.cdc.health import Health, _lost
from freshdata.cdc.source import Source
from freshdata.cli.cdc import _show


def test_a_reason_with_an_address_in_brackets_is_shown_as_it_is():
    reason = "Connection to [/127.0.0.1:5432] refused"
    output = io.StringIO()
    failed = Health("shop", (), "FAILED", reason, active=False, lag=None, retained=None, unreachable="", lost="")
    _show(Console(file=output, width=200), [failed])
    assert reason in output.getvalue()


def test_a_slot_that_is_read_is_not_told_as_made_anew():
    source = Source("shop", "7", {}, (), ())
    later, stored = 2_000, 1_000
    assert _lost(source, (True, "reserved", later, 0, 0), stored) == ""
    assert "made anew" in _lost(source, (False, "reserved", later, 0, 0), stored)
