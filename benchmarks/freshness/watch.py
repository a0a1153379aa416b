"""Note what each table showed and when, while the platform runs: maintenance will have expired it at the end."""

import json
import threading
from contextlib import suppress
from dataclasses import dataclass, field

from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from freshdata.lake.catalog import open_catalog
from freshdata.lake.cursors import CURSOR_PROPERTY
from freshdata.lake.progress import PROGRESS_PROPERTY, Progress, summary_property
from freshdata.settings import Settings

POLL = 0.5  # seconds; the times are those that the tables tell


@dataclass(frozen=True)
class Commit:
    """One snapshot of Bronze.

    Attributes:
        number: Its sequence number.
        at: When it was committed, in seconds since the epoch.
        progress: Offsets by partition that it reaches.
    """

    number: int
    at: float
    progress: dict[int, int]


@dataclass
class Watch(threading.Thread):
    """Looks at three tables again and again.

    Attributes:
        settings: The instance.
        bronze: Bronze table.
        silver: The model made from it.
        gold: The model made from that.
        commits: Bronze's snapshot id to its commit.
        seen: A model's snapshot id to the upstream snapshot that it had followed.
    """

    settings: Settings
    bronze: str
    silver: str
    gold: str
    commits: dict[int, Commit] = field(default_factory=dict)
    seen: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(name="watch", daemon=True)
        self._stopped = threading.Event()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Look until stopped."""
        catalog = open_catalog(self.settings)
        while not self._stopped.wait(POLL):
            with suppress(NoSuchTableError):
                self._bronze(catalog.load_table(self.bronze))
                self._model(catalog.load_table(self.silver), self.bronze)
                self._model(catalog.load_table(self.gold), self.silver)

    def stop(self) -> None:
        """Stop after one more look."""
        self._stopped.set()
        self.join()

    def bronze_of(self, gold: int) -> Commit | None:
        """The newest commit of Bronze whose rows are in a snapshot of Gold."""
        return self.commits.get(self.seen.get(self.seen.get(gold, 0), 0))

    def _bronze(self, table: Table) -> None:
        for snapshot in table.snapshots():
            if snapshot.snapshot_id not in self.commits and summary_property(snapshot, PROGRESS_PROPERTY):
                self.commits[snapshot.snapshot_id] = _commit(snapshot)

    def _model(self, table: Table, upstream: str) -> None:
        for snapshot in table.snapshots():
            if text := summary_property(snapshot, CURSOR_PROPERTY):
                self.seen[snapshot.snapshot_id] = json.loads(text).get(upstream, 0)


def _commit(snapshot: Snapshot) -> Commit:
    progress = Progress.from_json(summary_property(snapshot, PROGRESS_PROPERTY) or "")
    offsets = {number: done.offset for number, done in progress.partitions.items()}
    return Commit(snapshot.sequence_number or 0, snapshot.timestamp_ms / 1000, offsets)
