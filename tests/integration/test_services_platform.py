"""``up``, ``status`` and ``down``: the whole platform as one, healed while it runs, gone when stopped or killed."""

import json
import os
import signal
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from freshdata.errors import PrerequisiteError
from freshdata.registry import open_registry
from freshdata.services.instance import platform_state
from freshdata.services.processes import free_port
from freshdata.services.registry import prepare_registry, running_registry

pytestmark = pytest.mark.integration


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_life_of_the_platform(instance, environment):
    port = free_port()

    def freshdata(*arguments):
        command = [sys.executable, "-m", "freshdata.cli", *arguments]
        env = environment(instance) | {"FRESHDATA_GATEWAY_PORT": str(port)}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout

    def pids():
        return {child["name"]: child["pid"] for child in platform_state(instance)["children"]}

    assert "Nothing is running" in freshdata("down")
    try:
        prepare_registry(instance)
        extras = ["registry"]
    except PrerequisiteError:  # No Java that is new enough.
        extras = []
    options = [option for name in extras for option in ("--with", name)]
    up = ("up", "--port", str(free_port()), "--history-days", "0", "--speed", "100000", *options)
    assert "FreshData is up: http://127.0.0.1:" in freshdata(*up)
    try:
        assert "already up" in freshdata(*up)
        assert "Without gateway" in freshdata(*up, "--with", "gateway")
        status = json.loads(freshdata("status", "--json"))
        names = [
            "kafka",
            *extras,
            "worker-flight_events",
            "worker-weather",
            "dagster-code",
            "dagster-daemon",
            "dagster-web",
        ]
        assert [child["name"] for child in status["platform"]["children"]] == [*names, "producer"]
        assert not status["simulated"]

        assert bool(running_registry(instance)) == bool(extras)
        if extras:
            assert open_registry(instance).latest("flights.flight_events.v1-value")

        before = pids()
        os.kill(before["worker-weather"], signal.SIGKILL)
        until(lambda: pids()["worker-weather"] != before["worker-weather"])

        supervisor = platform_state(instance)["pid"]
        everyone = list(pids().values())
        os.kill(supervisor, signal.SIGKILL)
        until(lambda: all(gone(pid) for pid in everyone))
        assert json.loads(freshdata("status", "--json"))["platform"] is None

        assert f"Gateway http://127.0.0.1:{port}/docs" in freshdata(*up, "--with", "gateway")
        [gateway] = [child for child in platform_state(instance)["children"] if child["name"] == "gateway"]
        assert gateway["port"] == port
        until(lambda: httpx.get(f"http://127.0.0.1:{port}/readyz").is_success)
        assert "gateway" in freshdata("status")
        everyone = [platform_state(instance)["pid"], *pids().values()]
        assert "is stopped" in freshdata("down")
        assert all(gone(pid) for pid in everyone)
        assert json.loads(freshdata("status", "--json"))["kafka"] is None
    finally:
        freshdata("down")
