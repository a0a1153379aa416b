"""Which seeds run, and what they did, all in all."""

import json
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from freshdata.settings import PROJECT

DEFAULT_SEEDS = 10
AGAIN = "python -m pytest tests/chaos/test_seeds.py --seed {seed}"
OUTCOMES: pytest.StashKey[list[dict[str, Any]]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, action="append", default=None, help="run just this chaos seed")
    parser.addoption("--chaos-report", type=Path, default=None, help="file for the result (.freshdata/chaos-N.json)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        # The options exist only when the run was started on this folder.
        just = metafunc.config.getoption("--seed", default=None)
        metafunc.parametrize("seed", just or range(DEFAULT_SEEDS))


@pytest.fixture
def report(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """Where each seed says what it did."""
    return request.config.stash.setdefault(OUTCOMES, [])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not (outcomes := config.stash.get(OUTCOMES, [])):
        return
    result = summary(outcomes)
    tell = terminalreporter.write_line
    terminalreporter.section("chaos")
    for name in ("seeds", "passed", "faults injected", "sent", "compared", "lost", "duplicated", "changed", "minutes"):
        tell(f"{result[name]:>12,} {name}")
    for what in ("faults", "rows"):
        tell(f"{what}:")
        for name, count in result[what].items():
            tell(f"{count:>12,} {name}")
    for failed in result["failed"]:
        tell(f"failed: seed {failed['seed']}, see {failed['folder']}; again: {failed['again']}")
    path = config.getoption("--chaos-report", default=None) or PROJECT / ".freshdata" / f"chaos-{len(outcomes)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**result, "outcomes": outcomes}, indent=2, default=str))
    tell(f"written to {path}")


def summary(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    """All seeds' outcomes as one."""
    faults: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    for outcome in outcomes:
        faults.update(outcome["faults"])
        # Topics have names of their own in each run.
        rows.update({layer["layer"]: layer["found"] for layer in outcome.get("layers", [])})
    failed = [outcome for outcome in outcomes if not outcome["ok"]]
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "seeds": len(outcomes),
        "passed": len(outcomes) - len(failed),
        "faults injected": faults.total(),
        "compared": rows.total(),
        **{name: sum(outcome[name] for outcome in outcomes) for name in ("sent", "lost", "duplicated", "changed")},
        "minutes": round(sum(outcome["seconds"] for outcome in outcomes) / 60, 1),
        "faults": dict(sorted(faults.items())),
        "rows": dict(rows),
        "failed": [
            {"seed": one["seed"], "folder": one["folder"], "again": AGAIN.format(seed=one["seed"])} for one in failed
        ],
    }
