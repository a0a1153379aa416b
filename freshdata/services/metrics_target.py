"""Where a process's metrics are, for Prometheus: one file a process, in the form that its ``file_sd`` reads."""

import os
from pathlib import Path

import psutil

from freshdata.services.processes import write_json
from freshdata.settings import Settings


def write_target(settings: Settings, name: str, port: int, *, job: str) -> Path:
    """Say that this process serves metrics on a loopback port; one glob over ``metrics_dir`` finds all of an instance.

    Args:
        settings: The instance.
        name: What serves them: a stream's name, or ``gateway``.
        port: The port.
        job: Prometheus' job.

    Returns:
        The file that says so: to be removed when it is not true any more. Those of killed processes are removed here.
    """
    for path in settings.metrics_dir.glob("*.json"):
        pid = path.stem.rpartition("-")[2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            path.unlink(missing_ok=True)
    path = settings.metrics_dir / f"{name}-{os.getpid()}.json"
    write_json(path, [{"targets": [f"127.0.0.1:{port}"], "labels": {"job": job}}])
    return path
