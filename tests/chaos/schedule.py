"""A seed's plan: which faults hit how many workers, in which order. Pure: the same seed always gives the same plan."""

import random
from dataclasses import dataclass

# Every point that a worker reaches (``stream_workers.faults.reach``); the last two only when it is given partitions.
POINTS = (
    "before-write",
    "before-quarantine-commit",
    "after-quarantine-commit",
    "after-data-files",
    "before-commit",
    "after-commit",
    "between-commits",
    "in-clean-transaction",
    "after-clean-commit",
    "during-rebalance",
    "during-index-rebuild",
)
ON_ASSIGNMENT = POINTS[-2:]
IN_COMMIT = POINTS[:-2]
# What the catalogs can suffer. Of an answer that is lost or an error, the catalog has committed before.
OF_CATALOG = {
    "rest": (
        "catalog answer lost",
        "kill before answer",
        "catalog error after success",
        "catalog commits late",
        "catalog down",
        "catalog slow",
    ),
    "sqlite": ("kill before answer", "catalog error after success", "catalog locked"),
}
# These take long or hit everything, so every seed gets exactly one of them, in turn.
GREAT = ("zombie", "zombie at", "disk full", "broker restart", "conflict", "stop without broker")
SMALL = ("kill", "hold at", "fail at", "add worker", "remove worker", "conflict")
MOST_WORKERS = 3


@dataclass(frozen=True)
class Step:
    """One fault.

    Attributes:
        kind: What happens.
        target: Which of the workers that run then is hit, modulo their number.
        point: Named point, or nothing.
        count: How many times, or how many records long.
        calm: Whether the group must have recovered from the faults before.
        gap: Records that are sent before it.
    """

    kind: str
    target: int
    point: str
    count: int
    calm: bool
    gap: int

    def __str__(self) -> str:
        at = f" {self.point}" if self.point else ""
        return f"{self.kind}{at} (worker {self.target}, count {self.count}, {'calm, ' * self.calm}gap {self.gap})"


@dataclass(frozen=True)
class Plan:
    """What a seed does.

    Attributes:
        seed: The seed.
        catalog: ``sqlite``, or ``rest`` behind the fault proxy.
        workers: Number of workers at the start.
        named: Whether the workers keep their names over restarts (Kafka's static membership).
        forked: Whether the workers are forked from a process that has imported their libraries.
        steps: The faults, in order.
    """

    seed: int
    catalog: str
    workers: int
    named: bool
    forked: bool
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        members = ("named" if self.named else "anonymous") + (" forked" if self.forked else "")
        head = f"seed {self.seed}: {self.workers} {members} workers, {self.catalog} catalog"
        return "\n".join([head, *(f"  {number}. {step}" for number, step in enumerate(self.steps, 1))])


def plan_of(seed: int) -> Plan:
    """The plan of a seed.

    What must not be left to chance goes round with the seed: six seeds in a row kill at every named point, two have
    both catalogs, and eleven have every great fault.
    """
    chance = random.Random(seed)  # noqa: S311 - a seeded test
    catalog = ("rest", "sqlite")[seed % 2]
    of_catalog = OF_CATALOG[catalog]
    kinds = [GREAT[(seed + seed // len(GREAT)) % len(GREAT)], of_catalog[seed // 2 % len(of_catalog)]]
    kinds += ["kill at", "kill at", *chance.choices((*SMALL, *of_catalog), k=chance.randint(1, 2))]
    points = [POINTS[number % len(POINTS)] for number in (2 * seed, 2 * seed + 1)]
    chance.shuffle(kinds)
    steps = tuple(_step(kind, chance, points) for kind in kinds)
    named = chance.random() < 0.6
    return Plan(seed, catalog, chance.randint(1, MOST_WORKERS), named, seed % 10 != 0, steps)


def _step(kind: str, chance: random.Random, points: list[str]) -> Step:
    point = ""
    if kind == "kill at":
        point = points.pop()
    elif kind in ("hold at", "fail at"):
        point = chance.choice(POINTS)
    elif kind == "zombie at":
        point = chance.choice(IN_COMMIT)
    return Step(kind, chance.randrange(6), point, chance.randint(1, 3), chance.random() < 0.5, chance.randint(50, 500))
