"""Tags: names for a table's snapshots, which keep their rows readable whatever happens to the table afterwards.

A tag never moves: what was trained or reported on a tag can be read again under its name. It ends when it is dropped,
or at the age it was given; maintenance keeps until then what its snapshot needs.
"""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRef, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update.snapshot import ManageSnapshots

from freshdata.errors import LakeError
from freshdata.lake.commits import ATTEMPTS, FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS
from freshdata.lake.history import commits

# Begins with a letter: engines take a number for a snapshot id.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True)
class Tag:
    """A tag.

    Attributes:
        name: Its name.
        snapshot_id: The snapshot it is on.
        committed: When that snapshot was made.
        expires: When maintenance drops it; None is never.
    """

    name: str
    snapshot_id: int
    committed: datetime
    expires: datetime | None


def list_tags(table: Table) -> list[Tag]:
    """The tags of a table, by name."""
    return [
        _tag(table, name, ref)
        for name, ref in sorted(table.refs().items())
        if ref.snapshot_ref_type == SnapshotRefType.TAG
    ]


def create_tag(table: Table, name: str, *, snapshot_id: int | None = None, kept: timedelta | None = None) -> Tag:
    """Put a new tag on a snapshot.

    Args:
        table: The table; refreshed in place.
        name: A letter, then letters, digits, ``_``, ``.`` or ``-``; up to 128 characters.
        snapshot_id: The snapshot; the current one when None.
        kept: For how long from now the tag is kept; None keeps it until it is dropped.

    Raises:
        LakeError: the name is none for a tag or taken, or there is no such snapshot.
    """
    if not NAME.fullmatch(name) or name == MAIN_BRANCH:
        raise _error(
            table,
            f"{name!r} is no name for a tag.",
            "Begin with a letter, and use letters, digits, '_', '.' and '-' only.",
        )
    table.refresh()
    head = table.current_snapshot()
    chosen = snapshot_id if snapshot_id is not None else head.snapshot_id if head else None
    if chosen is None:
        raise _error(table, "it has no rows yet, so there is nothing to tag.", "Tag it when it has been written to.")

    def change(failure: Exception | None) -> ManageSnapshots | None:
        snapshot = _whole_snapshot(table, chosen)
        if (taken := table.refs().get(name)) is not None:
            if failure and taken.snapshot_id == chosen:
                return None  # An error's answer hid that the commit did happen.
            raise _taken(table, name, taken)
        # Iceberg counts a tag's age from when its snapshot was made, which may be long ago.
        age = int(time.time() * 1000) - snapshot.timestamp_ms + kept // timedelta(milliseconds=1) if kept else None
        return table.manage_snapshots().create_tag(chosen, name, max_ref_age_ms=age)

    _commit(table, change)
    return _tag(table, name, table.refs()[name])


def drop_tag(table: Table, name: str) -> Tag:
    """Remove a tag; its snapshot goes when maintenance finds nothing else that needs it.

    Args:
        table: The table; refreshed in place.
        name: The tag.

    Returns:
        The tag as it was.

    Raises:
        LakeError: there is no such tag.
    """
    table.refresh()
    dropped = next((tag for tag in list_tags(table) if tag.name == name), None)
    if dropped is None:
        names = ", ".join(tag.name for tag in list_tags(table))
        raise _error(table, f"it has no tag {name}.", f"Its tags are {names}." if names else "It has no tags.")
    _commit(table, lambda _: table.manage_snapshots().remove_tag(name) if name in table.refs() else None)
    return dropped


def drop_expired_refs(table: Table) -> list[str]:
    """Remove the tags and branches that are older than they were given.

    Args:
        table: The table, refreshed; what loses a race against another writer is left for the next time.

    Returns:
        Their names.
    """
    now = datetime.now(UTC)
    dropped = []
    for name, ref in table.refs().items():
        expires = _tag(table, name, ref).expires
        if name != MAIN_BRANCH and expires is not None and expires < now:
            with suppress(CommitFailedException):
                # To PyIceberg a branch is removed as a tag is.
                table.manage_snapshots().remove_tag(name).commit()
                dropped.append(name)
    return dropped


def snapshot_at(table: Table, at: datetime) -> int:
    """The snapshot that was a table's current one at a time.

    Args:
        table: The table, refreshed.
        at: The time, time-zone aware; by the clock of whoever wrote the table.

    Raises:
        LakeError: the table had none then, or it has expired.
    """
    kept = [commit[0] for commit in commits(table)]
    for snapshot in kept:
        if _time(snapshot) <= at:
            return snapshot.snapshot_id
    told = f"the oldest snapshot that is kept is of {_time(kept[-1])}" if kept else "it has no rows yet"
    raise _error(table, f"what it held at {at} is not known: {told}.", "Choose a later time.")


def _whole_snapshot(table: Table, snapshot_id: int) -> Snapshot:
    snapshot = table.snapshot_by_id(snapshot_id)
    if snapshot is None:
        raise _error(
            table,
            f"it has no snapshot {snapshot_id}, or it has expired.",
            f"List them with `freshdata snapshot {'.'.join(table.name())}`.",
        )
    for newest, *halves in commits(table):
        if snapshot in halves:
            raise _error(
                table,
                f"snapshot {snapshot_id} is one half of a change: rows were taken away and not yet put back.",
                f"Use the whole change, {newest.snapshot_id}.",
            )
    return snapshot


def _commit(table: Table, change: Callable[[Exception | None], ManageSnapshots | None]) -> None:
    """Commit a change of refs; planned anew, on the table as it is then, whenever the catalog did not take it."""
    failure: Exception | None = None
    delay = FIRST_DELAY_SECONDS
    for _ in range(ATTEMPTS):
        planned = change(failure)
        if planned is None:
            return
        try:
            planned.commit()
        except Exception as error:  # noqa: BLE001 - whatever the catalog answered, only the table tells what happened.
            failure = error
        else:
            return
        time.sleep(delay)
        delay = min(delay * 2, LONGEST_DELAY_SECONDS)
        table.refresh()
    raise _error(
        table,
        f"the catalog refused a commit {ATTEMPTS} times, last with: {failure}.",
        "Check that the catalog is reachable, and run the command again.",
    ) from failure


def _tag(table: Table, name: str, ref: SnapshotRef) -> Tag:
    snapshot = table.snapshot_by_id(ref.snapshot_id)
    committed = _time(snapshot) if snapshot else datetime.fromtimestamp(0, UTC)
    age = ref.max_ref_age_ms
    return Tag(name, ref.snapshot_id, committed, committed + timedelta(milliseconds=age) if age else None)


def _taken(table: Table, name: str, ref: SnapshotRef) -> LakeError:
    kind = ref.snapshot_ref_type.value
    return _error(
        table,
        f"it has a {kind} {name} already, on snapshot {ref.snapshot_id}; a tag never moves.",
        f"Choose another name, or drop it first: `freshdata snapshot {'.'.join(table.name())} --drop {name}`."
        if kind == "tag"
        else "Choose another name.",
    )


def _time(snapshot: Snapshot) -> datetime:
    return datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC)


def _error(table: Table, message: str, remedy: str) -> LakeError:
    return LakeError(".".join(table.name()), message, remedy=remedy)
