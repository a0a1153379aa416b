"""Random faults against real workers, by seed: whatever happens, nothing is lost and nothing is stored twice."""

import time
from dataclasses import asdict

import pytest

from freshdata.services.kafka import bootstrap, local_broker
from freshdata.settings import Settings
from tests.chaos.compare import compare
from tests.chaos.harness import Chaos
from tests.chaos.inflict import KINDS, run
from tests.chaos.schedule import GREAT, OF_CATALOG, POINTS, plan_of

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory):
    """A broker that may be killed: only the seeds use it, and its supervisor starts it again."""
    settings = Settings().for_home(tmp_path_factory.mktemp("chaos-broker"))
    with local_broker(settings):
        yield settings


@pytest.fixture(scope="module")
def broker(own_broker):
    return bootstrap(own_broker)


def test_a_seed_always_gives_the_same_plan_and_few_seeds_hold_every_fault():
    plans = [plan_of(seed) for seed in range(14)]
    assert plans == [plan_of(seed) for seed in range(14)]
    kinds = {step.kind for plan in plans for step in plan.steps}
    assert kinds >= {*GREAT, *OF_CATALOG["rest"], *OF_CATALOG["sqlite"]}
    assert kinds <= set(KINDS)
    assert {step.point for plan in plans[:7] for step in plan.steps if step.kind == "kill at"} == set(POINTS)


def test_seed(seed, streaming, own_broker, environment, report):
    plan = plan_of(seed)
    started = time.monotonic()
    chaos = Chaos(streaming, own_broker, environment(streaming), plan)
    entry = {"seed": seed, "ok": False, "sent": 0, "lost": 0, "duplicated": 0, "changed": 0}
    report.append(entry)
    print(f"{plan}\nAgain, just this one: python -m pytest tests/chaos/test_seeds.py --seed {seed}")  # noqa: T201
    with chaos.running():
        try:
            run(chaos)
            outcome = compare(chaos)
        finally:
            entry |= {"faults": dict(chaos.faults), "exits": chaos.exits, "seconds": time.monotonic() - started}
            entry |= {"sent": chaos.traffic.sent}
        entry |= asdict(outcome) | {"ok": not outcome.failures}
        assert not outcome.failures, "\n".join([*outcome.failures, chaos.tails()])
