"""Read a stream's rejected events: all of them without their bytes, and those that are chosen with them."""

import functools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import And, GreaterThanOrEqual, In, LessThanOrEqual
from pyiceberg.table import Table

from freshdata.contracts import Contract
from freshdata.errors import QuarantineError
from freshdata.lake.catalog import QUARANTINE_SCHEMA
from freshdata.privacy import Secret
from freshdata.quarantine.problems import problem_column
from freshdata.quarantine.records import IDENTITY, read_replays

# Events whose bytes are read at once.
CHUNK = 5000
PLACE = re.compile(r"(\d{1,9}):(\d{1,18})")
MOST_EXAMPLES = 5


@dataclass(frozen=True)
class Place:
    """Where a record is in its topic; written ``PARTITION:OFFSET``.

    Attributes:
        partition: Kafka partition.
        offset: Offset in it.
    """

    partition: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read ``PARTITION:OFFSET``; None when it is something else."""
        found = PLACE.fullmatch(text.strip())
        return cls(int(found[1]), int(found[2])) if found else None

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


@dataclass(frozen=True)
class Replayed:
    """That a rejected event was sent again; of several times, the last one.

    Attributes:
        at: When.
        place: Where Kafka has put it.
        corrected: Whether its payload was another one then.
    """

    at: datetime
    place: Place
    corrected: bool


@dataclass(frozen=True)
class RejectedEvent:
    """An event that broke its contract, as it came.

    Attributes:
        place: Where it was in the topic. Offsets begin anew when a topic is re-created, so only together with
            ``ingested_at`` this names one event.
        ingested_at: Timestamp of its Kafka record.
        key: Message key.
        payload: Message value.
        reason: Why it was refused.
        contract_version: Version of the contract that refused it.
        replayed: When it was sent again, or None.
    """

    place: Place
    ingested_at: datetime
    key: bytes | None
    payload: bytes | None
    reason: str
    contract_version: str
    replayed: Replayed | None = None


@dataclass(frozen=True)
class Problem:
    """A stream's events that were refused for the same mistake in the same field.

    Attributes:
        stream: The stream.
        reason: The mistake, without the events' values.
        events: Number of events.
        waiting: How many of them were not sent again yet.
        first: Record timestamp of the first one.
        newest: Record timestamp of the newest one.
        example: Where the newest one is.
    """

    stream: str
    reason: str
    events: int
    waiting: int
    first: datetime
    newest: datetime
    example: Place


class Quarantine:
    """The rejected events of one stream, as they are when they are first asked for.

    Args:
        catalog: The catalog.
        contract: The stream's contract.
        secret: Opens the events of a stream with personal data; without it they stay sealed.
    """

    def __init__(self, catalog: Catalog, contract: Contract, secret: Secret | None = None) -> None:
        self.stream = contract.name
        self._secret = secret
        self._replays = functools.partial(read_replays, catalog, contract)
        try:
            self.table: Table | None = catalog.load_table(contract.quarantine_table)
        except NoSuchTableError:
            self.table = None  # Its worker has not started yet.

    @functools.cached_property
    def index(self) -> pa.Table:
        """All events in the order they came, without their bytes: what names them, why, and when they were sent again.

        The columns ``partition``, ``offset``, ``ingested_at``, ``reason`` and ``problem``; ``replayed_at``,
        ``to_partition``, ``to_offset`` and ``corrected`` are null for what was not sent again.
        """
        columns = (*IDENTITY, "reason")
        if self.table is None:
            found = QUARANTINE_SCHEMA.empty_table().select(columns)
        else:
            found = self.table.scan(selected_fields=columns).to_arrow().select(columns)
        found = found.append_column("problem", problem_column(found["reason"]))
        found = found.join(self._replays(), list(IDENTITY), join_type="left outer")
        return found.sort_by([(name, "ascending") for name in ("ingested_at", "partition", "offset")])

    def problems(self) -> list[Problem]:
        """The events by what is wrong with them, the most frequent first."""
        wanted = [("offset", "count"), ("replayed_at", "count"), ("ingested_at", "min"), ("ingested_at", "max")]
        last = [("partition", "last"), ("offset", "last")]
        groups = self.index.group_by("problem", use_threads=False).aggregate(wanted + last).to_pylist()
        found = [
            Problem(
                stream=self.stream,
                reason=group["problem"],
                events=group["offset_count"],
                waiting=group["offset_count"] - group["replayed_at_count"],
                first=group["ingested_at_min"],
                newest=group["ingested_at_max"],
                example=Place(group["partition_last"], group["offset_last"]),
            )
            for group in groups
        ]
        return sorted(found, key=lambda problem: (-problem.events, problem.reason))

    def select(self, places: Collection[Place] = (), reason: str | None = None) -> pa.Table:
        """Rows of the index, in its order.

        Args:
            places: Only the events at these places; all when empty.
            reason: Only events whose reason, or problem, contains this text, in upper or lower case.

        Raises:
            QuarantineError: there is no event at one of the places, or of that reason.
        """
        found = self.index
        if places:
            wanted = pa.table(
                {
                    "partition": pa.array([place.partition for place in places], pa.int32()),
                    "offset": pa.array([place.offset for place in places], pa.int64()),
                }
            )
            found = found.join(wanted, ["partition", "offset"], join_type="left semi")
            found = found.sort_by([(name, "ascending") for name in ("ingested_at", "partition", "offset")])
            there = set(zip(found["partition"].to_pylist(), found["offset"].to_pylist(), strict=True))
            self.refuse_unknown([place for place in places if (place.partition, place.offset) not in there])
        if reason is not None:
            texts = (found["reason"], found["problem"])
            contains = [pc.match_substring(text, reason, ignore_case=True) for text in texts]
            found = found.filter(pc.or_(*contains))
            if not found.num_rows:
                raise QuarantineError(
                    self.stream,
                    f"no {'such event' if places else 'event'} was refused for a reason with {reason!r} in it.",
                    remedy=f"`freshdata quarantine list {self.stream}` names the reasons.",
                )
        return found

    def refuse_unknown(self, places: Collection[Place]) -> None:
        """Raise an error that names places at which there is no rejected event, if there are any.

        Raises:
            QuarantineError: there are.
        """
        if not places:
            return
        first = ", ".join(map(str, list(places)[:MOST_EXAMPLES]))
        more = f" and {len(places) - MOST_EXAMPLES} other places" if len(places) > MOST_EXAMPLES else ""
        raise QuarantineError(
            self.stream,
            f"no rejected event is at {first}{more}.",
            remedy=f"`freshdata quarantine show {self.stream}` lists what there is.",
        )

    def events(self, chosen: pa.Table) -> Iterator[RejectedEvent]:
        """The events of some rows of the index, in the rows' order; see :func:`read_events`."""
        found = read_events(self.table, chosen) if self.table is not None else iter(())
        if self._secret is None:
            return found
        opened = self._secret.opened
        return (replace(each, key=opened(each.key), payload=opened(each.payload)) for each in found)


def read_events(table: Table, chosen: pa.Table) -> Iterator[RejectedEvent]:
    """Read chosen events with their bytes.

    Args:
        table: A quarantine table.
        chosen: Rows with the columns that name them, of its current snapshot; and with those that say when they were
            sent again, where that is wanted.

    Yields:
        An event for each row, in the rows' order.
    """
    for start in range(0, chosen.num_rows, CHUNK):
        rows = chosen.slice(start, CHUNK).to_pylist()
        times = [row["ingested_at"] for row in rows]
        # The times leave out most files by their statistics; then the offsets leave out rows.
        first, last = min(times).isoformat(), max(times).isoformat()
        condition = And(
            GreaterThanOrEqual("ingested_at", first),  # type: ignore[call-arg]  # Its types are pydantic's.
            LessThanOrEqual("ingested_at", last),  # type: ignore[call-arg]  # As above.
            In("offset", {row["offset"] for row in rows}),  # type: ignore[call-arg]  # As above.
        )
        found = {_name(row): row for row in table.scan(condition).to_arrow().to_pylist()}
        for row in rows:
            yield _event(found[_name(row)], row)


def _name(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in IDENTITY)


def _event(row: dict[str, Any], chosen: dict[str, Any]) -> RejectedEvent:
    again = chosen.get("replayed_at")
    return RejectedEvent(
        place=Place(row["partition"], row["offset"]),
        ingested_at=row["ingested_at"],
        key=row["key"],
        payload=row["payload"],
        reason=row["reason"],
        contract_version=row["contract_version"],
        replayed=Replayed(again, Place(chosen["to_partition"], chosen["to_offset"]), chosen["corrected"])
        if again
        else None,
    )
