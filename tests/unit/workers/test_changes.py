"""A change that Debezium tells again after a crash is one row, and each record of the topic is accounted for."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyarrow as pa

from freshdata.contracts import load_contracts
from freshdata.lake.catalog import ensure_stream_tables, open_catalog
from freshdata.lake.progress import read_progress
from stream_workers.batch import BEGINNING_OF_TIME, Batch, PartitionState
from stream_workers.bronze import BronzeWriter
from tests.captures import BEGIN, captured_project, change


@dataclass(frozen=True)
class Record:
    """A record of partition 0."""

    at: int
    told: bytes | None

    def key(self) -> bytes | None:
        return b'{"id": 1}'

    def value(self) -> bytes | None:
        return self.told

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return 1, int((BEGIN + timedelta(seconds=self.at)).timestamp() * 1000)


def test_what_is_told_again_is_no_second_row_also_after_a_restart(tmp_path: Path) -> None:
    settings = captured_project(tmp_path, {})
    contracts = load_contracts(settings.contracts_dir)
    told = [
        change("r", 1, 1, City="Rome"),
        change("u", 2, 1, City="Oslo"),
        change("u", 3, 1, City="Oslo"),  # Another change, of the same values.
        change("d", 4, 1),
        None,
        change("c", 4, 2),  # The other half of a change of the primary key.
        change("t", 5),
        b"{",
    ]
    again = [*told[1:7], change("c", 6, 1)]

    def consume(values: list[bytes | None], first: int, state: PartitionState | None) -> None:
        writer = BronzeWriter(open_catalog(settings), contracts["customers"], contracts, "cluster")
        batch = Batch()
        state = state or writer.restore(0)
        assert state is not None
        writer.processor([Record(first + place, value) for place, value in enumerate(values)], {0: state}, batch)
        writer.commit(batch)

    writer = BronzeWriter(open_catalog(settings), contracts["customers"], contracts, "cluster")
    consume(told, 0, PartitionState(0, BEGINNING_OF_TIME, writer.empty_index()))
    consume(again, len(told), None)
    bronze, _ = ensure_stream_tables(open_catalog(settings), contracts["customers"], contracts)
    rows = bronze.scan().to_arrow().sort_by("_offset").to_pylist()
    assert [(row["_op"], row["_lsn"], row["id"]) for row in rows] == [
        ("r", 1, 1), ("u", 2, 1), ("u", 3, 1), ("d", 4, 1), ("c", 4, 2), ("t", 5, None), ("c", 6, 1),
    ]  # fmt: skip
    progress = read_progress(bronze)
    assert progress is not None
    done = progress.total()
    assert (done.consumed, done.accepted, done.duplicates, done.rejected) == (15, 7, 7, 1)


def test_no_two_primary_keys_read_the_same(tmp_path: Path) -> None:
    settings = captured_project(tmp_path, {})
    path = settings.contracts_dir / "customers.odcs.yaml"
    path.write_text(
        path.read_text()
        .replace("{name: note,", "{name: note, primaryKey: true,")
        .replace("{name: city,", "{name: city, primaryKey: true,")
    )
    contracts = load_contracts(settings.contracts_dir)
    parts = [("a\x1fb", "c"), ("a", "b\x1fc"), ("a:1:b", "c"), ("a", "b:1:c"), (None, "c"), ("", "c")]
    rows = pa.Table.from_pylist([{"id": 1, "city": city, "note": note, "_op": "r", "_lsn": 7} for city, note in parts])
    hashes = BronzeWriter(open_catalog(settings), contracts["customers"], contracts, "cluster").processor.stored_hashes(
        rows
    )
    assert len(set(map(tuple, hashes.tolist()))) == len(parts)
