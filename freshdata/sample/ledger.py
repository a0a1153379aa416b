"""The ledger: one row for each message the sample's producer has sent, and where in Kafka it is."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

LEDGER_SCHEMA = pa.schema(
    [
        ("seq", pa.int64()),  # Position in the plan; also in the record's header `seq`.
        ("stream", pa.string()),
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("key", pa.binary()),
        ("payload_hash", pa.string()),  # xxh3_128 of the value's bytes, hexadecimal.
        ("kind", pa.string()),  # real | duplicate | malformed | contract
        ("expected", pa.string()),  # accepted | duplicate | rejected
        ("late_by_seconds", pa.int64()),  # How long a real event was held back.
        ("event_date", pa.date32()),
        ("sent_at", pa.timestamp("s", "UTC")),  # The record's timestamp.
    ]
)


class Ledger:
    """The ledger of one instance: a folder of Parquet files, each a week of the plan, replaced as a whole.

    Attributes:
        folder: The folder.
    """

    def __init__(self, home: Path) -> None:
        self.folder = home / "ledger"

    def read(self) -> pa.Table:
        """All messages sent (``LEDGER_SCHEMA``), in sending order."""
        parts = [_read(path) for path in sorted(self.folder.glob("part-*.parquet"))]
        return pa.concat_tables([LEDGER_SCHEMA.empty_table(), *parts])

    def part(self, number: int) -> pa.Table:
        """The messages of one week that have been sent."""
        path = self._path(number)
        return _read(path) if path.is_file() else LEDGER_SCHEMA.empty_table()

    def add(self, number: int, sent: pa.Table) -> None:
        """Add messages to a week, durably."""
        self.folder.mkdir(parents=True, exist_ok=True)
        table = pa.concat_tables([self.part(number), sent]).sort_by("seq").combine_chunks()
        replacement = self.folder / "replacement.tmp"
        with replacement.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        replacement.replace(self._path(number))

    def next_offsets(self) -> dict[tuple[str, int], int]:
        """For each topic and partition, the offset after the last message the ledger has."""
        columns = ["topic", "partition", "offset"]
        found = self.read().select(columns).group_by(columns[:2]).aggregate([("offset", "max")])
        rows = zip(*(found[name].to_pylist() for name in ("topic", "partition", "offset_max")), strict=True)
        return {(topic, partition): offset + 1 for topic, partition, offset in rows}

    def last_part(self) -> int:
        """Number of the newest week, or 0."""
        return max((int(path.stem.removeprefix("part-")) for path in self.folder.glob("part-*.parquet")), default=0)

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06}.parquet"


def counts(ledger: pa.Table) -> dict[str, dict[str, int]]:
    """Messages by stream and kind."""
    found = ledger.group_by(["stream", "kind"]).aggregate([([], "count_all")])
    result: dict[str, dict[str, int]] = {}
    for row in sorted(found.to_pylist(), key=lambda row: (row["stream"], row["kind"])):
        result.setdefault(row["stream"], {})[row["kind"]] = row["count_all"]
    return result


def last_sent(ledger: pa.Table) -> pa.Scalar:
    """The newest record timestamp."""
    return pc.max(ledger["sent_at"])


def _read(path: Path) -> pa.Table:
    return pq.read_table(path).cast(LEDGER_SCHEMA)  # Parquet has no seconds: they come back as milliseconds.
