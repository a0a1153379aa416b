"""Maintenance that never rests, beside a promotion, rebuilds, an environment's end and a rollback."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import timedelta
from io import StringIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog

from freshdata.cli.maintain import maintain
from freshdata.environments.plan import plan_environment
from freshdata.environments.records import read_environments
from freshdata.lake import maintenance, orphans, upkeep
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.lake.maintenance import Maintained, Retention, tables
from freshdata.lake.progress import compacts
from freshdata.transform.retry import retry
from freshdata.verify.layers import verify_models
from tests.bronze import rows
from tests.developers import CARRIERS, DAY, FLIGHTS, ROUTES, add_worst, checkout, filled, run_all

pytestmark = pytest.mark.integration

CONTEXT = multiprocessing.get_context("forkserver")
# A few seconds, that whoever reads or commits in this test needs far less than, stand for the hours of an instance.
SOON = timedelta(seconds=3)


def maintaining(own: dict[str, str], told: Connection) -> None:
    """Run ``freshdata maintain --rewrite`` over and over until told to end; all that may go soon goes."""
    os.environ |= own
    eager = Retention(keep=1, young=SOON, cursor_age=timedelta(hours=1), orphan_age=timedelta(0))
    patch = pytest.MonkeyPatch()
    patch.setattr(orphans, "LONGEST_COMMIT", SOON)
    done: list[Maintained] = []

    def keep_up(catalog: Catalog, name: str, _: Retention | None) -> Maintained:
        done.append(maintenance.maintain(catalog, name, eager))
        return done[-1]

    patch.setattr(upkeep, "maintain", keep_up)  # The command takes what is kept by default.
    while not told.poll():
        with redirect_stdout(StringIO()):
            maintain(rewrite=True)
    told.send([(each.table, each.expired, each.orphans) for each in done])


def everything(catalog: Catalog) -> dict[str, list[dict[str, Any]]]:
    return {name: rows(catalog, name) for name in tables(catalog) if "__" not in name}


def test_neither_gets_in_the_others_way(tmp_path: Path, environment: Callable[..., dict[str, str]]) -> None:
    production = filled(checkout(tmp_path / "production", tmp_path / "home"))
    catalog = open_catalog(production)
    run_all(production)
    right = everything(catalog)
    add_worst(production)
    plan_environment(production, "column")

    def run(*arguments: str) -> None:
        line = [sys.executable, "-m", "freshdata.cli", *arguments]
        done = subprocess.run(line, env=environment(production), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def damage(model: str) -> None:
        retry(lambda: load_table(catalog, model).delete(f"flight_date = '{DAY}'"), model)

    told, ours = CONTEXT.Pipe()
    maintainer = CONTEXT.Process(target=maintaining, args=(environment(production), ours))
    maintainer.start()
    ours.close()
    try:
        run("promote", "column")
        assert [row["worst"] for row in rows(catalog, CARRIERS)] == [9, 3, 3]
        for model in (FLIGHTS, ROUTES):
            damage(model)
        run("rebuild", "--layer", "silver")
        run("rebuild", "--layer", "gold")
        run("environments", "--drop", "column")
        promoted = everything(catalog)
        run("rollback")
        damage(FLIGHTS)
        run("rebuild", "--layer", "silver", FLIGHTS)
        told.send("end")
        maintained = told.recv()
        maintainer.join(60)
        assert maintainer.exitcode == 0
    finally:
        maintainer.kill()
        maintainer.join()
    assert [{name: value for name, value in row.items() if name != "worst"} for row in promoted[CARRIERS]] == right[
        CARRIERS
    ]
    assert {name: promoted[name] for name in right.keys() - {CARRIERS}} == {
        name: right[name] for name in right.keys() - {CARRIERS}
    }
    assert everything(catalog) == right
    assert [finding for finding in verify_models(production, catalog) if not finding.ok] == []
    assert read_environments(production) == []
    # It was at work, on the very tables.
    assert any(compacts(snapshot) for snapshot in load_table(catalog, FLIGHTS).snapshots())
    assert all(sum(numbers) for numbers in zip(*(done for name, *done in maintained if name == FLIGHTS), strict=True))
