"""SQL over the lake."""

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from freshdata.errors import QueryError, TransformError
from freshdata.lake.catalog import ensure_table, open_catalog
from freshdata.lake.query import connect, run_query
from freshdata.serving import select_of
from freshdata.settings import PROJECT, Settings

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


@pytest.fixture
def shop(tmp_path: Path) -> Settings:
    """A lake with a dimension, and models of which one view can be made of it and one cannot."""
    models = Path(shutil.copytree(PROJECT / "sqlmesh_models", tmp_path / "models"))
    for name, table in (("known", "dim_carrier"), ("unknown", "dim_plane")):
        column = "carrier" if table == "dim_carrier" else "tailnum"
        text = f"MODEL (name serving.{name}, kind EMBEDDED); SELECT {column} AS key FROM gold.{table}"
        (models / "models" / "serving" / f"{name}.sql").write_text(text)
    settings = Settings().for_home(tmp_path / "home").for_models(models)
    schema = pa.schema([("carrier", pa.string())])
    table = ensure_table(open_catalog(settings), "gold.dim_carrier", schema)
    table.append(pa.Table.from_pylist([{"carrier": "UA"}], schema=schema))
    return settings


@pytest.mark.parametrize(
    "sql",
    ["FROM serving.known", 'SELECT k.key FROM "serving"."known" AS k JOIN gold.dim_carrier ON key = carrier'],
)
def test_serving_views_are_read_like_tables(shop: Settings, sql: str) -> None:
    assert run_query(shop, sql).to_pylist() == [{"key": "UA"}]
    with connect(shop) as connection:
        assert connection.sql("FROM serving.known").fetchall() == [("UA",)]


def test_a_view_of_what_is_yet_to_be_made_is_named_and_hides_no_other(shop: Settings) -> None:
    with pytest.raises(QueryError, match="unknown") as caught:
        run_query(shop, "FROM serving.unknown")
    tables, later = caught.value.remedy.split(" When the models have run")
    assert tables == "The tables are gold.dim_carrier, serving.known."
    assert "serving.unknown" in later


def test_models_that_cannot_be_loaded_keep_nobody_from_the_tables(shop: Settings) -> None:
    (shop.models_dir / "models" / "serving" / "known.sql").write_text("MODEL (name serving.known, kind NONE)")
    assert run_query(shop, "FROM gold.dim_carrier").num_rows == 1
    with pytest.raises(TransformError, match="cannot be loaded"):
        run_query(shop, "FROM serving.known")


def test_a_select_is_told_for_other_engines(shop: Settings) -> None:
    assert '"lake"."gold"."dim_carrier"' in select_of(shop, "serving.known", "trino")
    assert "`lake`.`gold`.`dim_carrier`" in select_of(shop, "serving.known", "spark")
    with pytest.raises(TransformError, match=r"serving.none: is no serving view. Use one of .*serving.known"):
        select_of(shop, "serving.none", "spark")
    with pytest.raises(QueryError, match="nonsense"):
        select_of(shop, "serving.known", "nonsense")


def test_an_empty_lake_says_so(instance: Settings) -> None:
    with pytest.raises(QueryError, match="ingest a stream first"):
        run_query(instance, "SELECT * FROM gold.sample")
