"""Whether a source is captured: its connector, its replication slot, and whether anything was missed."""

from dataclasses import dataclass
from typing import Any

from freshdata.cdc.connector import Connect
from freshdata.cdc.source import Source, connect
from freshdata.errors import CaptureError

SLOT = """
SELECT active, coalesce(wal_status, ''), restart_lsn - '0/0', pg_current_wal_lsn() - confirmed_flush_lsn,
       pg_current_wal_lsn() - restart_lsn
FROM pg_replication_slots WHERE slot_name = %s AND database = current_database()
"""
CUT_OFF = "its first snapshot was cut off and has begun anew: rows that were deleted in between may be left"


@dataclass(frozen=True)
class Health:
    """How a source's capture is.

    Attributes:
        source: The source's name.
        tables: Its captured tables.
        state: Its connector's state: ``RUNNING``, ``FAILED``, ``PAUSED``, ``STOPPED``, ``MISSING``, ….
        reason: Why it failed, or is not to be relied on yet; or an empty string.
        active: Whether something reads its slot.
        lag: Bytes of the log that are not captured yet; None when it has no slot, or the database does not answer.
        retained: Bytes of the log that the database keeps for the slot; None likewise.
        unreachable: Why the database does not answer, or an empty string.
        lost: What of its changes is missed for ever, or an empty string.
        cut_off: Whether its first snapshot was cut off and has begun anew: what was deleted in between has no event.
        skipped: Tables that were to be read whole beside the changes, and were not, as the database failed meanwhile.
    """

    source: str
    tables: tuple[str, ...]
    state: str
    reason: str
    active: bool
    lag: int | None
    retained: int | None
    unreachable: str
    lost: str
    cut_off: bool = False
    skipped: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it captures, and nothing is missing."""
        return self.state == "RUNNING" and not (self.lost or self.unreachable or self.cut_off or self.skipped)

    @property
    def remedy(self) -> str:
        """What helps; an empty string when it is well."""
        if self.lost:
            return f"Read everything again: `freshdata cdc recover {self.source}`."
        if self.unreachable:
            return "Start the database; the capture continues by itself."
        if self.cut_off or self.skipped:
            everything = f"recover {self.source}"
            command = everything if self.cut_off else f"snapshot {' '.join(self.skipped)} --source {self.source}"
            return f"The platform soon reads that again by itself; at once: `freshdata cdc {command}`."
        if self.state == "FAILED":
            return f"See to the reason; then `freshdata cdc restart {self.source}`."
        if self.state == "MISSING":
            return "Run `freshdata cdc add` for it again."
        return "" if self.ok else f"Start it again: `freshdata cdc restart {self.source}`."


def read_health(api: Connect, source: Source) -> Health:
    """Look at a source's slot and connector.

    Raises:
        ServiceError: Kafka Connect does not answer.
    """
    slot: Any = None
    unreachable = ""
    try:
        with connect(source) as connection, connection.cursor() as cursor:
            cursor.execute(SLOT, (source.slot,))
            slot = cursor.fetchone()
    except CaptureError as error:
        unreachable = "; ".join(error.reasons)
    # After the slot: the slot is moved to what is stored, never before it.
    stored = api.stored_lsn(source.name)
    state, reason = api.state(source.name)
    lost = "" if unreachable else _lost(source, slot, stored)
    if cut_off := api.begun(source.name) > 1:
        reason = reason or CUT_OFF
    if skipped := tuple(table for table in api.skipped(source.name) if table in source.tables):
        reason = reason or f"{', '.join(skipped)} could not be read whole: rows of it may be missing"
    active, _, _, lag, retained = slot or (False, "", None, None, None)
    return Health(
        source=source.name,
        tables=source.tables,
        state=state,
        reason=reason,
        active=active,
        lag=None if lag is None else int(lag),
        retained=None if retained is None else int(retained),
        unreachable=unreachable,
        lost=lost,
        cut_off=cut_off,
        skipped=skipped,
    )


def _lost(source: Source, slot: Any, stored: int | None) -> str:
    if stored is None:
        return ""  # It has not begun: the first snapshot has everything.
    at = f"{stored >> 32:X}/{stored & 0xFFFFFFFF:X}"
    gone = f"the changes after {at}, up to which all is in Kafka, are not kept by the database any more"
    if slot is None:
        return f"the replication slot {source.slot} was dropped: {gone}"
    active, wal_status, begins, *_ = slot
    if wal_status == "lost":
        return f"the replication slot {source.slot} was so far behind that PostgreSQL gave it up: {gone}"
    # A slot that is made anew keeps the log from then on, and Debezium judges by that, too. Not by what is confirmed:
    # what Kafka has acknowledged is confirmed up to a second before it is stored, or never is after a kill -9.
    if not active and begins is not None and int(begins) > stored:
        return f"the replication slot {source.slot} was dropped and made anew, later than what was captured: {gone}"
    return ""
