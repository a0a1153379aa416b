"""Reasons of the same mistake in the same field are one problem, whatever the value."""

import json

import numpy as np
import pytest

from freshdata.contracts.decode import Decoder
from freshdata.quarantine.problems import problem_of
from tests.streams import flight_event


def reasons(contract, *values):
    """What the decoder says of messages."""
    decoded = Decoder(contract)(values, [b"k"] * len(values), np.full(len(values), 1_400_000_000_000))
    assert len(decoded.rejected) == len(values)
    return [reason for _, reason in decoded.rejected]


def event(**changes):
    return json.dumps(flight_event(1, **changes)).encode()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ((b"x", b"  none"), "JSON is malformed: invalid character"),
        (
            (event(event_type="landed"), event(event_type="it's - at `$.x` here"), event(event_type="a\nb")),
            "Invalid enum value - at `$.event_type`",
        ),
        (
            (event().replace(b"ORD", b"\xff"), event(dep_delay=1234).replace(b"ORD", b"OR\xff")),
            "'utf-8' codec can't decode bytes: invalid start byte",
        ),
        ((event(flight=10_000), event(flight=99_999)), "Expected `int` <= 9999 - at `$.flight`"),
        ((event(flight="1"), event(flight="two")), "Expected `int`, got `str` - at `$.flight`"),
    ],
)
def test_the_value_makes_no_difference(contracts, values, problem):
    found = reasons(contracts["flight_events"], *values)
    assert {problem_of(reason) for reason in found} == {problem}


def test_the_field_and_the_kind_do(contracts):
    found = reasons(
        contracts["flight_events"], event(flight="1"), event(flight=None), event(distance="1"), event(gate=1),
        event(door=1), b"", None,
    )  # fmt: skip
    assert len({problem_of(reason) for reason in found}) == len(found)


def test_a_value_that_was_cut_off_is_left_out_all_the_same(contracts):
    [reason] = reasons(contracts["flight_events"], event(event_type="x" * 1000))
    assert problem_of(reason) == "Invalid enum value"


@pytest.mark.parametrize(
    ("reason", "problem"),
    [
        (
            "Decimal type with precision 7 does not fit into precision inferred from first array element: 5 - at `$.f`",
            "Decimal type with precision does not fit - at `$.f`",
        ),
        (
            "The string '1E+50' cannot be represented as decimal128 - at `$.fare`",
            "The string cannot be represented as decimal128 - at `$.fare`",
        ),
    ],
)
def test_decimals(reason, problem):
    assert problem_of(reason) == problem
