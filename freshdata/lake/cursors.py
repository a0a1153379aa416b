"""How far a Silver or Gold table has followed the tables it is made from: kept in its own snapshots.

Layers are chained by snapshots, never by timestamps: a row that becomes visible in Bronze after its day was processed
was added by a snapshot that no cursor has passed yet, so it still reaches Silver and Gold.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table

from freshdata.lake.progress import ancestors, summary_property

CURSOR_PROPERTY = "freshdata.cursor"
FINGERPRINT_PROPERTY = "freshdata.fingerprint"
MODE_PROPERTY = "freshdata.mode"
MODEL_PROPERTY = "freshdata.model"
RUN_PROPERTY = "freshdata.run"


@dataclass(frozen=True)
class Cursor:
    """What a table has seen of its upstream tables.

    Attributes:
        upstream: Upstream table to the snapshot whose rows, and all before it, are accounted for.
        fingerprint: Version of the model's code that made all rows.
    """

    upstream: dict[str, int]
    fingerprint: str

    def properties(self) -> dict[str, str]:
        """The form kept in a snapshot summary."""
        return {
            CURSOR_PROPERTY: json.dumps(self.upstream, sort_keys=True, separators=(",", ":")),
            FINGERPRINT_PROPERTY: self.fingerprint,
        }


def read_cursor(table: Table) -> Cursor | None:
    """The cursor in the newest snapshot that has one (a compaction by another engine carries none), or None."""
    for snapshot in ancestors(table):
        if text := summary_property(snapshot, CURSOR_PROPERTY):
            return Cursor(json.loads(text), summary_property(snapshot, FINGERPRINT_PROPERTY) or "")
    return None


def upstream_heads(catalog: Catalog, upstream: Iterable[str]) -> dict[str, int]:
    """Upstream table to its current snapshot; a table that is missing or was never written to is left out."""
    heads = {name: current_snapshot_id(catalog, name) for name in upstream}
    return {name: head for name, head in heads.items() if head is not None}


def current_snapshot_id(catalog: Catalog, name: str) -> int | None:
    """A table's current snapshot, or None when it is missing or was never written to."""
    try:
        snapshot = catalog.load_table(name).current_snapshot()
    except NoSuchTableError:
        return None
    return snapshot.snapshot_id if snapshot else None


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
    heads = upstream_heads(catalog, {name for names in upstreams.values() for name in names})
    for name, upstream in upstreams.items():
        try:
            cursor = read_cursor(catalog.load_table(name))
        except NoSuchTableError:
            cursor = None
        seen = cursor.upstream if cursor else {}
        if moved := {table: heads[table] for table in upstream if table in heads and heads[table] != seen.get(table)}:
            found[name] = moved
    return found
