"""Data files: what other writers would have written, one sorted file a partition."""

from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.io.pyarrow import _dataframe_to_data_files
from pyiceberg.transforms import BucketTransform, IdentityTransform

from freshdata.lake.catalog import ensure_table, open_catalog
from freshdata.lake.files import write_data_files

SCHEMA = pa.schema(
    [
        pa.field("day", pa.date32(), nullable=False), pa.field("tenant", pa.string()), pa.field("key", pa.string()),
        pa.field("at", pa.timestamp("us", "UTC")), pa.field("price", pa.float64()), pa.field("raw", pa.binary()),
        pa.field("flag", pa.bool_()), pa.field("count", pa.int32()),
    ]
)  # fmt: skip
FACTS = ("record_count", "lower_bounds", "upper_bounds", "null_value_counts", "value_counts", "nan_value_counts")


def some_rows(count=5000):
    chance = np.random.default_rng(4)

    def sparse(values):
        return [None if gap else value for value, gap in zip(values, chance.random(count) < 0.1, strict=True)]

    return pa.table(
        {
            "day": [date(2013, 1, 1 + int(n)) for n in chance.integers(0, 2, count)],
            "tenant": sparse([f"t{n}" for n in chance.integers(0, 4, count)]),
            "key": sparse([f"k{n}" for n in chance.integers(0, 900, count)]),
            "at": pa.array(chance.integers(0, 10**15, count)).cast(pa.timestamp("us", "UTC")),
            "price": sparse(chance.random(count).tolist()),
            "raw": [bytes(chance.integers(0, 256, 5).tolist()) for _ in range(count)],
            "flag": sparse((chance.random(count) < 0.5).tolist()),
            "count": sparse(chance.integers(-5, 5, count).tolist()),
        },
        schema=SCHEMA,
    )


@pytest.mark.parametrize("by_tenant", [IdentityTransform(), BucketTransform(3)])
def test_files_hold_what_another_writer_puts_into_them(instance, by_tenant):
    table = ensure_table(
        open_catalog(instance), "bronze.t", SCHEMA, sort_by=("key", "at"),
        partition_by={"day": IdentityTransform(), "tenant": by_tenant},
    )  # fmt: skip
    rows = some_rows()
    order = [("key", "ascending", "at_start"), ("at", "ascending", "at_start")]
    others = {
        str(file.partition): file
        for file in _dataframe_to_data_files(table.metadata, rows.take(pa.compute.sort_indices(rows, order)), table.io)
    }
    files = {str(file.partition): file for file in write_data_files(table, pa.concat_tables([rows[:77], rows[77:]]))}
    assert files.keys() == others.keys()
    for partition, file in files.items():
        mine, other = (pq.read_table(f.file_path.removeprefix("file://")) for f in (file, others[partition]))
        assert mine.equals(other)
        assert [field.metadata for field in mine.schema] == [field.metadata for field in other.schema]
        assert {fact: getattr(file, fact) for fact in FACTS} == {f: getattr(others[partition], f) for f in FACTS}


def test_rows_that_are_left_out_leave_no_trace(instance):
    table = ensure_table(open_catalog(instance), "bronze.t", SCHEMA, partition_by={"day": IdentityTransform()})
    rows = some_rows(100)
    only = np.array([day == date(2013, 1, 1) for day in rows["day"].to_pylist()])
    [file] = write_data_files(table, rows, only=only)
    assert file.record_count == only.sum()
    assert write_data_files(table, rows, only=np.zeros(100, dtype=np.bool_)) == []
    assert write_data_files(table, rows[:0]) == []


def test_a_table_without_partitions_gets_one_file(instance):
    table = ensure_table(open_catalog(instance), "lookup.t", SCHEMA)
    rows = some_rows(50)
    [file] = write_data_files(table, rows)
    assert pq.read_table(file.file_path.removeprefix("file://")).equals(rows)


def test_only_columns_that_repeat_get_a_dictionary(instance):
    table = ensure_table(open_catalog(instance), "lookup.t", SCHEMA)
    [file] = write_data_files(table, some_rows())
    group = pq.read_metadata(file.file_path.removeprefix("file://")).row_group(0)
    encoded = {group.column(n).path_in_schema for n in range(8) if group.column(n).has_dictionary_page}
    assert {"tenant", "key", "day"} <= encoded
    assert not {"raw", "at", "price"} & encoded
