"""How far a Silver or Gold table has followed the tables it is made from: kept in its own snapshots.

Layers are chained by snapshots, never by timestamps: a row that becomes visible in Bronze after its day was processed
was added by a snapshot that no cursor has passed yet, so it still reaches Silver and Gold.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from freshdata.lake.progress import ancestors, standing, summary_property

CURSOR_PROPERTY = "freshdata.cursor"
MARKS_PROPERTY = "freshdata.cursor-marks"
FINGERPRINT_PROPERTY = "freshdata.fingerprint"
# Which run made a snapshot, of which model, how, over which days, from which git commit, and for which Dagster run.
RUN_PROPERTY = "freshdata.run"
MODEL_PROPERTY = "freshdata.model"
MODE_PROPERTY = "freshdata.mode"
INTERVAL_PROPERTY = "freshdata.interval"
COMMIT_PROPERTY = "freshdata.commit"
DAGSTER_RUN_PROPERTY = "freshdata.dagster-run"


@dataclass(frozen=True)
class Mark:
    """What a snapshot can still be told by when it has expired.

    Attributes:
        sequence_number: Its sequence number: files that were added after it have a higher one.
        records: Rows in its data files.
    """

    sequence_number: int
    records: int


@dataclass(frozen=True)
class Cursor:
    """What a table has seen of its upstream tables.

    Attributes:
        upstream: Upstream table to the snapshot whose rows, and all before it, are accounted for.
        fingerprint: Version of the model's code that made all rows.
        marks: Upstream table to the mark of that snapshot, where it has one.
    """

    upstream: dict[str, int]
    fingerprint: str
    marks: dict[str, Mark] = field(default_factory=dict, compare=False)

    @classmethod
    def at(cls, heads: Mapping[str, Snapshot], fingerprint: str) -> Self:
        """The cursor of a table that has seen its upstream tables up to some snapshots."""
        upstream = {name: head.snapshot_id for name, head in heads.items()}
        marks = {name: mark for name, head in heads.items() if (mark := _mark(head))}
        return cls(upstream, fingerprint, marks)

    def properties(self) -> dict[str, str]:
        """The form kept in a snapshot summary."""
        marks = {name: [mark.sequence_number, mark.records] for name, mark in self.marks.items()}
        return {
            CURSOR_PROPERTY: _compact(self.upstream),
            MARKS_PROPERTY: _compact(marks),
            FINGERPRINT_PROPERTY: self.fingerprint,
        }


def read_cursor(table: Table) -> Cursor | None:
    """The cursor in the newest snapshot that has one (a compaction by another engine carries none), or None."""
    for snapshot in ancestors(table):
        if text := summary_property(snapshot, CURSOR_PROPERTY):
            marks = json.loads(summary_property(snapshot, MARKS_PROPERTY) or "{}")
            return Cursor(
                json.loads(text),
                summary_property(snapshot, FINGERPRINT_PROPERTY) or "",
                {name: Mark(*numbers) for name, numbers in marks.items()},
            )
    return None


def common(catalog: Catalog, first: Cursor | None, second: Cursor | None) -> Cursor | None:
    """What two cursors of one table have both seen: of each upstream table the earlier snapshot.

    A table's cursor may move back, when a run that began with an older one replaces days.
    """
    if first == second:
        return first
    if first is None or second is None or first.fingerprint != second.fingerprint:
        return Cursor({}, "")  # No code version: everything will be rebuilt.
    upstream = {}
    for name in first.upstream.keys() & second.upstream.keys():
        pair = {first.upstream[name], second.upstream[name]}
        # The history runs backwards. What has expired was before all that is left of it.
        met = [one.snapshot_id for one in ancestors(catalog.load_table(name)) if one.snapshot_id in pair]
        upstream[name] = next(iter(pair - set(met)), met[-1] if met else first.upstream[name])
    marks = {
        name: cursor.marks[name]
        for cursor in (first, second)
        for name, seen in upstream.items()
        if cursor.upstream[name] == seen and name in cursor.marks
    }
    return Cursor(upstream, first.fingerprint, marks)


def upstream_heads(catalog: Catalog, upstream: Iterable[str], seen: Cursor | None = None) -> dict[str, Snapshot]:
    """Upstream table to its current snapshot; a table that is missing or was never written to is left out.

    Args:
        catalog: The catalog.
        upstream: The upstream tables.
        seen: The cursor of the table made from them. What has only been compacted since is still where it was: its
            files are others, its rows are not.
    """
    return _heads(_tables(catalog, upstream), seen)


def _tables(catalog: Catalog, names: Iterable[str]) -> dict[str, Table]:
    tables = {}
    for name in names:
        with suppress(NoSuchTableError):
            tables[name] = catalog.load_table(name)
    return tables


def _heads(tables: Mapping[str, Table], seen: Cursor | None) -> dict[str, Snapshot]:
    stood = seen.upstream if seen else {}
    heads = {name: standing(table, stood.get(name)) for name, table in tables.items()}
    return {name: head for name, head in heads.items() if head is not None}


def _mark(snapshot: Snapshot) -> Mark | None:
    records = summary_property(snapshot, "total-records")  # Not every engine tells.
    if records is None or snapshot.sequence_number is None:
        return None
    return Mark(snapshot.sequence_number, int(records))


def _compact(content: Mapping[str, object]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def behind(catalog: Catalog, upstreams: dict[str, tuple[str, ...]]) -> dict[str, dict[str, int]]:
    """Which tables have upstream snapshots that they have not followed: metadata only, cheap enough to poll.

    Args:
        catalog: The catalog.
        upstreams: Table to the tables it is made from: ``{m.name: m.depends_on for m in manifest.values()}``.

    Returns:
        Each table that is behind, with the current snapshot of every upstream table that moved. A table that does not
        exist yet, or has no cursor, is behind every upstream table that has rows.
    """
    found: dict[str, dict[str, int]] = {}
    tables = _tables(catalog, {name for names in upstreams.values() for name in names})
    for name, upstream in upstreams.items():
        try:
            cursor = read_cursor(catalog.load_table(name))
        except NoSuchTableError:
            cursor = None
        seen = cursor.upstream if cursor else {}
        heads = _heads({table: tables[table] for table in upstream if table in tables}, cursor)
        if moved := {table: head.snapshot_id for table, head in heads.items() if head.snapshot_id != seen.get(table)}:
            found[name] = moved
    return found
