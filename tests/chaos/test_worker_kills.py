"""``kill -9`` of a real worker at every named point; the restarted one must lose, repeat and change nothing."""

import signal

import pytest

from freshdata.lake.catalog import open_catalog
from freshdata.verify.ingest import verify_ingest
from tests.streams import disorderly, flight_contract, send, wait_until_caught_up, worker

pytestmark = pytest.mark.chaos

POINTS = [
    "before-write",
    "after-quarantine-commit",
    "after-data-files",
    "before-commit",
    "after-commit",
    "during-rebalance",
    "during-index-rebuild",
]


@pytest.mark.parametrize("point", POINTS)
def test_kill_and_restart(streaming, environment, point):
    # A worker that keeps its name gets its partitions back at once, not after the dead one's session timeout.
    child = environment(streaming) | {"FRESHDATA_WORKER_ID": "flight_events-0"}
    send(streaming, disorderly(800, seed=11))
    with worker(streaming, child):
        wait_until_caught_up(streaming)
    send(streaming, disorderly(800, seed=12, first=800))
    with worker(streaming, child, FRESHDATA_KILL_AT=point) as victim:
        assert victim.wait(60) == -signal.SIGKILL
    send(streaming, disorderly(200, seed=13, first=1600))
    with worker(streaming, child):
        wait_until_caught_up(streaming)
    findings, counts = verify_ingest(streaming, open_catalog(streaming), flight_contract(streaming))
    assert [finding for finding in findings if not finding.ok] == []
    assert counts["accepted"] == 1800
