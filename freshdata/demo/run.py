"""Run the main job: replay real events, ingest them, let Dagster build Silver and Gold, and gather what came of it."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pyiceberg.catalog import Catalog

from freshdata.clock import instance_clock
from freshdata.contracts import Contract
from freshdata.demo.outcome import Answer, Outcome
from freshdata.demo.reconcile import Check, reconcile
from freshdata.demo.runs import Runs
from freshdata.errors import ServiceError
from freshdata.freshness import stream_freshness
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.lake.cursors import behind
from freshdata.lake.progress import PartitionProgress, read_progress
from freshdata.lake.query import run_query
from freshdata.quarantine import Quarantine
from freshdata.sample.replay import replay
from freshdata.services.instance import own_home
from freshdata.services.kafka import end_offsets
from freshdata.services.platform import Platform
from freshdata.settings import Settings
from freshdata.transform.manifest import load_manifest
from freshdata.verify.run import verify_platform

SEED = 2013
POLL_SECONDS = 0.5
# Far beyond what the whole year needs: what is not done by then is stuck.
PATIENCE_SECONDS = 1800.0
# A day's mean cannot be averaged over days without the number of flights behind it, so these are medians over days,
# or weighted by the very count that the mean was taken over.
ANSWERS = {
    "On time, by carrier (its median day)": """
        SELECT d.name AS carrier, sum(c.flights)::BIGINT AS flights,
               100 * median(c.on_time_share) AS "on time %", median(c.mean_dep_delay_min) AS "delay min"
        FROM gold.carrier_day c JOIN gold.dim_carrier d ON d.carrier = c.tenant_id
        GROUP BY ALL HAVING sum(c.flights) >= 30 ORDER BY "on time %" DESC, carrier LIMIT 8""",
    "Worst routes": """
        SELECT origin || ' → ' || dest AS route, sum(flights)::BIGINT AS flights,
               sum(mean_arr_delay_min * arrivals) / sum(arrivals) AS "late min",
               100 * sum(cancelled) / sum(flights) AS "cancelled %"
        FROM gold.route_day
        GROUP BY ALL HAVING sum(flights) >= 30 AND sum(arrivals) > 0 ORDER BY "late min" DESC, route LIMIT 8""",
}

Tell = Callable[[str], None]


class Demo:
    """One run of the demo over an instance's folder.

    Attributes:
        settings: The demo's instance.
        months: Months of 2013 to send.
        disorder: Whether to add what real producers do wrong.
    """

    def __init__(self, settings: Settings, *, months: int, disorder: bool, seed: int = SEED) -> None:
        self.settings = settings
        self.months = months
        self.disorder = disorder
        self.seed = seed
        self._steps: list[tuple[str, float]] = []
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether a signal has ended it."""
        return self._cancelled.is_set()

    def run(self, *, tell: Tell) -> Outcome:
        """Run it; every process is stopped when this returns or raises.

        Args:
            tell: Called with what is being done.

        Raises:
            AlreadyRunningError: a demo runs in this folder.
            FreshDataError: a step failed.
        """
        with own_home(self.settings, keep_old=False, fresh=True), Platform(self.settings) as platform:
            self._stop_on_signals(platform)
            with self._step("start Kafka", tell):
                platform.start_kafka()
                platform.load_lookups()
            with self._step("send events", tell):
                replay(self.settings, months=self.months, disorder=self.disorder, seed=self.seed)
            streams = platform.streams
            catalog = open_catalog(self.settings)
            with self._step("Kafka → Bronze", tell):
                platform.start_workers()
                self._wait("the stream workers", lambda: all(self._caught_up(catalog, c) for c in streams))
            with self._step("Dagster: Silver → checks → Gold", tell):
                platform.start_dagster()
                runs = Runs(self.settings)
                self._wait("Dagster", lambda: self._built(catalog, runs))
            with self._step("verify", tell):
                report = verify_platform(self.settings)
                checks = reconcile(self.settings, catalog, streams, self.months, report)
            outcome = self._outcome(catalog, streams, runs, checks)
            with self._step("stop", tell):
                platform.stop()
        return outcome

    def _stop_on_signals(self, platform: Platform) -> None:
        def end(_number: int, _frame: FrameType | None) -> None:
            self._cancelled.set()
            platform.cancel()
            raise KeyboardInterrupt

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, end)

    @contextmanager
    def _step(self, name: str, tell: Tell) -> Iterator[None]:
        tell(name)
        started = time.monotonic()
        yield
        self._steps.append((name, time.monotonic() - started))

    def _wait(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > deadline or self._cancelled.wait(POLL_SECONDS):
                raise ServiceError(
                    "demo", f"{what} did not finish.", remedy=f"Look at the log files in {self.settings.logs}."
                )

    def _caught_up(self, catalog: Catalog, contract: Contract) -> bool:
        if not catalog.table_exists(contract.table):
            return False
        progress = read_progress(catalog.load_table(contract.table))
        ends = {number: end for number, end in end_offsets(self.settings, contract.rules.topic).items() if end}
        return progress is not None and {n: done.offset for n, done in progress.partitions.items()} == ends

    def _built(self, catalog: Catalog, runs: Runs) -> bool:
        """Whether Silver and Gold have followed Bronze and no run is under way; a failed run ends the wait too."""
        upstreams = {model.name: model.depends_on for model in load_manifest(self.settings).values()}
        if runs.unfinished():
            return False
        return bool(runs.failures()) or (not behind(catalog, upstreams) and not runs.unfinished())

    def _outcome(self, catalog: Catalog, streams: list[Contract], runs: Runs, checks: list[Check]) -> Outcome:
        now = instance_clock(self.settings.home).now()
        return Outcome(
            title=f"{self.months} month{'s' if self.months > 1 else ''} of flights from New York, 2013",
            now=now,
            progress={contract.name: self._progress(catalog, contract) for contract in streams},
            reasons=self._reasons(catalog, streams),
            tables=_tables(catalog),
            checks=runs.checks(),
            freshness={c.name: stream_freshness(self.settings, catalog, c, now) for c in streams},
            answers=self._answers(),
            reconciliation=checks,
            steps=self._steps,
            failures=runs.failures(),
            logs=self.settings.logs,
        )

    @staticmethod
    def _progress(catalog: Catalog, contract: Contract) -> PartitionProgress:
        progress = read_progress(load_table(catalog, contract.table))
        return progress.total() if progress else PartitionProgress(0)

    @staticmethod
    def _reasons(catalog: Catalog, streams: list[Contract]) -> dict[str, int]:
        reasons: Counter[str] = Counter()
        for contract in streams:
            reasons.update({problem.reason: problem.events for problem in Quarantine(catalog, contract).problems()})
        return dict(reasons)

    def _answers(self) -> list[Answer]:
        return [Answer(title, run_query(self.settings, sql).to_pylist()) for title, sql in ANSWERS.items()]


def _tables(catalog: Catalog) -> dict[str, tuple[int, int]]:
    """Every table with its rows and data files."""
    tables: dict[str, tuple[int, int]] = {}
    for namespace in ("bronze", "quarantine", "lookup", "silver", "gold"):
        for identifier in sorted(catalog.list_tables(namespace)):
            table = catalog.load_table(identifier)
            snapshot = table.current_snapshot()
            summary = snapshot.summary.additional_properties if snapshot and snapshot.summary else {}
            # Counted, not taken from the summary: a merge leaves delete files behind.
            rows = table.scan(selected_fields=()).count() if snapshot else 0
            tables[".".join(identifier)] = (rows, int(summary.get("total-data-files", 0)))
    return tables
