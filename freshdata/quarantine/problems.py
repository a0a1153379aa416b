"""What is wrong with an event, apart from its values: the reasons of one mistake read the same."""

import re

import pyarrow as pa

# What a reason says of the one event, and what takes its place. Limits and patterns are the contract's, and stay.
OF_ONE_EVENT = (
    (re.compile(r" \(byte \d+\)"), ""),
    # The value may hold anything, and a long one is cut off together with the field's name.
    (re.compile(r"(Invalid enum value) .*?( - at `\$[^`]*`)?$", re.DOTALL), r"\1\2"),
    (re.compile(r"bytes? (0x[0-9a-f]{2} )?in position \d+(-\d+)?"), "bytes"),
    (re.compile(r"The string '.*' (?=is not|cannot)", re.DOTALL), "The string "),
    (re.compile(r"precision \d+ does not fit .*: \d+"), "precision does not fit"),
)


def problem_of(reason: str) -> str:
    """A rejection's reason without what differs from event to event of the same mistake in the same field."""
    for pattern, instead in OF_ONE_EVENT:
        reason = pattern.sub(instead, reason)
    return reason


def problem_column(reasons: pa.ChunkedArray) -> pa.ChunkedArray:
    """The problem of each reason."""
    encoded = reasons.cast(pa.string()).combine_chunks().dictionary_encode()
    problems = pa.array([problem_of(reason) for reason in encoded.dictionary.to_pylist()], pa.string())
    return pa.chunked_array([problems.take(encoded.indices)])
