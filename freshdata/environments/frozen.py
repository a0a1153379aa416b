"""Production as it was at the moment of a plan, cut so that an environment and production saw the same rows."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation

from freshdata.environments.catalog import SEPARATOR, table_at
from freshdata.lake.catalog import list_tables
from freshdata.lake.cursors import Cursor, read_cursor
from freshdata.lake.progress import ancestors
from freshdata.lake.replace import SHADOW
from freshdata.transform.manifest import ModelInfo


@dataclass(frozen=True)
class Frozen:
    """Production's tables.

    Attributes:
        read: The tables that the environment reads: what it does not build.
        compared: The tables of the models that it builds.
        notes: Why rows may differ though the code does not.
    """

    read: dict[str, Table]
    compared: dict[str, Table]
    notes: tuple[str, ...]


def freeze(catalog: Catalog, production: Mapping[str, ModelInfo], built: Collection[str]) -> Frozen:
    """Freeze production for an environment.

    News comes in while an environment is built. So that only the code makes a difference, it reads of each upstream
    table what production's own tables had seen of it.

    Args:
        catalog: Production's catalog.
        production: Production's models.
        built: The models that the environment builds.
    """
    tables = {
        ".".join(name): catalog.load_table(name)
        for name in list_tables(catalog)
        if SEPARATOR not in name[0] and not name[-1].endswith(SHADOW)
    }
    compared = {name: table for name, table in tables.items() if name in built}
    read = {name: table for name, table in tables.items() if name not in built}
    cursors = {name: read_cursor(table) for name, table in compared.items() if name in production}
    for name, table in read.items():
        seen = {cursor.upstream.get(name) for cursor in cursors.values() if cursor}
        newest = next((found.snapshot_id for found in ancestors(table) if found.snapshot_id in seen), None)
        if newest is not None:
            read[name] = table_at(table, newest)
    heads = {name: _heads(table) for name, table in (read | compared).items()}
    notes = [note for name, cursor in cursors.items() for note in _unequal(production[name], cursor, heads)]
    return Frozen(read, compared, tuple(notes))


def _unequal(info: ModelInfo, cursor: Cursor | None, heads: Mapping[str, set[int]]) -> list[str]:
    if cursor is None:
        return [f"production's {info.name} was never run live: it may hold fewer rows"]
    notes = []
    if cursor.fingerprint != info.code_version:
        notes.append(f"production's {info.name} still has the rows of an earlier version of its model")
    behind = [name for name in info.depends_on if (found := heads.get(name)) and cursor.upstream.get(name) not in found]
    if behind:
        notes.append(
            f"production's {info.name} has not taken in all of {', '.join(behind)}: news makes a difference too"
        )
    return notes


def _heads(table: Table) -> set[int]:
    """The current snapshot, and those before it that hold the same rows in other files."""
    found = set()
    for snapshot in ancestors(table):
        found.add(snapshot.snapshot_id)
        if snapshot.summary is None or snapshot.summary.operation != Operation.REPLACE:
            break
    return found
