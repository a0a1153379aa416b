"""Random faults against real workers, by seed: whatever happens, nothing is lost and nothing is stored twice."""

import re
import time
from pathlib import Path

import pytest

import freshdata.services.broker
from freshdata.services.kafka import bootstrap, local_broker
from freshdata.settings import PROJECT, Settings
from tests.chaos.compare import Layer, compare
from tests.chaos.harness import Chaos
from tests.chaos.inflict import KINDS, run
from tests.chaos.schedule import GREAT, OF_CATALOG, POINTS, plan_of
from tests.integration import test_replay as replays

FAILED = PROJECT / ".freshdata" / "chaos-failed"
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory):
    """A broker that may be killed: only the seeds use it, and its supervisor starts it again."""
    settings = Settings().for_home(tmp_path_factory.mktemp("chaos-broker"))
    with pytest.MonkeyPatch.context() as patch:
        short = f"{freshdata.services.broker.SERVER}group.min.session.timeout.ms=1000\n"
        patch.setattr(freshdata.services.broker, "SERVER", short)
        with local_broker(settings):
            yield settings


@pytest.fixture(scope="module")
def broker(own_broker):
    return bootstrap(own_broker)


def test_a_seed_always_gives_the_same_plan_and_few_seeds_hold_every_fault():
    plans = [plan_of(seed) for seed in range(12)]
    assert plans == [plan_of(seed) for seed in range(12)]
    kinds = {step.kind for plan in plans for step in plan.steps}
    assert kinds >= {*GREAT, *OF_CATALOG["rest"], *OF_CATALOG["sqlite"]}
    assert kinds <= set(KINDS)
    assert {step.point for plan in plans[:6] for step in plan.steps if step.kind == "kill at"} == set(POINTS)


def test_a_worker_or_a_replay_is_killed_at_every_point_there_is():
    killed = replays.test_a_killed_replay_is_repeated.pytestmark[0].args[1]
    source = "".join(path.read_text() for path in (PROJECT / "stream_workers").glob("*.py"))
    assert set(re.findall(r'reach\("([a-z-]+)"\)', source)) == {*POINTS, *killed}


def test_a_comparison_sees_what_is_lost_repeated_foreign_and_changed():
    sent = {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 3}}
    layer = Layer.of("t", sent, [("a", {"x": 1}), ("a", {"x": 1}), ("b", {"x": 5}), ("d", {"x": 4})])
    assert (layer.lost, layer.duplicated, layer.changed) == (1, 2, 1)
    assert "t: b changed: x 5, sent 2" in layer.examples
    assert not Layer.of("t", sent, sent.items()).examples


def test_seed(seed, streaming, own_broker, environment, report):
    plan = plan_of(seed)
    started = time.monotonic()
    chaos = Chaos(streaming, own_broker, environment(streaming), plan)
    entry = {
        "seed": seed,
        "ok": False,
        "folder": str(FAILED / f"seed-{seed}"),
        "sent": 0,
        "lost": 0,
        "duplicated": 0,
        "changed": 0,
    }
    report.append(entry)
    print(plan)  # noqa: T201
    with chaos.running():
        try:
            run(chaos)
            outcome = compare(chaos)
            entry |= outcome.to_dict() | {"ok": not outcome.failures}
            assert not outcome.failures, "\n".join([*outcome.failures, chaos.tails()])
        finally:
            entry |= {"faults": dict(chaos.faults), "exits": chaos.exits, "sent": chaos.traffic.sent}
            entry |= {"seconds": round(time.monotonic() - started, 1)}
            if not entry["ok"]:
                chaos.keep(Path(entry["folder"]))
