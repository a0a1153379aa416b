"""Which seeds run, and what they did, all in all."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

DEFAULT_SEEDS = 10
OUTCOMES: pytest.StashKey[list[dict[str, Any]]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, default=None, help="number of chaos seeds (CHAOS_SEEDS, 10)")
    parser.addoption("--seed", type=int, action="append", default=None, help="run just this chaos seed")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        # The options exist only when the run was started on this folder.
        just = metafunc.config.getoption("--seed", default=None)
        count = metafunc.config.getoption("--seeds", default=None) or int(
            os.environ.get("CHAOS_SEEDS") or DEFAULT_SEEDS
        )
        metafunc.parametrize("seed", just or range(count))


@pytest.fixture
def report(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """Where each seed says what it did."""
    return request.config.stash.setdefault(OUTCOMES, [])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not (outcomes := config.stash.get(OUTCOMES, [])):
        return
    faults: Counter[str] = Counter()
    for outcome in outcomes:
        faults.update(outcome["faults"])
    totals = {name: sum(outcome[name] for outcome in outcomes) for name in ("sent", "lost", "duplicated", "changed")}
    passed = sum(outcome["ok"] for outcome in outcomes)
    summary = {"seeds": len(outcomes), "passed": passed, **totals, "faults": dict(sorted(faults.items()))}
    terminalreporter.section("chaos")
    terminalreporter.write_line(
        f"{summary['seeds']} seeds, {passed} without a failure: {faults.total()} faults injected, "
        + ", ".join(f"{count} {name}" for name, count in totals.items())
    )
    for fault, count in sorted(faults.items()):
        terminalreporter.write_line(f"  {count:4} {fault}")
    if path := os.environ.get("CHAOS_REPORT"):
        Path(path).write_text(json.dumps({**summary, "outcomes": outcomes}, indent=2, default=str))
        terminalreporter.write_line(f"written to {path}")
