"""A person is erased from all layers, beside a worker and after kills in the middle; no replay brings them back."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal

import pyarrow.parquet as pq
import pytest
from confluent_kafka import Producer
from pydantic import SecretStr
from typer.testing import CliRunner

from freshdata.cli.main import app
from freshdata.contracts import load_contracts
from freshdata.lake.catalog import open_catalog
from freshdata.lake.progress import read_progress
from freshdata.lake.query import run_query
from freshdata.lake.tags import create_tag
from freshdata.privacy import Secret
from freshdata.services.kafka import client_config, end_offsets, ensure_topics
from freshdata.transform.runner import open_runner
from freshdata.verify.ingest import verify_ingest
from tests.people import CONTRACT, GOLD, SECRET, SILVER, TESTS, encoded, visit
from tests.streams import wait_for

pytestmark = pytest.mark.integration

WHO, WHERE = 900004711, "lyon"
# Kills itself when it has called a function of the command so many times.
KILLED = """
import os, sys
import freshdata.forget as module
name, left = sys.argv[1], int(sys.argv[2])
plain = getattr(module, name)
def counted(*arguments, **options):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
    return plain(*arguments, **options)
setattr(module, name, counted)
from freshdata.forgotten import Person
from freshdata.settings import load_settings
module.Forget(load_settings(), Person("lyon", "900004711")).run()
"""


@pytest.fixture
def lake(streaming, tmp_path, environment, monkeypatch):
    """An instance with the stream of visits alone, and the environment of its processes."""
    for path in streaming.contracts_dir.iterdir():
        path.unlink()
    models = streaming.models_dir
    for path in [*models.glob("models/*/*.sql"), *models.glob("tests/*.yaml")]:
        path.unlink()
    (streaming.contracts_dir / "visits.odcs.yaml").write_text(CONTRACT.replace("TOPIC", f"visits.{tmp_path.name}"))
    (models / "models" / "silver" / "visits.sql").write_text(SILVER)
    (models / "models" / "gold" / "visits_day.sql").write_text(GOLD)
    (models / "tests" / "test_visits.yaml").write_text(TESTS)
    monkeypatch.setenv("FRESHDATA_PRIVACY_SECRET", SECRET)
    return streaming.model_copy(update={"privacy_secret": SecretStr(SECRET)}), environment(streaming)


def send(settings, events):
    """Send events; bytes are sent as they are."""
    contract = load_contracts(settings.contracts_dir)["visits"]
    ensure_topics(settings, [contract])
    producer = Producer(client_config(settings))
    for event in events:
        value = event if isinstance(event, bytes) else encoded(event)
        key = None if isinstance(event, bytes) else event["visit_id"].encode()
        producer.produce(contract.rules.topic, value, key)
    assert producer.flush(30) == 0


def wait_until_ingested(settings):
    contract = load_contracts(settings.contracts_dir)["visits"]

    def done():
        catalog = open_catalog(settings)
        progress = read_progress(catalog.load_table(contract.table)) if catalog.table_exists(contract.table) else None
        ends = {part: end for part, end in end_offsets(settings, contract.rules.topic).items() if end}
        return progress is not None and {number: part.offset for number, part in progress.partitions.items()} == ends

    wait_for(done, "catching up")


@contextmanager
def worker(environment):
    with subprocess.Popen([sys.executable, "-m", "stream_workers", "visits"], env=environment) as process:
        try:
            yield
            assert process.poll() is None
        finally:
            process.terminate()


def follow(settings):
    with open_runner(settings) as runner:
        runner.run_live("silver.visits")
        runner.run_live("gold.visits_day")


def gold(settings):
    rows = run_query(settings, "FROM gold.visits_day").to_pylist()
    return {(row["event_date"], row["shop"]): (row["visits"], row["spent"]) for row in rows}


def expected(events):
    days = {}
    for event in events:
        if isinstance(event, dict) and (event["shop"], event["customer"]) != (WHERE, WHO):
            at = datetime.fromisoformat(event["visited_at"]).date(), event["shop"]
            visits, spent = days.get(at, (0, Decimal(0)))
            days[at] = visits + 1, spent + Decimal(event["spent"])
    return days


def places(settings):
    """What names the person, in every file of the instance's lake; read here without any help of the platform's."""
    secret = Secret(SECRET.encode())
    token = secret.token(f"person{WHO}@example.org")
    found = []
    for path in (settings.home / "warehouse").rglob("*.parquet"):
        for row in pq.read_table(path).to_pylist():
            here = row.get("customer") == secret.hashed(str(WHO)) and row.get("shop") == WHERE
            payload = secret.opened(row.get("payload")) or b""
            if here or (row.get("shop") == WHERE and row.get("email") == token):
                found.append(path)
            if str(WHO).encode() in payload and WHERE.encode() in payload:
                found.append(path)
    return found


def forget(*options):
    done = CliRunner().invoke(
        app, ["forget", "--tenant", WHERE, "--key", str(WHO), "--json", *options], env=dict(os.environ)
    )
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)


def test_a_person_is_erased_for_good(lake, monkeypatch):
    settings, environment = lake
    monkeypatch.setattr(os, "environ", environment)
    # Some of the person's own events are broken; one so much that it is no JSON.
    broken = [encoded(visit(0, email="none")), encoded(visit(0))[:-1], encoded(visit(1, email="none"))]
    events = [*(visit(number) for number in range(90)), *broken]
    send(settings, events)
    with worker(environment):
        wait_until_ingested(settings)
        follow(settings)
        catalog = open_catalog(settings)
        create_tag(catalog.load_table("gold.visits_day"), "REPORTED")
        create_tag(catalog.load_table("bronze.visits"), "KEPT")
        before = gold(settings)
        plan = {each["table"]: each["rows"] for each in forget()["plan"]}
        assert plan == {"bronze.visits": 6, "quarantine.visits": 2, "silver.visits": 6, "gold.visits_day": 0}
        assert gold(settings) == before
        assert places(settings)
        kills = (("begin_anew", 4), ("purge", 1))
        for number, (function, calls) in enumerate(kills):
            # While the worker takes in more of the same person's.
            more = [visit(990 + 15 * number), visit(991 + 15 * number)]
            send(settings, more)
            events += more
            died = subprocess.run([sys.executable, "-c", KILLED, function, str(calls)], env=environment, check=False)
            assert died.returncode == -signal.SIGKILL, (function, calls)
        told = forget("--yes")
        wait_until_ingested(settings)
        assert told["erased"]
        assert sum(each["data_files"] for each in told["proof"]) > 0
        send(settings, again := [visit(2000, WHO, shop=WHERE), visit(2001, WHO)])
        events += again
        wait_until_ingested(settings)
    assert_gone(settings, events)
    replay = [sys.executable, "-m", "stream_workers.replay", "visits", "--from-offset", "0"]
    assert subprocess.run(replay, env=environment, check=False).returncode == 0
    assert_gone(settings, events)


def assert_gone(settings, events):
    follow(settings)
    assert places(settings) == []
    assert gold(settings) == expected(events)
    catalog = open_catalog(settings)
    assert not [name for name in catalog.load_table("gold.visits_day").refs() if name != "main"]
    contract = load_contracts(settings.contracts_dir)["visits"]
    findings, counts = verify_ingest(settings, catalog, contract)
    assert [finding for finding in findings if not finding.ok] == []
    assert counts["consumed"] == counts["accepted"] + counts["duplicates"] + counts["rejected"]
    # Others of the same number, in other shops, are somebody else.
    hashed = Secret(SECRET.encode()).hashed(str(WHO))
    rows = run_query(settings, f"SELECT DISTINCT shop FROM silver.visits WHERE customer = '{hashed}'").to_pylist()
    assert {row["shop"] for row in rows} == {"turin", "gent"}
