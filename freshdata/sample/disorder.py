"""What real producers do to a stream: hold events back, send them twice, and send what nobody can read.

Everything is added to the true events: a broken message is a damaged copy under a key of its own, never in the place
of the event it was copied from. So the right answers stay the source's, whatever the disorder.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from freshdata.contracts import Column, Contract

SECOND = pa.timestamp("s", "UTC")
MESSAGE_SCHEMA = pa.schema(
    [
        ("stream", pa.string()),
        ("topic", pa.string()),
        ("key", pa.binary()),
        ("payload", pa.binary()),
        ("kind", pa.string()),  # real | duplicate | malformed | contract
        ("expected", pa.string()),  # accepted | duplicate | rejected
        ("late_by_seconds", pa.int64()),
        ("event_date", pa.date32()),
        ("sent_at", SECOND),
    ]
)
LATE, OUT_OF_ORDER, DUPLICATE = 0.01, 0.03, 0.01
BROKEN = {"truncated": 0.001, "trailing": 0.001, "not_utf8": 0.001, "empty": 0.001, "contract": 0.005}
LONGEST_HOLD = timedelta(hours=72)
# Together with the longest hold well within the contracts' dedupe window of 14 days: every repeat must be recognizable.
LONGEST_REPEAT = timedelta(hours=48)

Damage = Callable[[dict[str, Any], datetime], None]


def add_disorder(messages: pa.Table, contract: Contract, *, seed: tuple[int, ...], limit: datetime) -> pa.Table:
    """Disturb a stream's true messages.

    Args:
        messages: True messages (``MESSAGE_SCHEMA``).
        contract: The stream's contract: says what breaks it, and how late is late.
        seed: Equal seeds make equal disorder.
        limit: Nothing is sent later than this.

    Returns:
        The same true messages, some with a later ``sent_at``, followed by the added ones.
    """
    if not len(messages):
        return messages
    rng = np.random.default_rng(seed)
    held = _hold_back(messages, rng, contract.rules.allowed_lateness, limit)
    return pa.concat_tables([held, _repeats(held, rng, limit), _broken(held, rng, contract, limit)])


def damages(contract: Contract) -> list[Damage]:
    """All the ways to break a contract with one change to a valid event."""
    rules = contract.rules
    ways: list[Damage] = [way for column in contract.columns for way in _column_damages(column, rules.dedupe_key[0])]

    def from_the_future(event: dict[str, Any], sent_at: datetime) -> None:
        ahead = sent_at + rules.max_future + timedelta(days=30)
        event[rules.event_time_field] = ahead.strftime("%Y-%m-%dT%H:%M:%SZ")

    ways.append(from_the_future)
    if rules.unknown_fields == "quarantine":
        ways.append(_put("surprise", 1))
    return ways


def _column_damages(column: Column, key: str) -> list[Damage]:
    text = pa.types.is_string(column.type)
    ways = [_put(column.name, 12345 if text else "not a value")]
    if column.required and column.name != key:
        ways.append(lambda event, _: event.pop(column.name))
    if column.enum or "pattern" in column.limits:
        ways.append(_put(column.name, "?!"))
    ways += [_put(column.name, column.limits[low] - 1) for low in ("ge", "gt") if low in column.limits]
    ways += [_put(column.name, column.limits[high] + 1) for high in ("le", "lt") if high in column.limits]
    return ways


def _put(name: str, value: Any) -> Damage:
    def damage(event: dict[str, Any], _sent_at: datetime) -> None:
        event[name] = value

    return damage


def _hold_back(messages: pa.Table, rng: np.random.Generator, lateness: timedelta, limit: datetime) -> pa.Table:
    count = len(messages)
    sent = _seconds(messages)
    lot = rng.random(count)
    minutes = rng.integers(60, 3600, count)
    hours = rng.integers(int(lateness.total_seconds()) + 1800, int(LONGEST_HOLD.total_seconds()), count)
    hold = np.where(lot < LATE, hours, np.where(lot < LATE + OUT_OF_ORDER, minutes, 0))
    hold = np.where(sent + hold <= _second(limit), hold, 0)
    messages = _replace(messages, "late_by_seconds", pa.array(hold, pa.int64()))
    return _replace(messages, "sent_at", pa.array(sent + hold, pa.int64()).cast(SECOND))


def _repeats(messages: pa.Table, rng: np.random.Generator, limit: datetime) -> pa.Table:
    again = _seconds(messages) + rng.integers(1, int(LONGEST_REPEAT.total_seconds()), len(messages))
    chosen = np.flatnonzero((rng.random(len(messages)) < DUPLICATE) & (again <= _second(limit)))
    repeats = _replace(messages.take(chosen), "sent_at", pa.array(again[chosen], pa.int64()).cast(SECOND))
    return _labelled(repeats, "duplicate", "duplicate")


def _broken(messages: pa.Table, rng: np.random.Generator, contract: Contract, limit: datetime) -> pa.Table:
    """Damaged copies, each sent shortly after the event it is a copy of."""
    ways = damages(contract)
    later = _seconds(messages) + rng.integers(1, 600, len(messages))
    parts = [messages.slice(0, 0)]
    for kind, share in BROKEN.items():
        chosen = np.flatnonzero((rng.random(len(messages)) < share) & (later <= _second(limit)))
        copies = _replace(messages.take(chosen), "sent_at", pa.array(later[chosen], pa.int64()).cast(SECOND))
        keys, payloads = [], []
        rows = zip(*(copies[name].to_pylist() for name in ("key", "payload", "sent_at")), strict=True)
        for number, (key, payload, sent_at) in enumerate(rows):
            new_key = key + f"~{kind[0]}{number}".encode()
            if kind == "contract":
                event = msgspec.json.decode(payload) | {contract.rules.dedupe_key[0]: new_key.decode()}
                ways[int(rng.integers(len(ways)))](event, sent_at)
                damaged = msgspec.json.encode(event)
            else:
                damaged = _unreadable(kind, payload, rng)
            keys.append(new_key)
            payloads.append(damaged)
        copies = _replace(
            _replace(copies, "key", pa.array(keys, pa.binary())), "payload", pa.array(payloads, pa.binary())
        )
        parts.append(_labelled(copies, "contract" if kind == "contract" else "malformed", "rejected"))
    return pa.concat_tables(parts)


def _unreadable(kind: str, payload: bytes, rng: np.random.Generator) -> bytes:
    if kind == "truncated":
        return payload[: int(rng.integers(1, len(payload)))]
    if kind == "trailing":
        return payload + b"}"
    return payload.replace(b':"', b':"\xff\xfe', 1) if kind == "not_utf8" else b""


def _labelled(messages: pa.Table, kind: str, expected: str) -> pa.Table:
    count = len(messages)
    messages = _replace(messages, "kind", pa.repeat(kind, count))
    messages = _replace(messages, "late_by_seconds", pa.repeat(pa.scalar(0, pa.int64()), count))
    return _replace(messages, "expected", pa.repeat(expected, count))


def _replace(messages: pa.Table, name: str, values: pa.Array) -> pa.Table:
    place = messages.schema.get_field_index(name)
    return messages.set_column(place, messages.schema.field(place), values)


def _seconds(messages: pa.Table) -> Any:
    return pc.cast(messages["sent_at"], pa.int64()).to_numpy()


def _second(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp())
