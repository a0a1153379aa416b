"""Try a contract on events that are there: how many it takes, and what is wrong with the others."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from freshdata.contracts.decode import Decoded
from freshdata.quarantine.problems import problem_of

MOST_EXAMPLES = 3
Events = tuple[list[bytes | None], list[bytes | None] | None, npt.NDArray[np.int64]]


@dataclass
class Problem:
    """One mistake, in whichever events.

    Attributes:
        events: How many have it.
        examples: The first of them: their numbers, from 1 on.
        reason: What is said of the first one.
    """

    events: int = 0
    examples: list[int] = field(default_factory=list)
    reason: str = ""


@dataclass
class Trial:
    """What a contract makes of events.

    Attributes:
        events: Their number.
        accepted: How many it takes.
        ignored: How many say nothing (the tombstones of a database's changes).
        problems: Each mistake, the most frequent first.
    """

    events: int = 0
    accepted: int = 0
    ignored: int = 0
    problems: dict[str, Problem] = field(default_factory=dict)


def try_events(decode: Callable[..., Decoded], batches: Iterable[Events]) -> Trial:
    """Judge events as a worker would, except that repeats count as often as they come.

    Args:
        decode: The contract's decoder.
        batches: Values, keys (None when they are not known) and timestamps of events, in batches.

    Raises:
        RegistryDownError: an event names a schema that is not known, and the registry does not answer.
    """
    trial, counts = Trial(), Counter[str]()
    for values, keys, timestamps in batches:
        decoded = decode(values, keys, timestamps)
        for position, reason in decoded.rejected:
            name = problem_of(reason)
            counts[name] += 1
            problem = trial.problems.setdefault(name, Problem(reason=reason))
            if len(problem.examples) < MOST_EXAMPLES:
                problem.examples.append(trial.events + position + 1)
        trial.accepted += len(decoded.positions)
        trial.ignored += len(values) - len(decoded.positions) - len(decoded.rejected)
        trial.events += len(values)
    for name, count in counts.items():
        trial.problems[name].events = count
    trial.problems = {name: trial.problems[name] for name, _ in counts.most_common()}
    return trial
