"""A worker whose topic was deleted and created anew says so and stops."""

import subprocess
import sys

import pytest

from tests.integration.test_replay import delete_topic, ingest
from tests.streams import disorderly

pytestmark = pytest.mark.integration


def explained(refused):
    assert refused.returncode == 1
    assert "was deleted and created anew" in refused.stderr
    assert "freshdata replay flight_events --from-offset 0" in refused.stderr


def test_a_worker_refuses_a_topic_that_was_created_anew(streaming, environment):
    ingest(streaming, environment, disorderly(200, seed=1))
    delete_topic(streaming)
    refused = subprocess.run(
        [sys.executable, "-m", "stream_workers", "flight_events"],
        env=environment(streaming),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    explained(refused)
