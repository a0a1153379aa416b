"""The order of rows in compacted files: what it lets a reader leave out, and that no value is another for it."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.table import Table
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import BucketTransform, IdentityTransform

from freshdata.contracts import load_contract
from freshdata.lake.catalog import ensure_stream_tables, ensure_table
from freshdata.lake.clustering import Clustering, Key, ZOrder, clustering_of, open_sorter
from freshdata.lake.compaction import compact
from freshdata.lake.health import Thresholds
from freshdata.settings import PROJECT
from tests.lakes import departures, ingest

GRID = 64
SCHEMA = pa.schema([pa.field("x", pa.int32()), pa.field("y", pa.string())])
BY_X = Clustering((Key("x"), Key("y")))
BY_CURVE = Clustering((), ("x", "y"))


def grid(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pair of two values once, in files that hold all of them, compacted into row groups of 64 rows."""
    monkeypatch.setattr("freshdata.lake.compaction.ROW_GROUP_ROWS", GRID)
    places = np.random.default_rng(7).permutation(GRID * GRID)
    for part in np.array_split(places, 4):
        table.append(pa.table({"x": part // GRID, "y": [f"y{n:02}" for n in part % GRID]}).cast(SCHEMA))


def groups_to_read(table: Table, column: int, value: int | str) -> int:
    """Row groups whose statistics do not rule a value out."""
    found = 0
    for task in table.refresh().scan().plan_files():
        metadata = pq.ParquetFile(task.file.file_path.removeprefix("file://")).metadata
        ranges = [metadata.row_group(group).column(column).statistics for group in range(metadata.num_row_groups)]
        found += sum(bool(each.min <= value <= each.max) for each in ranges)
    return found


def test_sorting_prunes_by_the_first_column_and_the_curve_by_both(catalog, monkeypatch):
    table = ensure_table(catalog, "silver.grid", SCHEMA)
    grid(table, monkeypatch)
    before = sorted(table.scan().to_arrow().to_pylist(), key=repr)
    compact(table, BY_X, Thresholds(everything=True))
    assert (groups_to_read(table, 0, 17), groups_to_read(table, 1, "y40")) == (1, GRID)
    compact(table, BY_CURVE, Thresholds(everything=True))
    # A square of 8 by 8 values a row group: 8 of the 64 squares hold a value of either column.
    assert (groups_to_read(table, 0, 17), groups_to_read(table, 1, "y40")) == (8, 8)
    assert sorted(table.scan().to_arrow().to_pylist(), key=repr) == before


def test_files_are_pruned_by_their_bounds(catalog, monkeypatch):
    table = ensure_table(catalog, "silver.grid", SCHEMA)
    grid(table, monkeypatch)
    size = sum(task.file.file_size_in_bytes for task in table.scan().plan_files())
    compact(table, BY_X, Thresholds(everything=True, target_bytes=size // 8))
    assert len(list(table.scan().plan_files())) == 8
    assert len(list(table.scan(row_filter="x = 17").plan_files())) == 1


def test_ranks_are_normalized_and_nulls_are_low():
    values = [None, "a", "a", "a", "b", "zz"]
    rows = pa.RecordBatch.from_pydict({"text": values, "number": [3, 1, 2, None, 5, 1_000_000_000]})
    codes = ZOrder(("text",), pa.Table.from_batches([rows])).codes(rows).to_pylist()
    assert codes == sorted(codes)
    assert codes[0] == codes[1] == codes[2] == codes[3] == 0
    assert codes[3] < codes[4] < codes[5]
    numbers = ZOrder(("number",), pa.Table.from_batches([rows])).codes(rows).to_pylist()
    # By rank, an outlier does not push the others together.
    steps = np.diff(sorted(set(numbers)))
    assert max(steps) < 2 * min(steps)


def test_a_value_that_is_not_in_the_sample_has_a_place_between_its_neighbours():
    curve = ZOrder(("x",), pa.table({"x": pa.array([10, 20, 30], pa.int64())}))
    codes = curve.codes(pa.RecordBatch.from_pydict({"x": [5, 10, 15, 20, 25, 30, 99]})).to_pylist()
    assert codes == sorted(codes)


ALL_TYPES = {
    "text": (pa.string(), ["ß", None, ""]),
    "raw": (pa.binary(), [b"\x00\xff", b"", None]),
    "small": (pa.int32(), [-(2**31), None, 7]),
    "large": (pa.int64(), [2**63 - 1, -(2**63), None]),
    "single": (pa.float32(), [1.5, None, float("-inf")]),
    "double": (pa.float64(), [-0.0, float("inf"), None]),
    "truth": (pa.bool_(), [True, None, False]),
    "amount": (pa.decimal128(38, 9), [Decimal("1.000000001"), None, Decimal(-(10**28))]),
    "day": (pa.date32(), [date(1, 1, 1), date(9999, 12, 31), None]),
    "clock": (pa.time64("us"), [time(23, 59, 59, 999_999), None, time(0)]),
    "at": (pa.timestamp("us", "UTC"), [datetime(2013, 1, 1, tzinfo=UTC), None, datetime(1, 1, 1, tzinfo=UTC)]),
    "local": (pa.timestamp("us"), [datetime(2013, 7, 1, 12), datetime(9999, 12, 31), None]),  # noqa: DTZ001
    "tags": (pa.list_(pa.field("element", pa.string())), [["a", None], [], None]),
    "place": (pa.struct([pa.field("x", pa.int32()), pa.field("y", pa.string())]), [{"x": 1, "y": None}, None, None]),
}


@pytest.mark.parametrize("column", [name for name in ALL_TYPES if name not in ("tags", "place")])
def test_every_type_keeps_its_values_and_can_be_clustered_by(catalog, column):
    schema = pa.schema([pa.field(name, kind) for name, (kind, _) in ALL_TYPES.items()])
    table = ensure_table(catalog, "silver.types", schema)
    for place in range(3):
        table.append(pa.Table.from_pylist([{n: v[place] for n, (_, v) in ALL_TYPES.items()}], schema=schema))
    before = table.scan().to_arrow()
    compact(table, Clustering((Key(column),), (column, "large")), Thresholds(everything=True))
    after = table.refresh().scan().to_arrow()
    assert after.schema == before.schema
    assert sorted(after.to_pylist(), key=repr) == sorted(before.to_pylist(), key=repr)
    assert len(list(table.scan().plan_files())) == 1


def test_columns_that_old_files_lack_are_null_in_the_new_ones(catalog):
    table = ensure_table(catalog, "silver.grid", SCHEMA)
    table.append(pa.table({"x": [2], "y": ["old"]}).cast(SCHEMA))
    table = ensure_table(catalog, "silver.grid", SCHEMA.append(pa.field("z", pa.int64())))
    table.append(pa.table({"x": [1], "y": ["new"], "z": [9]}).cast(table.schema().as_arrow()))
    compact(table, Clustering((Key("z"),), ("z",)), Thresholds(everything=True))
    expected = [{"x": 2, "y": "old", "z": None}, {"x": 1, "y": "new", "z": 9}]
    assert table.refresh().scan().to_arrow().to_pylist() == expected


def test_a_sort_that_does_not_fit_into_memory_spills(monkeypatch):
    monkeypatch.setattr("freshdata.lake.clustering.SORT_MEMORY", "96MB")
    schema = pa.schema([pa.field("x", pa.int64()), pa.field("ballast", pa.string())])
    count = 600_000
    numbers = np.random.default_rng(7).permutation(count)
    ballast = pa.array(["x" * 200] * (count // 40))
    batches = (
        pa.RecordBatch.from_arrays([pa.array(part), ballast], schema=schema) for part in np.array_split(numbers, 40)
    )
    with open_sorter() as sorter:
        rows = sorter.sort(pa.RecordBatchReader.from_batches(schema, batches), Clustering((Key("x"),)), None)
        found = np.concatenate([batch["x"].to_numpy() for batch in rows])
    assert (found == np.arange(count)).all()


def test_streams_are_clustered_by_their_contract(instance, catalog, contracts):
    ingest(instance, "flight_events", departures(date(2013, 1, 1)))
    expected = Clustering((Key("tailnum"), Key("event_time")))
    bronze = catalog.load_table("bronze.flight_events")
    assert clustering_of(bronze, contracts) == expected
    silver = pa.schema([pa.field("event_time", pa.timestamp("us", "UTC")), pa.field("flight", pa.int32())])
    assert clustering_of(ensure_table(catalog, "silver.flight_events", silver), contracts).keys == (Key("event_time"),)


def test_a_contract_may_ask_for_the_curve(instance, catalog, tmp_path: Path):
    text = (PROJECT / "contracts" / "flight_events.odcs.yaml").read_text()
    old = "{property: clusteringColumns, value: [tailnum]}"
    assert old in text
    path = tmp_path / "flight_events.odcs.yaml"
    new = "{property: clusteringColumns, value: [tailnum, dest]}\n      - {property: clusteringOrder, value: zorder}"
    path.write_text(text.replace(old, new))
    contract = load_contract(path)
    lookups = {"airlines": load_contract(PROJECT / "contracts" / "airlines.odcs.yaml"), contract.name: contract}
    bronze, _ = ensure_stream_tables(catalog, contract, lookups)
    assert clustering_of(bronze, lookups) == Clustering(
        (Key("tailnum"), Key("dest"), Key("event_time")), ("tailnum", "dest")
    )


def test_other_tables_keep_their_own_order(catalog):
    table = ensure_table(catalog, "gold.plain", SCHEMA)
    assert clustering_of(table, {}) == Clustering()
    order = SortOrder(SortField(1, IdentityTransform()), SortField(2, BucketTransform(4)))
    sorted_table = catalog.create_table("gold.sorted", table.schema(), sort_order=order)
    assert clustering_of(sorted_table, {}) == Clustering((Key("x"),))


@pytest.mark.parametrize("curve", [(), ("tailnum", "dest")])
def test_bronze_has_the_same_rows_afterwards(instance, catalog, contracts, curve):
    day = date(2013, 1, 1)
    for number in range(4):
        for offset in range(2):
            extra = {"tailnum": f"N{9 - number}", "event_id": f"{number}-{offset}"}
            ingest(instance, "flight_events", departures(day + timedelta(days=offset), 6, **extra))
    table = catalog.load_table("bronze.flight_events")
    before = sorted(table.scan().to_arrow().to_pylist(), key=repr)
    done = compact(table, Clustering((Key("tailnum"),), curve), Thresholds(small_files=2))
    assert (done.files_before, done.files_after) == (16, 4)
    assert sorted(table.refresh().scan().to_arrow().to_pylist(), key=repr) == before
    rows = table.scan(row_filter="tenant_id = 'UA' and ingestion_date = '2013-01-01'").to_arrow()
    assert rows["tailnum"].to_pylist() == sorted(rows["tailnum"].to_pylist())
