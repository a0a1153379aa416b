"""What a seed's producer sends: an endless disorderly stream, and the ledger of what must be stored of it."""

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from tests.streams import BROKEN, START, flight_event

SHARE_LATE, SHARE_REPEATED, SHARE_BROKEN = 0.03, 0.08, 0.04
RECENT = 400
# So short that even a long run stays inside the dedupe window of fourteen days.
SPACING = timedelta(seconds=5)
DATES = ("flight_date",)
TIMES = ("event_time", "scheduled_departure")


@dataclass(frozen=True)
class Record:
    """A Kafka record: key, value, timestamp."""

    key: bytes | None
    value: bytes | None
    at: datetime


@dataclass
class Traffic:
    """Makes the records of a seed one after the other: the n-th is always the same.

    Attributes:
        seed: The seed.
        sent: Number of records made.
        valid: Key to the event under that key which was made first: the one that must be stored.
        broken: Key and value of each record that breaks the contract, and how often it was made.
    """

    seed: int
    sent: int = 0
    valid: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: Counter[tuple[bytes | None, bytes | None]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)  # noqa: S311 - a seeded test
        self._number = 0
        self._held: list[tuple[int, dict[str, Any]]] = []
        self._recent: list[dict[str, Any]] = []

    def take(self, count: int) -> list[Record]:
        """The next records, at least ``count``."""
        records: list[Record] = []
        while len(records) < count:
            records += self._next()
        self.sent += len(records)
        return records

    def rest(self) -> list[Record]:
        """The events that are still held back."""
        records = [self._event(event) for _, event in self._held]
        self._held = []
        self.sent += len(records)
        return records

    @property
    def _now(self) -> datetime:
        return START + self._number * SPACING

    def _next(self) -> list[Record]:
        chance = self._chance
        event = self._flight(f"UA-{self._number:06d}-dep")
        records = []
        if chance.random() < SHARE_LATE:
            # The allowed lateness is 4320 events: the longest held come behind the watermark.
            self._held.append((self._number + chance.choice((50, 500, 5000)), event))
        else:
            records.append(self._event(event))
        if self._recent and chance.random() < SHARE_REPEATED:
            # As the producer sent it, or with another content: the first one counts.
            repeated = chance.choice(self._recent)
            records.append(self._event(chance.choice((repeated, repeated | {"dep_delay": 301}))))
        if chance.random() < SHARE_BROKEN:
            records.append(self._broken())
        self._number += 1
        records += [self._event(event) for due, event in self._held if due <= self._number]
        self._held = [(due, event) for due, event in self._held if due > self._number]
        return records

    def _flight(self, key: str) -> dict[str, Any]:
        times = {
            "event_time": self._now.isoformat(),
            "scheduled_departure": (self._now - timedelta(minutes=5)).isoformat(),
            "flight_date": self._now.date().isoformat(),
        }
        chance = self._chance
        kind = chance.choices(("departed", "arrived", "cancelled"), (6, 3, 1))[0]
        happened = {
            "event_type": kind,
            # Two events in a row of a carrier are one flight's.
            "flight": self._number // 6 % 9000 + 1,
            "dep_delay": chance.randint(-20, 300) if kind == "departed" else None,
            "arr_delay": chance.randint(-40, 300) if kind == "arrived" and chance.random() < 0.9 else None,
            "dest": chance.choice(("ORD", "IAH", "SFO")),
        }
        return flight_event(self._number, event_id=key, **happened, **times)

    def _event(self, event: dict[str, Any]) -> Record:
        if event["event_id"] not in self.valid:
            self.valid[event["event_id"]] = event
            self._recent = [*self._recent[-RECENT:], event]
        return Record(event["event_id"].encode(), json.dumps(event).encode(), self._now)

    def _broken(self) -> Record:
        chance, number = self._chance, self._number
        event = self._flight(f"XX-{number:06d}-dep")
        future = (self._now + timedelta(days=400)).isoformat()
        key: bytes | None = event["event_id"].encode()
        values: list[Any] = [
            event | {"flight": "x"},
            event | {"flight": 0},
            event | {"origin": "ewr"},
            event | {"event_time": future},
            event | {"no_such_field": number},
            {name: event[name] for name in event if name != "tenant_id"},
        ]
        value = chance.choice([*(json.dumps(value).encode() for value in values), *BROKEN, b"[" * 5000])
        if chance.random() < 0.1:
            # A good event under no key, or under another's.
            key, value = chance.choice((None, b"another-key")), json.dumps(event).encode()
        self.broken[key, value] += 1
        return Record(key, value, self._now)


def stored_form(event: dict[str, Any], columns: list[str]) -> dict[str, Any]:
    """An event as a Bronze row has it: its dates and times as such, what it lacks as None."""
    row = {name: event.get(name) for name in columns}
    row |= {name: datetime.fromisoformat(event[name]) for name in TIMES}
    return row | {name: date.fromisoformat(event[name]) for name in DATES}
