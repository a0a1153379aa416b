"""Watches an instance's captures: serves Prometheus metrics of them, and starts tasks that failed again."""

import signal
import threading
import time

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from freshdata.cdc.connector import Connect
from freshdata.cdc.health import Health, read_health
from freshdata.cdc.source import read_sources
from freshdata.errors import ServiceError
from freshdata.services.metrics_target import write_target
from freshdata.settings import Settings, load_settings

INTERVAL_SECONDS = 5.0
FIRST_RESTART_SECONDS = 5.0
LONGEST_RESTART_SECONDS = 300.0
GAUGES = {
    "running": "1 while the source's connector captures.",
    "lost": "1 when changes were missed for ever, as by a dropped slot.",
    "source_up": "1 while the source's database answers.",
    "slot_lag_bytes": "Bytes of the database's log that are not captured yet.",
    "slot_retained_bytes": "Bytes of log that the database keeps for the slot.",
}


class CaptureMetrics:
    """What Prometheus is told of each source."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._gauges = {
            name: Gauge(f"freshdata_cdc_{name}", text, ("source",), registry=self.registry)
            for name, text in GAUGES.items()
        }

    def show(self, found: list[Health]) -> None:
        """Tell how the sources are now; what is not known is not told."""
        for gauge in self._gauges.values():
            gauge.clear()
        for health in found:
            values = {
                "running": float(health.state == "RUNNING"),
                "lost": float(bool(health.lost)),
                "source_up": float(not health.unreachable),
                "slot_lag_bytes": health.lag,
                "slot_retained_bytes": health.retained,
            }
            for name, value in values.items():
                if value is not None:
                    self._gauges[name].labels(health.source).set(value)


class Restarts:
    """Starts failed tasks again, each time after a longer while; one that missed changes stays as it is.

    To restart that one would be to hide it: it could only go on after the gap.
    """

    def __init__(self) -> None:
        self._due: dict[str, tuple[float, float]] = {}

    def see(self, api: Connect, health: Health) -> bool:
        """Look at a source; returns whether its task was started again."""
        if health.state != "FAILED" or health.lost:
            if health.state == "RUNNING":
                self._due.pop(health.source, None)
            return False
        if health.unreachable:
            return False  # It would fail again; once the database is back, it is started at once.
        now = time.monotonic()
        due, pause = self._due.get(health.source, (now, FIRST_RESTART_SECONDS))
        if now < due:
            return False
        self._due[health.source] = (now + pause, min(pause * 2, LONGEST_RESTART_SECONDS))
        api.restart(health.source)
        return True


def watch(settings: Settings, stop: threading.Event) -> None:
    """Watch until told to stop."""
    metrics, restarts = CaptureMetrics(), Restarts()
    server, _ = start_http_server(0, addr="127.0.0.1", registry=metrics.registry)
    target = write_target(settings, "cdc", server.server_port, job="freshdata-cdc")
    told: dict[str, str] = {}
    try:
        while not stop.wait(INTERVAL_SECONDS if told else 0.5):
            try:
                api = Connect(settings)
                found = [read_health(api, source) for source in read_sources(settings).values()]
                metrics.show(found)
                for health in found:
                    what = health.lost or health.unreachable or health.reason or health.state
                    if told.get(health.source) != what:
                        told[health.source] = what
                        print(f"{health.source}: {what} {health.remedy}", flush=True)  # noqa: T201 (its log)
                    restarts.see(api, health)
            except ServiceError as error:  # Connect is being restarted: its supervisor sees to it.
                print(error, flush=True)  # noqa: T201
    finally:
        server.shutdown()
        target.unlink(missing_ok=True)


def main() -> None:
    """Run as a process: ``python -m freshdata.cdc.watch``."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    watch(load_settings(), stop)


if __name__ == "__main__":
    main()
