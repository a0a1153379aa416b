"""A table's columns beside those it should have."""

import pyarrow as pa
import pytest

from freshdata.lake.duck import column_schema
from freshdata.lake.publication import iceberg_schema
from freshdata.lake.schemas import ABSENT, Difference, differences, unfit

NOT_NULL = pa.field("id", pa.int32(), nullable=False)
EXPECTED = pa.schema([NOT_NULL, pa.field("at", pa.timestamp("us", "UTC")), pa.field("price", pa.decimal128(10, 2))])


def against(*fields, null_allowed=False):
    return differences(iceberg_schema(pa.schema(fields)), EXPECTED, null_allowed=null_allowed)


def test_the_same_columns_in_another_order_are_no_difference():
    assert against(*reversed(list(EXPECTED))) == []


@pytest.mark.parametrize(
    ("field", "difference"),
    [
        (pa.field("id", pa.int64(), nullable=False), Difference("id", "int, required", "long, required")),
        (pa.field("id", pa.int32()), Difference("id", "int, required", "int, optional")),
        (pa.field("at", pa.timestamp("us")), Difference("at", "timestamptz, optional", "timestamp, optional")),
        (pa.field("at", pa.timestamp("us", "UTC"), nullable=False),
         Difference("at", "timestamptz, optional", "timestamptz, required")),
        (pa.field("price", pa.decimal128(12, 2)),
         Difference("price", "decimal(10, 2), optional", "decimal(12, 2), optional")),
    ],
)  # fmt: skip
def test_another_type_or_nullability_is_one(field, difference):
    assert against(*(field if field.name == each.name else each for each in EXPECTED)) == [difference]
    assert not difference.harmless


def test_a_missing_column_is_one_and_one_too_many_is_harmless():
    missing, unexpected = against(NOT_NULL, EXPECTED.field("at"), pa.field("cost", pa.float64()))
    assert missing == Difference("price", "decimal(10, 2), optional", ABSENT)
    assert unexpected == Difference("cost", ABSENT, "double, optional")
    assert (missing.harmless, unexpected.harmless) == (False, True)


def test_a_column_that_a_table_has_gained_may_allow_null():
    gained = [pa.field(field.name, field.type) for field in EXPECTED]
    assert against(*gained, null_allowed=True) == []
    required = [pa.field(field.name, field.type, nullable=False) for field in EXPECTED]
    assert [each.column for each in against(*required, null_allowed=True)] == ["at", "price"]


def test_nested_types_are_compared_by_what_they_hold():
    columns = {"tags": "TEXT[]", "point": "STRUCT(x DOUBLE, y DOUBLE)", "counts": "MAP(TEXT, BIGINT)"}
    expected = column_schema(columns)
    # A table's own ids of the parts are others.
    stored = iceberg_schema(pa.schema([pa.field("first", pa.int32()), *expected]))
    assert [each.column for each in differences(stored, expected)] == ["first"]
    other = column_schema(columns | {"point": "STRUCT(x DOUBLE, y BIGINT)"})
    assert [each.column for each in differences(stored, other) if not each.harmless] == ["point"]


def test_the_types_of_a_models_sql_are_those_of_its_table():
    columns = {"a": "TEXT", "b": "INT", "c": "TIMESTAMPTZ", "d": "DECIMAL(18, 3)", "e": "DATE", "f": "BOOLEAN"}
    types = [str(field.field_type) for field in iceberg_schema(column_schema(columns)).fields]
    assert types == ["string", "int", "timestamptz", "decimal(18, 3)", "date", "boolean"]


def test_a_column_that_holds_all_that_was_promised_fits():
    table = iceberg_schema(pa.schema([("n", pa.int64()), ("text", pa.string()), ("own", pa.bool_())]))
    promised = pa.schema([pa.field("n", pa.int32(), nullable=False), ("text", pa.string()), ("left_out", pa.date32())])
    assert unfit(table, promised) == []
    assert unfit(table, pa.schema([("n", pa.float64()), ("text", pa.string())])) == [Difference("n", "double", "long")]
    assert unfit(iceberg_schema(promised), pa.schema([("n", pa.int64())])) == [Difference("n", "long", "int")]
