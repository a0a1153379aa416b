"""SQL over the lake."""

import pyarrow as pa
import pytest

from freshdata.errors import QueryError
from freshdata.lake.catalog import ensure_table, open_catalog
from freshdata.lake.query import connect, run_query
from freshdata.settings import Settings

SCHEMA = pa.schema([pa.field("key", pa.string()), pa.field("seen", pa.timestamp("us", "UTC"))])


@pytest.fixture
def lake(instance: Settings) -> Settings:
    table = ensure_table(open_catalog(instance), "gold.sample", SCHEMA)
    table.append(pa.Table.from_pylist([{"key": "a", "seen": 0}], schema=SCHEMA))
    return instance


def test_tables_go_by_their_plain_names(lake: Settings) -> None:
    assert run_query(lake, "SELECT key, seen::TEXT AS seen FROM gold.sample").to_pylist() == [
        {"key": "a", "seen": "1970-01-01 00:00:00+00"}
    ]
    with connect(lake) as connection:
        assert connection.execute("SELECT count(*) FROM lake.gold.sample").fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM gold.nothing", "The tables are gold.sample."),
        ("SELECT nothing FROM gold.sample", '"nothing" not found'),
        ("DELETE FROM lake.gold.sample", "Only reading statements"),
        ("COPY gold.sample TO 'x.csv'", "Only reading statements"),
        ("SELECT 1; SELECT 2", "exactly one statement"),
        ("", "exactly one statement"),
    ],
)
def test_a_wrong_statement_is_one_line_with_a_remedy(lake: Settings, sql: str, told: str) -> None:
    with pytest.raises(QueryError) as caught:
        run_query(lake, sql)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def test_an_empty_lake_says_so(instance: Settings) -> None:
    with pytest.raises(QueryError, match="ingest a stream first"):
        run_query(instance, "SELECT * FROM gold.sample")
