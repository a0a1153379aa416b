"""Watches an instance's captures: serves Prometheus metrics of them, and starts again what failed or was cut off."""

import signal
import threading
import time

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from freshdata.cdc.connector import Connect
from freshdata.cdc.health import Health, read_health
from freshdata.cdc.recovery import recover
from freshdata.cdc.signals import read_whole
from freshdata.cdc.source import Source, read_sources
from freshdata.errors import CaptureError, ServiceError
from freshdata.services.metrics_target import write_target
from freshdata.settings import Settings, load_settings

INTERVAL_SECONDS = 5.0
FIRST_RESTART_SECONDS = 5.0
LONGEST_RESTART_SECONDS = 300.0
GAUGES = {
    "running": "1 while the source's connector captures.",
    "lost": "1 when changes were missed for ever, as by a dropped slot.",
    "skipped_tables": "Tables that were to be read whole, and are not yet, as the database failed meanwhile.",
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
                "skipped_tables": len(health.skipped),
                "source_up": float(not health.unreachable),
                "slot_lag_bytes": health.lag,
                "slot_retained_bytes": health.retained,
            }
            for name, value in values.items():
                if value is not None:
                    self._gauges[name].labels(health.source).set(value)


class Restarts:
    """Starts again what failed or was cut off, each time after a longer while.

    A failed task that missed changes stays as it is: it could only go on after the gap, and hide it. A source whose
    first snapshot was cut off is recovered, as rows that only the former one has read would stay for ever. Tables
    that an incremental snapshot has skipped are read whole again, and only they.
    """

    def __init__(self) -> None:
        self._due: dict[str, tuple[float, float]] = {}

    def see(self, settings: Settings, source: Source, health: Health) -> bool:
        """Look at a source; returns whether it was started again.

        Raises:
            CaptureError: its database does not answer any more.
            ServiceError: Kafka or Connect do not answer, or its connector failed at once.
        """
        now = time.monotonic()
        due, pause = self._due.get(source.name, (now, FIRST_RESTART_SECONDS))
        if health.ok and now >= due:
            self._due.pop(source.name, None)
        broken = (health.state == "FAILED" or health.skipped) and not health.lost
        # While the database is away it would fail again; once it is back, it is started at once.
        if not (broken or health.cut_off) or health.unreachable or now < due:
            return False
        self._due[source.name] = (now + pause, min(pause * 2, LONGEST_RESTART_SECONDS))
        if health.cut_off:
            recover(settings, source)
        elif health.skipped:
            read_whole(Connect(settings), source, health.skipped)
        else:
            Connect(settings).restart(source.name)
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
                sources = read_sources(settings)
                found = [read_health(api, source) for source in sources.values()]
                metrics.show(found)
                for health in found:
                    what = health.lost or health.unreachable or health.reason or health.state
                    if told.get(health.source) != what:
                        told[health.source] = what
                        print(f"{health.source}: {what} {health.remedy}", flush=True)  # noqa: T201 (its log)
                    restarts.see(settings, sources[health.source], health)
            except (CaptureError, ServiceError) as error:  # The database is away, or Connect is being restarted.
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
