"""A real worker follows its lookup tables while it runs, and gives each event the row of the event's own time."""

import json
import re
import urllib.request
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families

from freshdata.contracts import load_contracts
from freshdata.lake.catalog import ensure_table, open_catalog
from tests.streams import flight_event, send, wait_for, wait_until_caught_up, worker

pytestmark = pytest.mark.integration

ENRICHMENTS = "[{lookup: airlines, key: tenant_id, columns: {name: carrier_name}}]"
# A lookup of a newcomer's: one contract, and no Python. Its key is a number.
FARES = """
apiVersion: v3.2.0
kind: DataContract
id: urn:freshdata:flights:fares
name: fares
version: 1.0.0
status: active
schema:
  - name: fares
    description: What a flight costs.
    customProperties:
      - {property: kind, value: lookup}
      - {property: validFromField, value: valid_from}
      - {property: validToField, value: valid_to}
    properties:
      - {name: flight, logicalType: integer, physicalType: int, primaryKey: true, primaryKeyPosition: 1}
      - {name: valid_from, logicalType: timestamp, physicalType: timestamptz, primaryKey: true, primaryKeyPosition: 2}
      - {name: valid_to, logicalType: timestamp, physicalType: timestamptz}
      - {name: fare, logicalType: number, physicalType: "decimal(10,2)"}
team: {name: pricing}
"""


def edit(settings, old, new):
    """Edit the flight stream's contract."""
    path = settings.contracts_dir / "flight_events.odcs.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture
def quick(streaming):
    """An instance whose worker commits soon, however little it has."""
    soon = "{property: commitPolicy, value: {maxAge: PT0.2S, maxIdleAge: PT0.2S}}"
    edit(streaming, "{property: maxFuture", f"{soon}\n      - {{property: maxFuture")
    return streaming


def send_events(settings, numbers, **changes: Any):
    records = []
    for number in numbers:
        event = flight_event(number, **changes)
        at = datetime.fromisoformat(event["event_time"])
        records.append((event["event_id"].encode(), json.dumps(event).encode(), at))
    send(settings, records)


def write(settings, name, rows):
    """Put rows in place of a lookup's."""
    contract = load_contracts(settings.contracts_dir)[name]
    table = ensure_table(open_catalog(settings), contract.table, contract.arrow_schema)
    (table.overwrite if table.current_snapshot() else table.append)(pa.Table.from_pylist(rows, contract.arrow_schema))


def carriers(**names):
    return [{"carrier": code, "name": name} for code, name in names.items()]


def stored(settings, column):
    """A column of Bronze by event number."""
    rows = open_catalog(settings).load_table("bronze.flight_events").scan().to_arrow().to_pylist()
    return {int(row["event_id"].split("-")[1]): row[column] for row in rows}


def misses(settings):
    """The worker's counter."""
    [file] = settings.metrics_dir.glob("flight_events-*.json")
    [target] = json.loads(file.read_text())[0]["targets"]
    with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = [s for family in families for s in family.samples if s.name == "freshdata_enrichment_misses_total"]
    assert all(s.labels["stream"] == "flight_events" for s in samples)
    return {(s.labels["lookup"], s.labels["key"]): s.value for s in samples}


def test_a_worker_follows_a_lookup_that_is_made_changed_and_dropped(quick, environment):
    log = quick.home / "worker.log"
    with worker(quick, environment(quick)) as process:

        def ingest(numbers):
            # The first event makes sure that a commit, and so a refresh, has come after what was done to the lookup.
            for part in (numbers[:1], numbers[1:]):
                send_events(quick, part)
                wait_until_caught_up(quick)

        ingest(range(60))
        counted = wait_for(lambda: misses(quick), "the first commit's metrics", log)
        wait_for(lambda: misses(quick) == {("airlines", "tenant_id"): 60}, f"60 misses, not {counted}", log)
        write(quick, "airlines", carriers(UA="United", AA="American"))
        ingest(range(60, 120))
        write(quick, "airlines", carriers(UA="Union", AA="American"))
        ingest(range(120, 180))
        open_catalog(quick).drop_table("lookup.airlines")
        ingest(range(180, 240))
        send_events(quick, range(180, 240))  # Duplicates miss nothing.
        write(quick, "airlines", carriers(DL="Delta"))
        ingest(range(240, 300))
        names = stored(quick, "carrier_name")
        expected = sum(name is None for name in names.values())
        wait_for(lambda: misses(quick) == {("airlines", "tenant_id"): expected}, f"{expected} misses", log)
        assert process.poll() is None
    assert len(names) == 300
    after = {60: {}, 120: {0: "United", 1: "American"}, 180: {0: "Union", 1: "American"}, 240: {}, 300: {2: "Delta"}}
    for end, known in after.items():
        settled = range(end - 59, end)  # The first one may have been enriched before the refresh, or after it.
        assert [names[n] for n in settled] == [known.get(n % 3) for n in settled]
    logged = re.findall(r"accepted=(\d+) .*misses=airlines\.tenant_id:(\d+)", log.read_text())
    assert sum(int(accepted) for accepted, _ in logged) == 300
    assert sum(int(missed) for _, missed in logged) == expected
    assert "Traceback" not in log.read_text()


def test_an_event_gets_the_row_of_its_own_time(quick, environment):
    (quick.contracts_dir / "fares.odcs.yaml").write_text(FARES)
    edit(quick, ENRICHMENTS, f"{ENRICHMENTS[:-1]}, {{lookup: fares, key: flight, columns: {{fare: fare}}}}]")
    begin = datetime.fromisoformat(flight_event(0)["event_time"])

    def minute(number):
        return begin + timedelta(minutes=number)

    write(quick, "airlines", carriers(UA="United", AA="American", DL="Delta"))
    write(
        quick,
        "fares",
        [
            {"flight": 7, "valid_from": minute(10), "valid_to": minute(20), "fare": 100},
            {"flight": 7, "valid_from": minute(30), "valid_to": None, "fare": 90},
            {"flight": 8, "valid_from": minute(0), "valid_to": None, "fare": 55},
        ],
    )
    with worker(quick, environment(quick)):
        # The newest first: what counts is when an event happened, not when it came.
        send_events(quick, reversed(range(80)), flight=7)
        send_events(quick, range(80, 90), flight=9)
        wait_until_caught_up(quick)
        counted = {("airlines", "tenant_id"): 0, ("fares", "flight"): 20 + 20 + 10}
        wait_for(lambda: misses(quick) == counted, "the misses", quick.home / "worker.log")
    fares = stored(quick, "fare")  # Two events a minute.
    assert {number for number, fare in fares.items() if fare == 100} == set(range(20, 40))
    assert {number for number, fare in fares.items() if fare == 90} == set(range(60, 80))
    assert {number for number, fare in fares.items() if fare is None} == {*range(20), *range(40, 60), *range(80, 90)}
