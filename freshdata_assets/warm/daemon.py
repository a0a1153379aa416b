"""``python -m freshdata_assets.warm.daemon run …``: Dagster's daemon, whose sensors come round every second.

Its own five seconds are longer than a warm run takes. So is the second of its queue, which a setting cannot divide.
"""

import os

from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator
from dagster._daemon import sensor
from dagster._daemon.cli import main

SENSORS = 1.0  # seconds
QUEUE = 0.25  # seconds
BATCH = "1000"  # What a run is planned to do is written down at once.

if __name__ == "__main__":
    os.environ["DAGSTER_EVENT_BATCH_SIZE"] = BATCH
    sensor.MIN_INTERVAL_LOOP_TIME = SENSORS  # type: ignore[assignment]
    QueuedRunCoordinator.dequeue_interval_seconds = QUEUE  # type: ignore[assignment, method-assign]
    main()
