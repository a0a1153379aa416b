"""Flight events by number, whole columns at a time: the same numbers and version give the same rows."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from freshdata.contracts import load_contracts
from freshdata.lake.catalog import bronze_schema
from freshdata.settings import PROJECT

STREAM = "flight_events"
FIRST_DAY = date(2013, 1, 1)
CARRIERS = [f"{letter}{digit}" for letter in "UA" for digit in range(10)]
PLANES = 5_000
# Odd, so that different numbers stay different: ids lie all over, as random ones do.
SCATTER = np.uint64(0x9E3779B97F4A7C15)
HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
REPEATED = UPDATED = 0.025  # shares of a batch

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class News:
    """A batch of new rows.

    A share of them, :data:`REPEATED`, are an older version of another row of the batch; another, :data:`UPDATED`, a
    newer version of a row that may be there.

    Attributes:
        numbers: Numbers of the events, each once.
        updates: Which of them may be there.
        repeats: Which of them the batch holds in an older version too.
        version: Their version.
    """

    numbers: Numbers
    updates: Numbers
    repeats: Numbers
    version: int

    def rows(self, day: date, carriers: int) -> pa.Table:
        """All rows as they come in, in no order."""
        newest, older = self.winners(day, carriers), events(self.repeats, day, self.version - 1, carriers)
        order = np.random.default_rng(self.version).permutation(len(newest) + len(older))
        return pa.concat_tables([newest, older]).take(pa.array(order))

    def winners(self, day: date, carriers: int) -> pa.Table:
        """The newest version of each row."""
        return events(self.numbers, day, self.version, carriers)


def news(count: int, present: int, batch: int = 0) -> News:
    """A batch of so many rows.

    Args:
        count: Number of rows, repeats included.
        present: The numbers below this one are those of the rows that may be there.
        batch: Number of the batch; the keys of different ones differ.
    """
    repeated, updated = int(count * REPEATED), int(count * UPDATED)
    first = present + batch * count
    fresh = np.arange(first, first + count - repeated - updated)
    updates = np.arange(updated) * (present // max(updated, 1)) + batch
    return News(np.concatenate([fresh, updates]), updates, fresh[:repeated], 2 + 2 * batch)


def events(numbers: Numbers, day: date, version: int, carriers: int) -> pa.Table:
    """Rows of Bronze.

    Args:
        numbers: Their numbers.
        day: The day they belong to, and came in on.
        version: A higher one came in later.
        carriers: How many carriers they belong to.
    """
    scattered = (numbers.astype(np.uint64) + np.uint64(day.toordinal() << 32)) * SCATTER
    chance = (scattered >> np.uint64(24)).astype(np.int64)
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    micros = int(midnight.timestamp()) * 1_000_000
    came_in = midnight + timedelta(hours=20, minutes=version)
    columns: dict[str, Any] = {
        "event_id": hexadecimal(scattered),
        "event_type": picked(["departed", "arrived"], chance),
        "tenant_id": picked(CARRIERS[:carriers], numbers),
        "event_time": micros + chance % 72_000_000 * 1_000,
        "flight_date": day,
        "flight": chance % 5_000 + 1,
        "sched_dep_time": chance % 24 * 100 + chance % 60,
        "scheduled_departure": micros + chance % 86_400 * 1_000_000,
        "tailnum": picked([f"N{number:05}" for number in range(PLANES)], chance >> 8),
        "origin": picked(["EWR", "JFK", "LGA"], chance),
        "dest": picked(["ATL", "IAH", "LAX", "ORD", "SFO"], chance >> 4),
        "dep_delay": chance % 180 - 15 + version,
        "arr_delay": chance % 170 - 30 + version,
        "air_time": chance % 400 + 30,
        "distance": chance % 2_500 + 100,
        "carrier_name": picked([f"Carrier {name}" for name in CARRIERS[:carriers]], numbers),
        "_kafka_partition": numbers % 4,
        "_offset": numbers,
        "_ingested_at": came_in,
        "_late": False,
        "ingestion_date": day,
    }
    schema = bronze()
    return pa.table(
        [
            pa.repeat(pa.scalar(value, kind), len(numbers))
            if isinstance(value := columns[name], date | bool)
            else pa.array(value).cast(kind)
            for name, kind in zip(schema.names, schema.types, strict=True)
        ],
        schema=schema,
    )


@cache
def bronze() -> pa.Schema:
    """The columns of Bronze."""
    contracts = load_contracts(PROJECT / "contracts")
    return bronze_schema(contracts[STREAM], contracts)


def hexadecimal(values: npt.NDArray[np.uint64]) -> pa.Array:
    """Numbers as 16 hexadecimal digits."""
    digits = np.empty((len(values), 16), dtype=np.uint8)
    for place in range(16):
        digits[:, place] = HEX[(values >> np.uint64(60 - 4 * place)) & np.uint64(15)]
    offsets = np.arange(0, 16 * len(values) + 1, 16, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(values), [None, pa.py_buffer(offsets), pa.py_buffer(digits)])


def picked(pool: list[str], numbers: Numbers) -> pa.Array:
    """A text for each number."""
    return pa.DictionaryArray.from_arrays(pa.array(numbers % len(pool), pa.int32()), pa.array(pool))


@dataclass(frozen=True)
class Checksum:
    """What a set of rows is known by, whatever their order.

    Attributes:
        rows: Their number.
        total: The sum of their hashes.
    """

    rows: int = 0
    total: int = 0

    def __add__(self, other: "Checksum") -> "Checksum":
        return Checksum(self.rows + other.rows, self.total + other.total)

    def __sub__(self, other: "Checksum") -> "Checksum":
        return Checksum(self.rows - other.rows, self.total - other.total)


def checksum(rows: pa.Table | pa.RecordBatchReader) -> Checksum:
    """The checksum of rows: of Silver's columns, by name."""
    import duckdb

    columns = sorted(set(rows.schema.names) - {"ingestion_date"})
    query = f"SELECT count(*), sum(hash({', '.join(columns)})) FROM incoming"  # noqa: S608 - names of this file.
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.register("incoming", rows)
        (count, total), *_ = connection.sql(query).fetchall()
    return Checksum(count, int(total or 0))
