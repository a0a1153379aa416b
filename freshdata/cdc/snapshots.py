"""What Debezium tells of a source's snapshots, which Connect notes down: what was begun, and which tables were skipped.

A first snapshot that is cut off begins anew, whoever starts it: Connect after its end, its group, a failed task's
restart, Debezium itself after the database's end. What was deleted in between has no event. Connect writes a line when
one begins, before its first row; a capture that is made to begin anew writes another, after its topics' truncations.

An incremental snapshot, beside the changes, goes on where it was. But it skips the rest of a table when the database
fails in it, and the task runs on: only the line in which Debezium tells a table's end says so.
"""

import re
from collections.abc import Iterator

from freshdata.services.connect import snapshots_file
from freshdata.settings import Settings

READ_WHOLE = ("SUCCEEDED", "EMPTY")
NOTE = re.compile(
    r"aggregateType='(?P<snapshot>\w+) Snapshot', type='\w+', additionalData=\{(?P<facts>.*)\}, timestamp"
)


def begun(settings: Settings, source: str) -> int:
    """How often a source's first snapshot was begun since its capture was; more than once, it was cut off."""
    return sum(snapshot == "Initial" for snapshot, _ in _notes(settings, source))


def skipped(settings: Settings, source: str) -> tuple[str, ...]:
    """A source's tables that an incremental snapshot has skipped, and none has read whole since."""
    ends = {
        facts["scanned_collection"]: facts["status"]
        for snapshot, facts in _notes(settings, source)
        if snapshot != "Initial"
    }
    return tuple(table for table, status in ends.items() if status not in READ_WHOLE)


def begin(settings: Settings, source: str) -> None:
    """Count anew: the next snapshot that begins is the first of its capture, and reads every table."""
    with snapshots_file(settings).open("a") as lines:
        lines.write(f"{_anew(source)}\n")


def _notes(settings: Settings, source: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The kind and the facts of each note since a source's capture was begun."""
    path = snapshots_file(settings)
    lines = path.read_text().splitlines() if path.is_file() else []
    anew = max((number for number, line in enumerate(lines, 1) if line == _anew(source)), default=0)
    for line in lines[anew:]:
        if note := NOTE.search(line):
            facts = dict(fact.split("=", 1) for fact in note["facts"].split(", "))
            if facts["connector_name"] == source:
                yield note["snapshot"], facts


def _anew(source: str) -> str:
    return f"anew {source}"
