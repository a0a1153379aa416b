"""Partitions that Kafka's group has forgotten get an owner again, without anybody's doing."""

import pytest

from tests.integration.test_worker_metrics import sample
from tests.streams import (
    assert_verified,
    disorderly,
    owners,
    send,
    wait_for,
    wait_until_caught_up,
    worker,
)

pytestmark = pytest.mark.integration


def test_what_a_killed_worker_gave_up_does_not_stay_without_an_owner(streaming, environment):
    """Killed when it has given partitions up but not joined again; its successor of that name gets only the rest."""
    path = streaming.contracts_dir / "flight_events.odcs.yaml"
    slow = "      - {property: commitPolicy, value: {maxAge: PT30S, maxIdleAge: PT30S}}\n"
    path.write_text(path.read_text().replace("customProperties:\n", "customProperties:\n" + slow, 1))
    fault, log = streaming.home / "fault", streaming.home / "worker.log"
    send(streaming, disorderly(400, seed=41))
    named = environment(streaming) | {"FRESHDATA_WORKER_ID": "first"}
    with worker(streaming, named, FRESHDATA_FAULT_FILE=str(fault)) as first:
        wait_for(lambda: owners(streaming) == [{0, 1, 2, 3}] and sample(streaming, "open_rows"), "an open batch", log)
        fault.write_text("kill after-data-files")
        with worker(streaming, environment(streaming), FRESHDATA_WORKER_ID="second"):
            wait_for(lambda: first.poll() is not None, "the end of the first worker in its last commit", log)
            with worker(streaming, named):
                # Nobody's are two partitions; then the visitor's, for a moment.
                wait_for(lambda: sorted(map(len, owners(streaming))) == [2, 2], "two owners of all partitions", log)
                wait_until_caught_up(streaming)
                assert "have no owner" in log.read_text()
    assert assert_verified(streaming)["accepted"] == 400
