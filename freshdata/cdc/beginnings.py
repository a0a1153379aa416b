"""How often a source's first snapshot was begun, by what Debezium tells: rows of a former beginning may be gone since.

A first snapshot that is cut off begins anew, whoever starts it: Connect after its end, its group, a failed task's
restart, Debezium itself after the database's end. What was deleted in between has no event. Connect writes a line when
one begins, before its first row; a capture that is made to begin anew writes another, after its topics' truncations.
"""

from freshdata.services.connect import beginnings_file
from freshdata.settings import Settings


def begun(settings: Settings, source: str) -> int:
    """How often a source's first snapshot was begun since its capture was; more than once, it was cut off."""
    path = beginnings_file(settings)
    count = 0
    for line in path.read_text().splitlines() if path.is_file() else ():
        if line == _anew(source):
            count = 0
        elif f"{{connector_name={source}}}" in line:
            count += 1
    return count


def begin(settings: Settings, source: str) -> None:
    """Count anew: the next snapshot that begins is the first of its capture."""
    with beginnings_file(settings).open("a") as lines:
        lines.write(f"{_anew(source)}\n")


def _anew(source: str) -> str:
    return f"anew {source}"
