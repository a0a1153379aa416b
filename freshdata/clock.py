"""The platform's one notion of time.

Whatever compares with now (freshness, partition ranges) asks this clock. A historical replay sets it, so that a sample
of 2013 is judged as of 2013 and not as twelve years late.
"""

import json
import os
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

DEFAULT_START = date(2013, 1, 1)


@dataclass(frozen=True)
class Clock:
    """A clock kept in a file, so that all processes of an instance agree.

    Attributes:
        path: The clock file; without it the clock is the system's.
    """

    path: Path

    def told(self) -> dict[str, str]:
        """What has been set: the first day of data, and on a simulated clock the present."""
        return json.loads(self.path.read_text()) if self.path.is_file() else {}

    def now(self) -> datetime:
        """The present, in UTC: the replay's when one has set it, else the system's."""
        set_to = self.told().get("now")
        return datetime.fromisoformat(set_to) if set_to else datetime.now(UTC)

    @property
    def simulated(self) -> bool:
        """Whether a replay has set the clock."""
        return "now" in self.told()

    @property
    def start(self) -> date:
        """The first day of the instance's data: where daily partitions begin."""
        first = self.told().get("start")
        return date.fromisoformat(first) if first else DEFAULT_START

    def set(self, *, start: date, now: datetime | None) -> None:
        """Set the first day of data and the present.

        Args:
            start: First day of data.
            now: The replay's present, time-zone aware; None follows the system clock.
        """
        content = {"start": start.isoformat()} | ({"now": now.astimezone(UTC).isoformat()} if now else {})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        replacement = self.path.with_suffix(f".{os.getpid()}.tmp")
        replacement.write_text(json.dumps(content))
        replacement.replace(self.path)  # Readers never see half a file.


def instance_clock(home: Path) -> Clock:
    """The clock of the instance whose data folder is ``home``."""
    return Clock(home / "clock.json")
