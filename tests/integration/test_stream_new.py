"""From a sample that the project has never seen to rows in Gold and assets in Dagster, by the commands alone."""

import json
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from contextlib import ExitStack
from decimal import Decimal

import pytest
from typer.testing import CliRunner

from freshdata.cli.main import app
from freshdata.contracts import load_contracts
from freshdata.lake.catalog import open_catalog
from freshdata.lake.progress import read_progress
from freshdata.lake.query import run_query
from freshdata.quality import ArrowRows, contract_suite, validate
from freshdata.services.kafka import end_offsets
from freshdata.settings import PROJECT
from freshdata.transform.context import open_context
from freshdata.transform.runner import open_runner
from freshdata.verify.ingest import verify_ingest
from tests import samples
from tests.integration.test_new_stream import ASSETS
from tests.streams import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def empty(streaming, tmp_path):
    """An instance of a project without any stream."""
    project = tmp_path / "empty"
    (project / "contracts").mkdir(parents=True)
    models = project / "sqlmesh_models"
    for folder in ("models", "tests", "audits"):
        (models / folder).mkdir(parents=True)
    shutil.copyfile(PROJECT / "sqlmesh_models" / "config.py", models / "config.py")
    return streaming.model_copy(update={"project": project})


@pytest.fixture
def freshdata(empty, environment):
    """Runs a command on the instance, and returns what it prints."""

    def run(*arguments):
        done = CliRunner().invoke(app, arguments, env=environment(empty))
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    return run


def ingest(settings, environment, names):
    """Run each stream's worker until it has every record of its topic, and prove it."""
    contracts = load_contracts(settings.contracts_dir)

    def caught_up():
        catalog = open_catalog(settings)
        for contract in contracts.values():
            done = read_progress(catalog.load_table(contract.table)) if catalog.table_exists(contract.table) else None
            ends = {part: end for part, end in end_offsets(settings, contract.rules.topic).items() if end}
            if done is None or {number: part.offset for number, part in done.partitions.items()} != ends:
                return False
        return True

    with ExitStack() as running:
        for name in names:
            program = [sys.executable, "-m", "stream_workers", name]
            worker = running.enter_context(subprocess.Popen(program, env=environment(settings)))
            running.callback(worker.terminate)
        wait_for(caught_up, "catching up")
    rejected = {}
    for contract in contracts.values():
        findings, counts = verify_ingest(settings, open_catalog(settings), contract)
        assert all(finding.ok for finding in findings)
        rejected[contract.name] = counts["rejected"]
    return rejected


def transform(settings, names):
    """Run the generated unit tests and models."""
    with open_context(settings) as context:
        assert context.test().wasSuccessful()
    with open_runner(settings) as runner:
        for model in [*(f"silver.{name}" for name in names), *(f"gold.{name}_day" for name in names)]:
            assert all(audit.passed for audit in runner.run_live(model).audits)
    contracts = load_contracts(settings.contracts_dir)
    for name in names:
        rules, table = contracts[name].rules, open_catalog(settings).load_table(f"silver.{name}")
        suite = contract_suite(contracts[name])
        stored = table.scan(selected_fields=suite.columns(table.schema().column_names)).to_arrow()
        assert validate(ArrowRows(stored), suite, days=stored[rules.event_date_field].unique().to_pylist()).passed


def rows(settings, sql):
    return run_query(settings, sql).to_pylist()


def test_from_samples_to_gold(empty, environment, freshdata, tmp_path):
    files = {
        "rides": samples.write(tmp_path / "rides.jsonl", samples.rides(), "not JSON", '{"rideId": "x"}'),
        "orders": samples.write(tmp_path / "orders.jsonl", samples.orders()),
        "readings": samples.write(tmp_path / "readings.jsonl", samples.readings()),
    }
    for name, file in files.items():
        told = json.loads(freshdata("stream", "new", name, "--sample", str(file), "--json"))
        assert (told["stream"], told["written"]) == (name, True)
        contract = empty.contracts_dir / f"{name}.odcs.yaml"
        contract.write_text(
            contract.read_text().replace(f"topic, value: {name}", f"topic, value: {name}.{tmp_path.name}")
        )
        freshdata("produce", name, "--file", str(file))
    assert ingest(empty, environment, files) == {"rides": 2, "orders": 0, "readings": 0}
    transform(empty, files)
    assert_rides(empty)
    assert_orders(empty)
    [total] = rows(empty, "SELECT sum(events) AS n, count(DISTINCT sensor_name) AS sensors FROM gold.readings_day")
    assert (total["n"], total["sensors"]) == (len(samples.readings()), 3)
    listed = subprocess.run(
        [sys.executable, "-c", ASSETS], env=environment(empty), capture_output=True, text=True, check=True
    )
    names = set(json.loads(listed.stdout))
    for name in files:
        assert {f"bronze/{name}", f"quarantine/{name}", f"silver/{name}", f"gold/{name}_day"} <= names
        assert {f"contract_rules@silver/{name}", f"tenant_freshness@silver/{name}"} <= names
    # A topic with these very events tells the same stream; a table's rows tell it without guessing types.
    topic = load_contracts(empty.contracts_dir)["readings"].rules.topic
    for name, source, key in (
        ("readings", ("--topic", topic), "@key"),
        ("copies", ("--table", "silver.readings"), "key"),
    ):
        told = json.loads(freshdata("stream", "new", name, *source, "--dry-run", "--json"))
        decided = {each["what"]: each["value"] for each in told["decisions"]}
        assert (decided["key"], decided["event time"]) == (key, "time")
        assert not any(what.startswith("field _") for what in decided)


def assert_rides(settings):
    """Gold of the rides is what adding up the sample in Python gives, and Silver has what was nested."""
    rides, days = samples.rides(), defaultdict(list)
    for ride in rides:
        days[ride["startedAt"][:10], ride["city"]].append(ride)
    gold = {(str(row["event_date"]), row["city"]): row for row in rows(settings, "FROM gold.rides_day")}
    assert gold.keys() == days.keys()
    for day, expected in days.items():
        row = gold[day]
        assert row["events"] == len(expected)
        assert row["total_fare"] == sum(Decimal(str(ride["fare"])) for ride in expected)
        assert row["total_tip"] == sum(Decimal(ride["tip"]) for ride in expected)
        assert row["status_done"] == Counter(ride["status"] for ride in expected)["done"]
        assert row["shared_count"] == sum(ride["shared"] for ride in expected)
        assert row["mean_distance_km"] == pytest.approx(sum(r["distanceKm"] for r in expected) / len(expected))
    [inner] = rows(settings, "SELECT * FROM silver.rides WHERE rider_email = 'a7@example.org'")
    assert inner["rider_home_a_b"] == "x'y"
    assert json.loads(inner["stops"]) == rides[7]["stops"]
    assert json.loads(inner["odd"]) == rides[7]["odd"]


def assert_orders(settings):
    """Of three versions of an order the newest counts."""
    newest = {order["order_id"]: order for order in samples.orders()}
    stored = rows(settings, "SELECT order_id, state, total FROM silver.orders")
    assert {row["order_id"]: (row["state"], row["total"]) for row in stored} == {
        key: (order["state"], Decimal(order["total"])) for key, order in newest.items()
    }
    [gold] = rows(settings, "SELECT sum(events) AS events, sum(total_total) AS total FROM gold.orders_day")
    assert gold == {"events": len(newest), "total": sum(Decimal(order["total"]) for order in newest.values())}
