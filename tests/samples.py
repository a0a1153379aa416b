"""Samples of streams that the project knows nothing of, odd as real ones are."""

import json
import random
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

START = datetime(2026, 3, 1, 6, tzinfo=UTC)


def rides(count: int = 1500) -> list[dict[str, Any]]:
    """Camel case, a name that SQL reserves, money as number and as text, nested values, a field that is always null."""
    chance = random.Random(3)  # noqa: S311 - a seeded test
    found = []
    for number in range(count):
        at = START + timedelta(seconds=number * 100 - chance.choice([0] * 20 + [4000]))
        found.append(
            {
                "rideId": str(uuid.UUID(int=chance.getrandbits(128))),
                "city": chance.choice(["Lyon", "Turin", "Gent", "Basel"]),
                "startedAt": at.isoformat(),
                "status": chance.choice(["done", "done", "cancelled", "no_show"]),
                "distanceKm": round(chance.uniform(0.5, 30), 3),
                "fare": round(chance.uniform(4, 80), 2),
                "tip": chance.choice(["0.00", "1.50", "12"]),
                "seats": chance.randint(1, 4),
                "shared": chance.random() < 0.2,
                "from": f"stop {chance.randint(1, 50)}",
                "promo": "WELCOME" if chance.random() < 0.5 else None,
                "zip": f"0{chance.randint(1000, 9999)}",
                "rider": {"email": f"a{number}@example.org", "rating": 4.5, "home": {"lat": 0.5, "a b": "x'y"}},
                "stops": [{"n": stop} for stop in range(chance.randint(0, 2))],
                "odd": chance.choice([1, "one", True]),
                "nothing": None,
            }
        )
    return found


def orders(count: int = 600) -> list[dict[str, Any]]:
    """Versions of orders, some sent twice; a tenant that is a number; an ``event_date`` that is none."""
    chance = random.Random(4)  # noqa: S311 - a seeded test
    found = []
    for number in range(count):
        at = START + timedelta(minutes=number)
        order = {
            "order_id": number // 3,
            "account_id": 1 + number // 3 % 5,
            "updated_at": at.isoformat().replace("+00:00", "Z"),
            "state": ("placed", "paid", "sent")[number % 3],
            "total": f"{chance.uniform(1, 900):.2f}",
            "event_date": "soon",
            "ordered_on": at.date().isoformat(),
        }
        found += [order] * (2 if number % 50 == 0 else 1)
    return found


def readings(count: int = 400) -> list[dict[str, Any]]:
    """Measurements: a hash as key, a zone that is not UTC, gaps, whole numbers that sometimes have a fraction."""
    chance = random.Random(5)  # noqa: S311 - a seeded test
    found = []
    for number in range(count):
        at = (START + timedelta(minutes=number * 15)).isoformat().replace("+00:00", "") + "+02:00"
        found.append(
            {
                "@key": f"{chance.getrandbits(64):016x}",
                "Sensor Name": f"S-{number % 3}",
                "time": at,
                "°C": chance.choice([20, 20.5, 21]),
                "ok": chance.random() < 0.9,
            }
            | ({"note": "checked"} if number % 7 == 0 else {})
        )
    return found


def write(path: Path, events: list[dict[str, Any]], *broken: str) -> Path:
    """A file of JSON Lines."""
    path.write_text("\n".join([*(json.dumps(event) for event in events), *broken]) + "\n")
    return path
