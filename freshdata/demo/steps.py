"""What every demo does: steps that are timed, waits that end, and tables that are counted."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from pyiceberg.catalog import Catalog

from freshdata.clock import instance_clock
from freshdata.contracts import Contract
from freshdata.demo.outcome import Answer, Outcome
from freshdata.demo.reconcile import Check
from freshdata.demo.runs import Runs
from freshdata.errors import ServiceError
from freshdata.freshness import stream_freshness
from freshdata.lake.catalog import load_table
from freshdata.lake.cursors import behind
from freshdata.lake.progress import PartitionProgress, read_progress
from freshdata.lake.query import run_query
from freshdata.quarantine import Quarantine
from freshdata.services.kafka import end_offsets
from freshdata.services.platform import Platform
from freshdata.settings import Settings
from freshdata.transform.manifest import load_manifest

POLL_SECONDS = 0.5
# Far beyond what the whole year needs: what is not done by then is stuck.
PATIENCE_SECONDS = 1800.0

Tell = Callable[[str], None]


class Steps:
    """The steps of one run of a demo over an instance's folder.

    Attributes:
        settings: The demo's instance.
        steps: Step to its duration in seconds, as far as it has come.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.steps: list[tuple[str, float]] = []
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether a signal has ended it."""
        return self._cancelled.is_set()

    def stop_on_signals(self, platform: Platform) -> None:
        """End the run, and a start of the platform that waits, at a signal."""

        def end(_number: int, _frame: FrameType | None) -> None:
            self._cancelled.set()
            platform.cancel()
            raise KeyboardInterrupt

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, end)

    @contextmanager
    def step(self, name: str, tell: Tell) -> Iterator[None]:
        """A step, told and timed."""
        tell(name)
        started = time.monotonic()
        yield
        self.steps.append((name, time.monotonic() - started))

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait until something has finished.

        Raises:
            ServiceError: it is stuck, or a signal has ended the run.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > deadline or self._cancelled.wait(POLL_SECONDS):
                raise ServiceError(
                    "demo", f"{what} did not finish.", remedy=f"Look at the log files in {self.settings.logs}."
                )

    def caught_up(self, catalog: Catalog, contract: Contract) -> bool:
        """Whether Bronze has all that the stream's topic holds."""
        if not catalog.table_exists(contract.table):
            return False
        progress = read_progress(catalog.load_table(contract.table))
        ends = {number: end for number, end in end_offsets(self.settings, contract.rules.topic).items() if end}
        return progress is not None and {n: done.offset for n, done in progress.partitions.items()} == ends

    def built(self, catalog: Catalog, runs: Runs) -> bool:
        """Whether Silver and Gold have followed Bronze and no run is under way; a failed run ends the wait too."""
        upstreams = {model.name: model.depends_on for model in load_manifest(self.settings).values()}
        if runs.unfinished():
            return False
        return bool(runs.failures()) or (not behind(catalog, upstreams) and not runs.unfinished())

    def outcome(
        self,
        catalog: Catalog,
        streams: Sequence[Contract],
        runs: Runs,
        checks: list[Check],
        *,
        title: str,
        claim: str,
        hints: dict[str, str],
        questions: Mapping[str, str],
    ) -> Outcome:
        """What the lake holds now, and what the run has shown.

        Args:
            catalog: The demo's catalog.
            streams: The streams that were sent.
            runs: What Dagster ran.
            checks: The lake against its source.
            title: What was run.
            claim: What is shown when every check holds.
            hints: Commands to go on with, and what for.
            questions: SQL by the title of its answer.
        """
        now = instance_clock(self.settings.home).now()
        return Outcome(
            title=title,
            claim=claim,
            hints=hints,
            now=now,
            progress={contract.name: _progress(catalog, contract) for contract in streams},
            reasons=_rejections(catalog, streams),
            tables=_table_sizes(catalog),
            checks=runs.checks(),
            freshness={c.name: stream_freshness(self.settings, catalog, c, now) for c in streams},
            answers=[Answer(name, run_query(self.settings, sql).to_pylist()) for name, sql in questions.items()],
            reconciliation=checks,
            steps=self.steps,
            failures=runs.failures(),
            logs=self.settings.logs,
        )


def _progress(catalog: Catalog, contract: Contract) -> PartitionProgress:
    progress = read_progress(load_table(catalog, contract.table))
    return progress.total() if progress else PartitionProgress(0)


def _rejections(catalog: Catalog, streams: Iterable[Contract]) -> dict[str, int]:
    """Events in quarantine by reason."""
    reasons: Counter[str] = Counter()
    for contract in streams:
        reasons.update({problem.reason: problem.events for problem in Quarantine(catalog, contract).problems()})
    return dict(reasons)


def _table_sizes(catalog: Catalog) -> dict[str, tuple[int, int]]:
    """Every table with its rows and data files."""
    tables: dict[str, tuple[int, int]] = {}
    namespaces = ("bronze", "quarantine", "lookup", "silver", "gold")
    for namespace in filter(catalog.namespace_exists, namespaces):
        for identifier in sorted(catalog.list_tables(namespace)):
            table = catalog.load_table(identifier)
            snapshot = table.current_snapshot()
            summary = snapshot.summary.additional_properties if snapshot and snapshot.summary else {}
            # Counted, not taken from the summary: a merge leaves delete files behind.
            rows = table.scan(selected_fields=()).count() if snapshot else 0
            tables[".".join(identifier)] = (rows, int(summary.get("total-data-files", 0)))
    return tables
