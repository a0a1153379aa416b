"""A contract changes while its worker runs, or stands still."""

import json
import re
import subprocess
import sys
from datetime import datetime

import pytest

from freshdata.lake.catalog import open_catalog
from freshdata.lake.publication import published_contract
from tests.streams import (
    assert_verified,
    disorderly,
    flight_event,
    send,
    wait_until_caught_up,
    worker,
)

pytestmark = pytest.mark.integration

BRONZE = "bronze.flight_events"
LAST_FIELD = "      - name: distance\n"
GATE = "      - {name: gate, logicalType: string, physicalType: string}\n"


def edit(settings, version, *replacements):
    """Change the stream's contract file."""
    path = settings.contracts_dir / "flight_events.odcs.yaml"
    text = re.sub(r"(?m)^version: .*", f"version: {version}", path.read_text())
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)


def command(settings, environment, *arguments):
    """Run ``freshdata contract``; returns its exit code and what it printed."""
    result = subprocess.run(
        [sys.executable, "-m", "freshdata.cli", "contract", *arguments],
        env={**environment(settings), "COLUMNS": "200"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return result.returncode, result.stdout + result.stderr


def gated(first, count):
    """Events with the new field."""
    events = [flight_event(number, gate=f"C{number}") for number in range(first, first + count)]
    return [
        (event["event_id"].encode(), json.dumps(event).encode(), datetime.fromisoformat(event["event_time"]))
        for event in events
    ]


def test_a_new_field_appears_under_a_running_worker_and_old_files_stay(streaming, environment):
    send(streaming, disorderly(400, seed=1))
    with worker(streaming, environment(streaming)) as process:
        wait_until_caught_up(streaming)
        # Sent too early: its contract is not published.
        send(streaming, gated(400, 3))
        wait_until_caught_up(streaming)
        table = open_catalog(streaming).load_table(BRONZE)
        files = {task.file.file_path for task in table.scan().plan_files()}
        edit(streaming, "1.1.0", (LAST_FIELD, GATE + LAST_FIELD))
        code, printed = command(streaming, environment, "diff", "flight_events", "--json")
        assert code == 0
        outcome = json.loads(printed)
        assert (outcome["published"], outcome["file"], outcome["publishable"]) == ("1.0.0", "1.1.0", True)
        assert [(change["field"], change["rule"]) for change in outcome["changes"]] == [
            ("gate", "added"),
            ("", "version"),
        ]
        code, printed = command(streaming, environment, "publish", "flight_events")
        assert code == 0, printed
        assert "flight_events 1.1.0 is published" in printed
        # Sent the moment it is published, with old ones between them: no event of these goes to quarantine.
        send(streaming, [*gated(403, 150), *disorderly(100, seed=2, first=600)])
        wait_until_caught_up(streaming)
        assert "was published already" in command(streaming, environment, "publish", "flight_events")[1]
        edit(streaming, "1.2.0", ("physicalType: int\n", "physicalType: string\n"))
        code, printed = command(streaming, environment, "publish", "flight_events")
        assert code == 1
        assert "flight: type: int32 becomes string" in " ".join(printed.split())
        assert command(streaming, environment, "diff", "flight_events")[0] == 1
        send(streaming, gated(1000, 20))
        wait_until_caught_up(streaming)
        assert process.poll() is None
    table = open_catalog(streaming).load_table(BRONZE)
    assert files <= {task.file.file_path for task in table.scan().plan_files()}
    gates = {row["event_id"]: row["gate"] for row in table.scan().to_arrow().to_pylist()}
    assert len(gates) == 400 + 150 + 100 + 20
    assert sum(gate is not None for gate in gates.values()) == 170
    assert gates["UA-000403-dep"] == "C403"
    # By what is published, whatever the file says.
    counts = assert_verified(streaming)
    rejected = open_catalog(streaming).load_table("quarantine.flight_events").scan().to_arrow().to_pylist()
    assert counts["rejected"] == len(rejected)
    early = [row for row in rejected if row["key"].startswith(b"UA-")]
    assert {row["key"] for row in early} == {key for key, _, _ in gated(400, 3)}
    assert {row["contract_version"] for row in early} == {"1.0.0"}


def test_a_worker_publishes_at_its_start_goes_by_a_newer_one_and_refuses_a_breaking_one(streaming, environment):
    send(streaming, disorderly(50, seed=3))
    log = streaming.home / "worker.log"
    with worker(streaming, environment(streaming)):
        wait_until_caught_up(streaming)
    original = (streaming.contracts_dir / "flight_events.odcs.yaml").read_text()
    edit(streaming, "1.1.0", (LAST_FIELD, GATE + LAST_FIELD))
    send(streaming, gated(50, 50))
    with worker(streaming, environment(streaming)):
        wait_until_caught_up(streaming)
    assert published_contract(open_catalog(streaming).load_table(BRONZE)).version == "1.1.0"
    (streaming.contracts_dir / "flight_events.odcs.yaml").write_text(original)
    send(streaming, gated(100, 50))
    with worker(streaming, environment(streaming)):
        wait_until_caught_up(streaming)
    assert "goes by version 1.1.0, which is published; its file has the older 1.0.0" in log.read_text()
    gates = open_catalog(streaming).load_table(BRONZE).scan().to_arrow()["gate"].to_pylist()
    assert sum(gate is not None for gate in gates) == 100
    assert_verified(streaming)
    edit(streaming, "2.0.0")
    refused = subprocess.run(
        [sys.executable, "-m", "stream_workers", "flight_events"],
        env=environment(streaming), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    last = refused.stderr.strip().splitlines()[-1]
    assert "version 2.0.0 cannot follow 1.1.0, which is published: gate: removed" in last
    assert "Traceback" not in refused.stderr


def test_a_field_that_was_kept_as_unknown_gets_its_column(streaming, environment):
    edit(streaming, "1.0.0", ("unknownFieldPolicy, value: quarantine", "unknownFieldPolicy, value: keep"))
    send(streaming, [*disorderly(30, seed=4), *gated(30, 30)])
    with worker(streaming, environment(streaming)) as process:
        wait_until_caught_up(streaming)
        assert_verified(streaming)
        edit(streaming, "1.1.0", (LAST_FIELD, GATE + LAST_FIELD))
        assert command(streaming, environment, "publish", "flight_events")[0] == 0
        send(streaming, gated(60, 30))
        wait_until_caught_up(streaming)
        assert process.poll() is None
    rows = open_catalog(streaming).load_table(BRONZE).scan().to_arrow().to_pylist()
    kept = {row["event_id"]: (row["_extra"], row["gate"]) for row in rows}
    assert kept["UA-000029-dep"] == (None, None)
    assert kept["UA-000030-dep"] == ('{"gate":"C30"}', None)
    assert kept["UA-000060-dep"] == (None, "C60")
    assert assert_verified(streaming)["accepted"] == 90
