"""A shop's database captured under load, as `make demo-cdc` does it: Silver ends equal to the database."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from freshdata.lake.query import run_query
from freshdata.settings import PROJECT, Settings
from tests.postgres import find_postgres

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture
def home():
    """A folder that PostgreSQL's account can enter too, when the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="demo-cdc-"))
    folder.chmod(0o711)
    yield folder / "home"
    shutil.rmtree(folder)


def test_silver_equals_the_shop_that_was_captured_under_load(home):
    if find_postgres() is None:
        pytest.skip("no PostgreSQL: apt install postgresql")
    before = {path: path.stat().st_mtime_ns for path in (PROJECT / "contracts").iterdir()}
    run = subprocess.run(
        [sys.executable, "-m", "freshdata.cli", "cdc", "demo", "--seconds", "5"],
        env={**os.environ, "FRESHDATA_HOME": str(home), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Silver equals the shop's database, row for row." in run.stdout
    assert "✗" not in run.stdout
    settings = Settings().for_home(home)
    rows = run_query(settings, "SELECT _op, count(*) AS n FROM bronze.shop_orders GROUP BY ALL").to_pylist()
    assert {row["_op"] for row in rows} == {"r", "c", "u", "d"}
    # Its contracts and models are its own: the checkout is as it was.
    assert {path: path.stat().st_mtime_ns for path in (PROJECT / "contracts").iterdir()} == before
    assert sorted(path.name for path in (home / "project" / "contracts").iterdir()) == [
        f"shop_{table}.odcs.yaml" for table in ("customers", "order_lines", "orders", "products")
    ]
