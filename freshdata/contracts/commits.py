"""When a stream's worker commits: a contract's commit policy."""

from datetime import timedelta
from typing import Any

from freshdata.contracts.heartbeat import read_duration
from freshdata.contracts.model import CommitPolicy
from freshdata.errors import ContractError

COUNTS = {
    "maxRows": "max_rows",
    "maxBytes": "max_bytes",
    "maxOpenPartitions": "max_open_partitions",
    "minFileRows": "min_file_rows",
}
AGES = {"maxAge": "max_age", "maxIdleAge": "max_idle_age"}


def read_commit_policy(file: str, given: Any) -> CommitPolicy:
    """Read a contract's ``commitPolicy``.

    Args:
        file: Where it stands, for error messages.
        given: Its value; None for the defaults.

    Raises:
        ContractError: it names something else, or a value makes no sense.
    """
    given = given or {}
    if not isinstance(given, dict) or not given.keys() <= COUNTS.keys() | AGES.keys():
        raise ContractError(
            file, f"commitPolicy is {given!r}.", remedy=f"Use only {', '.join([*COUNTS, *AGES])}: {{NAME: VALUE}}."
        )
    counts: dict[str, Any] = {ours: given[theirs] for theirs, ours in COUNTS.items() if theirs in given}
    for theirs, ours in COUNTS.items():
        # Not isinstance: YAML's `true` would pass as the number 1.
        if ours in counts and (type(counts[ours]) is not int or counts[ours] < 1):
            raise ContractError(
                file, f"commitPolicy.{theirs} is {counts[ours]!r}.", remedy="Write a whole number above 0."
            )
    ages: dict[str, Any] = {
        ours: read_duration(file, f"commitPolicy.{theirs}", given[theirs])
        for theirs, ours in AGES.items()
        if theirs in given
    }
    if "max_age" in ages:
        # Whoever allows every event a minute allows it to the small commits too.
        ages = {"max_idle_age": max(ages["max_age"], CommitPolicy.max_idle_age)} | ages
    policy = CommitPolicy(**counts, **ages)
    if not timedelta(0) < policy.max_age <= policy.max_idle_age:
        raise ContractError(
            file,
            "commitPolicy.maxAge must be above zero and at most maxIdleAge.",
            remedy="Raise maxIdleAge, or lower maxAge (ISO 8601 durations such as PT2S).",
        )
    return policy
