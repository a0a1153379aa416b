"""Which engine runs the models, and what a user reads when it cannot."""

import importlib.util
import sys

import pytest
from sqlglot import parse_one

from freshdata.errors import ConfigError, PrerequisiteError, TransformError
from freshdata.lake.catalog import open_catalog
from freshdata.settings import Settings
from freshdata.transform.engines import connection
from freshdata.transform.engines.spark import jdbc_properties
from freshdata.transform.engines.trino import TrinoLakeAdapter
from freshdata.transform.state import state_connection, state_to_alter


def on(instance: Settings, **changes: object) -> Settings:
    return instance.model_copy(update=changes)


def test_an_engine_that_is_not_installed_is_named_with_its_remedy(instance, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark.errors", None)
    monkeypatch.delitem(sys.modules, "freshdata.transform.engines.spark")
    with pytest.raises(PrerequisiteError, match=r"pip install 'freshdata\[spark\]'"):
        connection(on(instance, engine="spark"))


def test_postgres_without_its_driver_is_named_with_its_remedy(instance, monkeypatch):
    uri = "postgresql+psycopg2://nobody@127.0.0.1:1/lake"
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(PrerequisiteError, match=r"freshdata\[postgres\]"):
        open_catalog(on(instance, catalog_uri=uri))
    monkeypatch.setattr("freshdata.transform.state.find_spec", lambda name: None if name == "psycopg2" else importlib)
    with pytest.raises(PrerequisiteError, match=r"freshdata\[postgres\]"):
        state_connection(on(instance, state_uri=uri))


def test_a_state_that_cannot_be_reached_is_no_traceback(instance):
    settings = on(instance, state_uri="postgresql+psycopg2://nobody@127.0.0.1:1/state")
    with pytest.raises(TransformError, match="FRESHDATA_STATE_URI"), state_to_alter(settings):
        pass


def test_trino_must_be_named(instance):
    with pytest.raises(ConfigError, match="FRESHDATA_TRINO_URI"):
        connection(on(instance, engine="trino"))
    found = connection(on(instance, engine="trino", trino_uri="https://ann:secret@trino.example:8443"))
    assert (found.host, found.port, found.user, found.http_scheme) == ("trino.example", 8443, "ann", "https")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:////data/catalog.db?timeout=60", {"uri": "jdbc:sqlite:/data/catalog.db?busy_timeout=60000"}),
        (
            "postgresql+psycopg2://ann:s%40cret@db.example:6432/lake",
            {"uri": "jdbc:postgresql://db.example:6432/lake", "jdbc.user": "ann", "jdbc.password": "s@cret"},
        ),
        ("postgresql://db.example/lake", {"uri": "jdbc:postgresql://db.example/lake"}),
    ],
)
def test_spark_opens_the_same_catalog(uri, expected):
    assert jdbc_properties(uri) == {"type": "jdbc", "jdbc.schema-version": "V1"} | expected


def test_times_keep_their_microseconds_on_trino():
    query = parse_one("SELECT CAST(at AS TIMESTAMPTZ), CAST(at AS TIMESTAMP) FROM t", dialect="duckdb")
    sql = TrinoLakeAdapter(lambda: None)._to_sql(query)
    assert sql == 'SELECT CAST("at" AS TIMESTAMP(6) WITH TIME ZONE), CAST("at" AS TIMESTAMP(6)) FROM "t"'


def test_an_exact_percentile_is_spelled_out_for_trino():
    adapter = TrinoLakeAdapter(lambda: None)
    query = parse_one("SELECT QUANTILE_CONT(delay, 0.9) FROM t", dialect="duckdb")
    assert 'ARRAY_SORT(ARRAY_AGG("delay") FILTER(WHERE NOT "delay" IS NULL))' in adapter._to_sql(query)
    assert "QUANTILE" not in adapter._to_sql(query)
