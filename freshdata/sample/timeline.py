"""The sample's messages in the order they are sent, cut into weeks that can each be made again alone.

Making a week again gives the same messages to the last byte: a producer that was killed finds out from Kafka which of
them it had sent, and continues with the others.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from freshdata.contracts import Contract
from freshdata.sample import flights, weather
from freshdata.sample.disorder import MESSAGE_SCHEMA, add_disorder
from freshdata.sample.source import YEAR, month_days

WEEK = timedelta(days=7)
LOOP = timedelta(weeks=52)
SEQUENCE_STEP = 1_000_000  # More than a week's messages.


@dataclass(frozen=True)
class Plan:
    """Which messages are sent. Equal plans make equal messages.

    Attributes:
        first: First day of data.
        end: First day after it, or None when the sample is repeated for ever.
        shift_weeks: Weeks that the sample is moved into the future.
        disorder: Whether duplicates, late and broken messages are added.
        seed: Seed of the disorder.
    """

    first: date
    end: date | None
    shift_weeks: int
    disorder: bool
    seed: int

    def to_json(self) -> bytes:
        """The form kept beside the ledger."""
        return msgspec.json.encode(asdict(self))

    @classmethod
    def from_json(cls, content: bytes) -> "Plan":
        """Read what :meth:`to_json` wrote."""
        return msgspec.json.decode(content, type=cls)


def historical_plan(months: int, *, disorder: bool, seed: int) -> Plan:
    """The first months of 2013, as they were."""
    first, end = month_days(months)
    return Plan(first, end, 0, disorder, seed)


def live_plan(now: datetime, history_days: int, *, disorder: bool, seed: int) -> Plan:
    """The sample moved by whole weeks, so that weekdays stay and its present is ``now``, at the same season."""
    season = date(YEAR, now.month, min(now.day, 28))
    weeks = round((now.date().replace(day=season.day) - season) / WEEK)
    return Plan(now.date() - timedelta(days=history_days), None, weeks, disorder, seed)


class Timeline:
    """The messages of a plan.

    Attributes:
        plan: The plan.
    """

    def __init__(self, contracts: dict[str, Contract], plan: Plan) -> None:
        self.plan = plan
        self._streams = [
            _Stream(contracts[flights.STREAM], flights.flight_events(), _flight_id),
            _Stream(contracts[weather.STREAM], weather.weather_events(), _observation_id),
        ]
        if plan.end is None:
            # 52 weeks of the 365 days: with the last day each repetition would have one date twice.
            self._streams = [stream.dated(date(YEAR, 1, 1), date(YEAR, 12, 31)) for stream in self._streams]
        else:
            self._streams = [stream.dated(plan.first, plan.end) for stream in self._streams]

    @property
    def contracts(self) -> list[Contract]:
        """Contracts of the sample's streams."""
        return [stream.contract for stream in self._streams]

    @property
    def real_events(self) -> int:
        """How many true events the sample (one repetition of it) has."""
        return sum(len(stream.events) for stream in self._streams)

    def chunk(self, number: int) -> pa.Table | None:
        """One week's messages, in sending order.

        Args:
            number: Weeks since the plan's first day.

        Returns:
            ``MESSAGE_SCHEMA`` plus ``seq`` (ascending over all weeks), or None behind the plan's end.
        """
        begin = datetime.combine(self.plan.first, time(), UTC) + number * WEEK
        if self.plan.end is not None and all(begin > stream.last for stream in self._streams):
            return None
        slices = [stream.messages(self._window(stream, begin)) for stream in self._streams]
        limit = max((pc.max(part["sent_at"]).as_py() for part in slices if len(part)), default=begin)
        if self.plan.disorder:
            slices = [
                add_disorder(part, stream.contract, seed=(self.plan.seed, number, place), limit=limit)
                for place, (stream, part) in enumerate(zip(self._streams, slices, strict=True))
            ]
        merged = pa.concat_tables(slices)
        merged = merged.take(pc.sort_indices(merged["sent_at"])).combine_chunks()  # Stable.
        first = number * SEQUENCE_STEP
        return merged.append_column("seq", pa.array(range(first, first + len(merged)), pa.int64()))

    def _window(self, stream: "_Stream", begin: datetime) -> pa.Table:
        """The stream's events of the week from ``begin``, in the plan's time."""
        shift = timedelta(weeks=self.plan.shift_weeks)
        shifts = [shift] if self.plan.end else [shift + number * LOOP for number in _loops(begin, shift)]
        found = [_shifted(stream.between(begin - by, begin - by + WEEK), by) for by in shifts]
        events = pa.concat_tables(found)
        date_column = stream.contract.rules.event_date_field
        return events.filter(pc.greater_equal(events[date_column], pa.scalar(self.plan.first)))


@dataclass(frozen=True)
class _Stream:
    contract: Contract
    events: pa.Table
    make_id: Callable[[pa.Table], pa.Array]

    @property
    def last(self) -> datetime:
        last: datetime = pc.max(self.events["event_time"]).as_py()
        return last

    def dated(self, first: date, end: date) -> "_Stream":
        """Only events of days from ``first`` up to before ``end``."""
        days = self.events[self.contract.rules.event_date_field]
        inside = pc.and_(pc.greater_equal(days, pa.scalar(first)), pc.less(days, pa.scalar(end)))
        return replace(self, events=self.events.filter(inside))

    def between(self, begin: datetime, end: datetime) -> pa.Table:
        """Events that happened from ``begin`` up to before ``end``."""
        times = self.events["event_time"]
        low, high = (pa.scalar(moment, pa.timestamp("s", "UTC")) for moment in (begin, end))
        return self.events.filter(pc.and_(pc.greater_equal(times, low), pc.less(times, high)))

    def messages(self, events: pa.Table) -> pa.Table:
        """The events as true messages, known the moment they happened."""
        rules = self.contract.rules
        keys = self.make_id(events)
        texts = {rules.dedupe_key[0]: keys} | {
            column.name: _as_text(events[column.name])
            for column in self.contract.columns
            if column.name in events.column_names
        }
        count = len(events)
        return pa.table(
            {
                "stream": pa.repeat(self.contract.name, count),
                "topic": pa.repeat(rules.topic, count),
                "key": keys.cast(pa.binary()),
                "payload": pa.array(_encode(texts), pa.binary()),
                "kind": pa.repeat("real", count),
                "expected": pa.repeat("accepted", count),
                "late_by_seconds": pa.repeat(pa.scalar(0, pa.int64()), count),
                "event_date": events[rules.event_date_field],
                "sent_at": events["event_time"],
            },
            schema=MESSAGE_SCHEMA,
        )


def _loops(begin: datetime, shift: timedelta) -> range:
    """Which repetitions of the year can have events in the week from ``begin``."""
    now = (begin - shift - datetime(YEAR, 1, 1, tzinfo=UTC)) // LOOP
    return range(now - 1, now + 2)


def _shifted(events: pa.Table, by: timedelta) -> pa.Table:
    if not by:
        return events
    for place, field in enumerate(events.schema):
        if pa.types.is_timestamp(field.type):
            moved = pc.add(events.column(place), pa.scalar(by, pa.duration("s")))
        elif pa.types.is_date(field.type):
            moved = pc.add(events.column(place).cast(pa.int32()), by.days).cast(pa.int32()).cast(pa.date32())
        else:
            continue
        events = events.set_column(place, field, moved)
    return events


def _as_text(column: Any) -> Any:
    """Times and dates as JSON has them; everything else unchanged."""
    if pa.types.is_timestamp(column.type):
        return pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ")
    return pc.strftime(column, format="%Y-%m-%d") if pa.types.is_date(column.type) else column


def _encode(columns: dict[str, Any]) -> list[bytes]:
    """Compact JSON objects; a field without a value is left out."""
    encode = msgspec.json.Encoder().encode
    names = list(columns)
    rows = zip(*(column.to_pylist() for column in columns.values()), strict=True)
    return [encode({name: value for name, value in zip(names, row, strict=True) if value is not None}) for row in rows]


def _flight_id(events: pa.Table) -> Any:
    return pc.binary_join_element_wise(
        events["tenant_id"],
        events["flight"].cast(pa.string()),
        pc.strftime(events["flight_date"], format="%Y%m%d"),
        pc.utf8_lpad(events["sched_dep_time"].cast(pa.string()), 4, "0"),
        events["suffix"],
        "-",
    )


def _observation_id(events: pa.Table) -> Any:
    hour = pc.strftime(events["event_time"], format="%Y%m%dT%H%MZ")
    return pc.binary_join_element_wise(events["tenant_id"], hour, "-")
