# ruff: noqa: INP001, T201 - a program, not a package.
"""Print two days of bike rides as JSON Lines: a sample that the platform knows nothing of (docs/tutorial.md)."""

import json
import random
import uuid
from datetime import UTC, datetime, timedelta

chance = random.Random(7)  # noqa: S311 - a sample
start = datetime.now(UTC).replace(microsecond=0) - timedelta(days=2)
for number in range(2000):
    # One in fifty is sent an hour late.
    ended = start + timedelta(seconds=number * 86 - (3600 if chance.random() < 0.02 else 0))
    event = {
        "rideId": str(uuid.UUID(int=chance.getrandbits(128))),
        "city": chance.choice(["Lyon", "Turin", "Gent"]),
        "endedAt": ended.isoformat(),
        "status": chance.choice(["paid", "paid", "paid", "refunded"]),
        "fare": round(chance.uniform(1, 12), 2),
        "minutes": chance.randint(2, 90),
        "electric": chance.random() < 0.4,
        "rider": {"id": chance.randint(1, 300), "email": f"rider{chance.randint(1, 300)}@example.org"},
    }
    print(json.dumps(event))
print("this line is broken")
