"""Rows that become visible in Bronze after their day was processed still reach Silver and Gold."""

import pytest

from freshdata.lake.query import run_query
from freshdata.services.kafka import end_offsets
from freshdata.transform.runner import open_runner
from tests.streams import caught_up, disorderly, flight_contract, owners, progress, send, wait_for, worker

pytestmark = pytest.mark.integration

MODELS = ("silver.flight_events", "gold.carrier_day")


def run_live(settings):
    with open_runner(settings) as runner:
        return [runner.run_live(model) for model in MODELS]


def keys(settings, table):
    return set(run_query(settings, f"SELECT event_id FROM {table}")["event_id"].to_pylist())


def test_a_worker_that_was_held_back_loses_nothing(streaming, environment):
    topic = flight_contract(streaming).rules.topic
    send(streaming, disorderly(400, seed=21))
    log, hold = streaming.home / "worker.log", streaming.home / "hold"
    held = environment(streaming) | {"FRESHDATA_HOLD_AT": f"before-write:{hold}"}
    with worker(streaming, held), worker(streaming, environment(streaming)):
        wait_for(lambda: len(owners(streaming)) == 2 and all(owners(streaming)), "two owners of partitions", log)
        wait_for(lambda: caught_up(streaming), "catching up", log)
        hold.touch()
        try:
            send(streaming, disorderly(400, seed=22, first=400))
            ends = end_offsets(streaming, topic)

            def others_done():
                done = progress(streaming).partitions
                ahead = [p for p, end in ends.items() if done[p].offset == end]
                return 0 < len(ahead) < len(ends)

            wait_for(others_done, "the other worker's partitions", log)
            run_live(streaming)
            first = keys(streaming, "silver.flight_events")
            assert first < {f"UA-{number:06d}-dep" for number in range(800)}
        finally:
            hold.unlink()
        wait_for(lambda: caught_up(streaming), "catching up", log)
    run_live(streaming)
    assert keys(streaming, "silver.flight_events") == {f"UA-{number:06d}-dep" for number in range(800)}
    flights = run_query(streaming, "SELECT sum(flights)::BIGINT AS n FROM gold.carrier_day")["n"].to_pylist()
    distinct = run_query(
        streaming,
        "SELECT count(*) AS n FROM (SELECT DISTINCT flight_date, tenant_id, flight, sched_dep_time "
        "FROM bronze.flight_events)",
    )["n"].to_pylist()
    assert flights == distinct
    assert [run.note for run in run_live(streaming)] == ["up to date", "up to date"]
