"""The statistics of a table's days, computed once for each state of a day's files.

They are kept in the instance's folder, one small file a day, under a name of the files that they were computed from: as
soon as late data, a rebuild or a compaction has changed these, they are computed anew. It is a cache: what is missing
is made from the table.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path

from pyiceberg.table import FileScanTask, Table

from freshdata.files import replace_file
from freshdata.lake.days import files_id, files_of_days, rows_of_files
from freshdata.quality.anomalies import DayProfile, profile_day

# To be raised when a statistic is computed in another way.
VERSION = 1


class Profiles:
    """The statistics of the days of one table.

    Args:
        folder: Where the instance keeps them.
        table: The table, refreshed.
        day: The date column that it is partitioned by.
        columns: The columns to look at; those that the table lacks are left out.

    Attributes:
        computed: The days whose rows were read because nothing valid was kept.
    """

    def __init__(self, folder: Path, table: Table, day: str, columns: Sequence[str]) -> None:
        schema = table.schema()
        self._folder = folder / ".".join(table.name())
        self._table = table
        self._day = day
        # Rows are counted even if there is nothing else to look at.
        self._columns = tuple(name for name in columns if name in schema.column_names) or (day,)
        types = [(name, str(schema.find_type(name))) for name in self._columns]
        self._made_as = hashlib.sha256(json.dumps([VERSION, types]).encode()).hexdigest()[:16]
        self.computed: list[date] = []

    def of(self, days: Collection[date]) -> dict[date, DayProfile]:
        """The statistics of those of some days that have rows; what is kept of other days is given up.

        Raises:
            LakeError: the table is not partitioned by the date column.
        """
        files = files_of_days(self._table, self._day, days)
        found = {day: self._profile(day, files[day]) for day in sorted(files)}
        # Each look is at the days that the next one needs, but for the newest.
        names = {f"{day}.json" for day in found}
        for path in self._folder.glob("*.json"):
            if path.name not in names:
                path.unlink(missing_ok=True)
        return found

    def _profile(self, day: date, tasks: list[FileScanTask]) -> DayProfile:
        state = f"{self._made_as} {files_id(tasks)}"
        path = self._folder / f"{day}.json"
        kept = {}
        with suppress(FileNotFoundError):
            kept = json.loads(path.read_text())
        if kept.get("state") == state:
            return DayProfile.from_json(kept["profile"])
        profile = profile_day(rows_of_files(self._table, tasks, self._columns))
        self.computed.append(day)
        self._folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps({"state": state, "profile": profile.to_json()}))
        return profile
