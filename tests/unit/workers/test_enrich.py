"""Lookup columns: which row an event gets, what counts as a miss, and how the lookups follow their tables."""

import logging
import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from pyiceberg.table import Table
from pyiceberg.types import StringType
from sqlalchemy.exc import OperationalError

from freshdata.contracts import Column, Enrichment
from freshdata.contracts.model import Validity
from freshdata.errors import LakeError
from freshdata.lake.catalog import ensure_table, open_catalog
from freshdata.lake.progress import read_progress
from stream_workers import enrich
from stream_workers.batch import BEGINNING_OF_TIME, Batch, PartitionState
from stream_workers.bronze import BronzeWriter
from stream_workers.enrich import Enricher

MOMENT = pa.timestamp("us", "UTC")
TEXT = pa.string()
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def hours(number):
    return NOON + timedelta(hours=number)


class Lake:
    """A catalog with one lookup ``prices``, and a stream whose field ``product`` is its key."""

    def __init__(self, instance, contracts, kind=TEXT, begin=None, end=None):
        types = {"product": kind, "since": begin, "until": end, "price": pa.int64()}
        columns = tuple(
            Column(name, t, name in ("product", "since"), "", (), {}, name) for name, t in types.items() if t
        )
        self.lookup = replace(
            contracts["airlines"],
            name="prices",
            columns=columns,
            primary_key=("product", "since") if begin else ("product",),
            validity=Validity("since", "until" if end else None) if begin else None,
        )
        enrichment = Enrichment("prices", "product", {"price": "unit_price"})
        stream = contracts["flight_events"]
        self.stream = replace(stream, stream=replace(stream.rules, enrichments=(enrichment,)))
        self.catalog = open_catalog(instance)
        self.enricher = Enricher(self.catalog, self.stream, {"prices": self.lookup})

    def write(self, *rows):
        """Overwrite the lookup with rows."""
        table = ensure_table(self.catalog, self.lookup.table, self.lookup.arrow_schema)
        names = self.lookup.arrow_schema.names
        wanted = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], self.lookup.arrow_schema)
        (table.overwrite if table.current_snapshot() else table.append)(wanted)

    def read(self, *rows):
        """Overwrite the lookup with rows, and read it."""
        self.write(*rows)
        self.enricher.refresh()

    def rows(self, keys, times=None):
        """The enriched rows of events."""
        key = pa.array(keys, self.lookup.arrow_schema.field("product").type)
        times = pa.array(times or [NOON] * len(keys), MOMENT)
        return self.enricher(pa.table({"product": key, "event_time": times}))

    def __call__(self, keys, times=None):
        return self.rows(keys, times)["unit_price"].to_pylist()


@pytest.fixture
def lake(instance, contracts):
    return Lake(instance, contracts)


def test_a_key_without_a_match_gets_null_and_is_counted(lake):
    lake.read(("a", 1), ("b", None))
    rows = lake.rows(["a", "b", "c", None, "c", "d"])
    assert rows["product"].to_pylist() == ["a", "b", "c", None, "c", "d"]
    assert rows["unit_price"].to_pylist() == [1, None, None, None, None, None]
    lake.enricher.refresh()
    # The second "c" was a duplicate: it is not in Bronze. "b" has a row, no key asks for none.
    admitted = np.array([True, True, True, True, False, True])
    assert lake.enricher.misses([rows], [admitted]) == {("prices", "product"): 2}
    assert lake.enricher.misses([rows, rows], [admitted, ~admitted]) == {("prices", "product"): 3}
    assert lake.enricher.misses([], []) == {("prices", "product"): 0}


def test_misses_are_those_of_the_lookup_that_the_batch_has_seen(lake):
    lake.read(("a", 1))
    rows = lake.rows(["a", "b"])
    lake.read(("b", 2))
    assert lake.enricher.misses([rows], [np.ones(2, bool)]) == {("prices", "product"): 1}


VALUES = {
    TEXT: lambda n: f"Ä{n}",
    pa.int32(): lambda n: n - 50,
    pa.int64(): lambda n: 2**40 + n,
    pa.date32(): lambda n: date(2026, 1, 1) + timedelta(days=n),
    MOMENT: hours,
    pa.bool_(): lambda n: n % 2 == 0,
}


@pytest.mark.parametrize("kind", VALUES, ids=str)
@pytest.mark.parametrize("hashed_each_time", [10**6, 1])
def test_keys_of_every_type_are_found_in_small_and_large_lookups(
    instance, contracts, monkeypatch, kind, hashed_each_time
):
    monkeypatch.setattr(enrich, "HASHED_EACH_TIME", hashed_each_time)
    lake = Lake(instance, contracts, kind=kind)
    value = VALUES[kind]
    stored = {value(number): number for number in range(100)}
    lake.read(*stored.items())
    asked = [value(number) for number in (99, 5, 100, 5, 0, 250)] + [None]
    assert lake(asked) == [stored.get(key) for key in asked]
    assert lake([]) == []


def test_an_event_gets_the_row_that_was_valid_at_its_event_time(instance, contracts):
    lake = Lake(instance, contracts, begin=MOMENT, end=MOMENT)
    lake.read(("a", hours(0), hours(2), 1), ("a", hours(4), None, 2), ("b", hours(1), hours(3), 3))
    keys = ["a"] * 7 + ["b", "b", "b", "c", None]
    times = [hours(-1), hours(0), hours(1.99), hours(2), hours(3.99), hours(4), hours(99)]
    times += [hours(0.5), hours(1), hours(3), hours(1), hours(1)]
    assert lake(keys, times) == [None, 1, 1, None, None, 2, 2, None, 3, None, None, None]
    lake.enricher.refresh()
    rows = lake.rows(keys, times)
    lake.enricher.refresh()
    assert lake.enricher.misses([rows], [np.ones(12, bool)]) == {("prices", "product"): 6}


def test_a_row_without_an_end_is_valid_until_the_next_begins(instance, contracts):
    lake = Lake(instance, contracts, kind=pa.int32(), begin=pa.date32())
    lake.read((7, date(2026, 3, 1), 1), (7, date(2026, 3, 2), 2))
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    assert lake([7, 7, 7], [midnight - timedelta(microseconds=1), midnight, datetime(2026, 2, 28, tzinfo=UTC)]) == [
        1,
        2,
        None,
    ]


def test_rows_that_overlap_have_one_outcome_however_they_lie_in_the_table(instance, contracts, caplog):
    lake = Lake(instance, contracts, begin=MOMENT, end=MOMENT)
    rows = [
        ("a", hours(0), None, 1),  # Ends where the next one begins.
        ("a", hours(2), hours(3), 5),  # Of those that begin at once the one that ends last counts,
        ("a", hours(2), hours(4), 2),
        ("a", hours(2), hours(4), 3),  # and then the greatest.
        ("a", hours(3), hours(3), 9),  # Never valid.
    ]
    for _ in range(3):
        random.Random(len(caplog.records)).shuffle(rows)  # noqa: S311 - a seeded test
        lake.read(*rows)
        assert lake(["a"] * 5, [hours(1), hours(2), hours(3), hours(3.9), hours(4)]) == [1, 3, 3, 3, None]
    assert "has several rows for one key: 2 are left out" in caplog.text


def test_of_several_rows_for_one_key_the_greatest_counts(lake, caplog):
    lake.read(("a", 2), ("b", 4), ("a", 3), ("a", 1))
    assert lake(["a", "b"]) == [3, 4]
    assert "table=lookup.prices has several rows for one key: 2 are left out" in caplog.text


@pytest.mark.parametrize("hashed_each_time", [10**6, 1])
@pytest.mark.parametrize("end", [None, MOMENT], ids=["open", "ended"])
def test_point_in_time_agrees_with_a_search_row_by_row(instance, contracts, monkeypatch, end, hashed_each_time):
    monkeypatch.setattr(enrich, "HASHED_EACH_TIME", hashed_each_time)
    chance = random.Random(7)  # noqa: S311 - a seeded test
    lake = Lake(instance, contracts, kind=pa.int64(), begin=MOMENT, end=end)
    begins = {(chance.randrange(40), chance.randrange(60)) for _ in range(400)}
    ends = {row: chance.choice([None, row[1] + chance.randrange(1, 20)]) if end else None for row in begins}
    hour = {None: None} | {number: hours(number) for number in range(-9, 99)}
    lake.read(
        *((k, hour[b], *([hour[ends[k, b]]] if end else []), number) for number, (k, b) in enumerate(sorted(begins)))
    )
    asked = [(chance.randrange(-2, 44), chance.randrange(-3, 90)) for _ in range(3000)]
    places = {row: number for number, row in enumerate(sorted(begins))}

    def expected(key, at):
        last = max((b for k, b in begins if k == key and b <= at), default=None)
        if last is None or (ends[key, last] is not None and ends[key, last] <= at):
            return None
        return places[key, last]

    assert lake([k for k, _ in asked], [hour[at] for _, at in asked]) == [expected(*row) for row in asked]


def test_a_table_is_read_again_only_when_its_snapshot_has_changed(lake, monkeypatch):
    scans = []
    scan = Table.scan
    monkeypatch.setattr(
        Table, "scan", lambda table, *args, **options: (scans.append(1), scan(table, *args, **options))[1]
    )
    lake.read(("a", 1))
    assert (lake(["a"]), len(scans)) == ([1], 1)
    lake.enricher.refresh()
    assert (lake(["a"]), len(scans)) == ([1], 1)
    with lake.catalog.load_table("lookup.prices").update_schema() as update:
        update.add_column("remark", StringType())
    lake.enricher.refresh()
    assert (lake(["a"]), len(scans)) == ([1], 1)
    lake.write(("a", 2))
    assert lake(["a"]) == [1]  # Not in the middle of a batch.
    scans.clear()
    lake.enricher.refresh()
    assert (lake(["a"]), len(scans)) == ([2], 1)


def test_a_batch_that_begins_after_a_silence_sees_what_has_changed_meanwhile(lake, monkeypatch):
    lake.read(("a", 1))
    lake.write(("a", 2))
    monkeypatch.setattr(enrich, "STALE_SECONDS", -1.0)
    assert lake(["a"]) == [2]
    lake.write(("a", 3))
    assert lake(["a"]) == [2]


def test_a_table_that_is_dropped_and_made_anew_is_followed(lake, caplog):
    lake.enricher.refresh()
    assert lake(["a"]) == [None]
    assert "lookup missing table=lookup.prices" in caplog.text
    lake.read(("a", 1))
    assert lake(["a"]) == [1]
    lake.catalog.drop_table("lookup.prices")
    caplog.clear()
    for _ in range(2):
        lake.enricher.refresh()
        rows = lake.rows(["a"])
        assert rows["unit_price"].to_pylist() == [None]
    assert caplog.text.count("lookup missing") == 1
    lake.enricher.refresh()
    assert lake.enricher.misses([rows], [np.ones(1, bool)]) == {("prices", "product"): 1}
    ensure_table(lake.catalog, "lookup.prices", lake.lookup.arrow_schema)
    lake.enricher.refresh()
    assert lake(["a"]) == [None]
    lake.read(("a", 2))
    assert lake(["a"]) == [2]


def test_an_outage_raises_at_the_start_and_keeps_the_rows_later(lake, monkeypatch, caplog):
    def down(_):
        raise OperationalError("SELECT", {}, Exception("database is locked"))

    lake.write(("a", 1))
    with monkeypatch.context() as patch:
        patch.setattr(lake.catalog, "load_table", down)
        with pytest.raises(OperationalError):
            lake.enricher.refresh()
    lake.enricher.refresh()
    with monkeypatch.context() as patch:
        patch.setattr(lake.catalog, "load_table", down)
        lake.enricher.refresh()
    assert "lookup not refreshed table=lookup.prices" in caplog.text
    assert lake(["a"]) == [1]
    lake.read(("a", 2))
    assert lake(["a"]) == [2]


def test_a_table_that_does_not_fit_its_contract_is_refused_at_the_start_and_left_alone_later(lake, contracts, caplog):
    lake.read(("a", 1))
    wrong = pa.table({"product": ["a", None], "price": [2, 3]})
    lake.catalog.drop_table("lookup.prices")
    ensure_table(lake.catalog, "lookup.prices", wrong.schema).append(wrong)
    with pytest.raises(LakeError, match=r"lookup\.prices: does not fit its contract") as raised:
        Enricher(lake.catalog, lake.stream, {"prices": lake.lookup}).refresh()
    assert "product, price" in raised.value.remedy
    caplog.set_level(logging.WARNING)
    lake.enricher.refresh()
    assert "does not fit its contract" in caplog.text
    assert lake(["a"]) == [1]


def test_a_commit_stands_though_the_lookups_cannot_be_refreshed(instance, contracts, monkeypatch, caplog):
    class Event:
        def key(self):
            return b"k"

        def value(self):
            return b"{"

        def partition(self):
            return 0

        def offset(self):
            return 0

        def timestamp(self):
            return 1, 1357387200000

    writer = BronzeWriter(open_catalog(instance), contracts["flight_events"], contracts, "cluster")
    batch = Batch()
    writer.processor([Event()], {0: PartitionState(0, BEGINNING_OF_TIME, writer.empty_index())}, batch)

    catalog = writer.bronze.catalog
    load_table = catalog.load_table

    def down(name):
        if "airlines" in name:
            raise OSError("the warehouse is gone")
        return load_table(name)

    monkeypatch.setattr(catalog, "load_table", down)
    writer.commit(batch)
    assert "lookup not refreshed table=lookup.airlines error=OSError" in caplog.text
    assert read_progress(writer.bronze).partitions[0].offset == 1
