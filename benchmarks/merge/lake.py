"""Lakes of the project's own models, filled from nothing by the file, and put back to a state of theirs in no time."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from benchmarks.merge.rows import FIRST_DAY, Checksum, News, checksum, events
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.lake.changes import touched_dates
from freshdata.lake.cursors import Cursor, upstream_heads
from freshdata.lake.files import write_data_files
from freshdata.lake.replace import append_nothing
from freshdata.lake.snapshots import SnapshotWriter
from freshdata.settings import Settings

BRONZE, SILVER = "bronze.flight_events", "silver.flight_events"
DAY_COLUMN = "flight_date"
FIRST = f"{DAY_COLUMN} == '{FIRST_DAY}'"
PIECE = 1_000_000  # rows of a file


@dataclass(frozen=True)
class State:
    """What the lake's tables were at some time.

    Attributes:
        metadata: The location of their metadata, by table.
        silver: Silver's snapshot.
    """

    metadata: dict[str, str]
    silver: int


@dataclass
class Lake:
    """One instance with a Bronze and a Silver table of flight events, its models deployed.

    Attributes:
        settings: The instance.
        carriers: Carriers of its rows.
        code_version: Version of the Silver model's code, which its cursor names.
        first_day: The checksum of Silver's first day as it was filled.
    """

    settings: Settings
    carriers: int
    code_version: str
    first_day: Checksum = field(default_factory=Checksum)

    def __post_init__(self) -> None:
        self.catalog = open_catalog(self.settings)
        for name in (BRONZE, SILVER):
            with self.table(name).transaction() as change:
                # A state is found by its metadata file: none may go.
                change.set_properties({"write.metadata.delete-after-commit.enabled": "false"})
        append_nothing(self.table(BRONZE), {})

    def table(self, name: str) -> Table:
        """One of its tables."""
        return load_table(self.catalog, name)

    def fill(self, name: str, days: list[date], rows: int, done: Callable[[int], object]) -> None:
        """Add days of so many rows to a table, as one file for each million rows and partition.

        Args:
            name: The table.
            days: The days.
            rows: Rows of each.
            done: Called with the number of rows written, again and again.
        """
        table = self.table(name)

        def write(piece: tuple[date, int]) -> tuple[list[DataFile], Checksum]:
            day, first = piece
            part = events(np.arange(first, min(first + PIECE, rows)), day, 0, self.carriers)
            files = write_data_files(table, part)
            done(len(part))
            return files, checksum(part) if day == FIRST_DAY and name == SILVER else Checksum()

        pieces = [(day, first) for day in days for first in range(0, rows, PIECE)]
        with ThreadPoolExecutor(2) as pool:
            written = list(pool.map(write, pieces))
        _append(table, [file for files, _ in written for file in files])
        self.first_day = sum((found for _, found in written), self.first_day)

    def follow(self) -> None:
        """Make Silver say that it has seen all of Bronze."""
        cursor = Cursor.at(upstream_heads(self.catalog, [BRONZE]), self.code_version)
        append_nothing(self.table(SILVER), cursor.properties())

    def land(self, batch: News) -> None:
        """Append a batch of the first day to Bronze, in one commit."""
        table = self.table(BRONZE)
        _append(table, write_data_files(table, batch.rows(FIRST_DAY, self.carriers)))

    def state(self) -> State:
        """What its tables are now."""
        locations = {name: self.table(name).metadata_location for name in (BRONZE, SILVER)}
        return State(locations, upstream_heads(self.catalog, [SILVER])[SILVER].snapshot_id)

    def restore(self, state: State) -> None:
        """Make its tables what they were."""
        for name, location in state.metadata.items():
            self.catalog.drop_table(name)
            self.catalog.register_table(name, location)

    def merged(self, batches: list[News]) -> Checksum:
        """What the first day of Silver must be after some batches, no two of which update the same row."""
        found = self.first_day
        for batch in batches:
            found += checksum(batch.winners(FIRST_DAY, self.carriers))
            if self.first_day.rows:
                found -= checksum(events(batch.updates, FIRST_DAY, 0, self.carriers))
        return found

    def wrong(self, expected: Checksum, before: State) -> str | None:
        """What is wrong with Silver, or None: its first day is as expected, and no other day was touched."""
        table = self.table(SILVER)
        found = checksum(table.scan(row_filter=FIRST).to_arrow_batch_reader())
        if found.rows != expected.rows:
            return f"its day has {found.rows:,} rows, {expected.rows:,} are right"
        if found != expected:
            return "its day has other rows than it should"
        if touched_dates(table, DAY_COLUMN, before.silver) != {FIRST_DAY}:
            return "it wrote to other days too"
        return None


def make_lake(home: Path, carriers: int) -> Lake:
    """Deploy the project's models into an empty instance."""
    from freshdata.transform.runner import open_runner

    settings = Settings().for_home(home)
    with open_runner(settings) as runner:
        return Lake(settings, carriers, runner.manifest[SILVER].code_version)


def days(count: int) -> list[date]:
    """So many days from the first one on."""
    return [FIRST_DAY + timedelta(days=number) for number in range(count)]


def _append(table: Table, files: list[DataFile]) -> None:
    writer = SnapshotWriter(table)
    writer.append([writer.added(files)], files, {})
