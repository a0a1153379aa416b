"""The catalog's REST face, asked by DuckDB and by hand."""

import json
from collections.abc import Iterator
from datetime import date
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlparse

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.transforms import IdentityTransform

from freshdata.lake.catalog import ensure_table, load_table, open_catalog
from freshdata.lake.duck import attach_lake, catalog_face
from freshdata.lake.progress import ancestors, summary_property
from freshdata.lake.rest_catalog import CatalogFace
from freshdata.settings import Settings

SCHEMA = pa.schema([pa.field("day", pa.date32()), pa.field("key", pa.string()), pa.field("value", pa.int32())])


@pytest.fixture
def catalog(instance: Settings) -> Catalog:
    catalog = open_catalog(instance)
    table = ensure_table(catalog, "silver.sample", SCHEMA, partition_by={"day": IdentityTransform()})
    table.append(pa.Table.from_pylist([{"day": date(2013, 1, 1), "key": "a", "value": 1}], schema=SCHEMA))
    return catalog


@pytest.fixture
def connection(instance: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        attach_lake(connection, instance)
        yield connection


def ask(face: CatalogFace, verb: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = HTTPConnection(urlparse(face.url).netloc)
    connection.request(verb, path, json.dumps(body) if body else None)
    response = connection.getresponse()
    return response.status, json.loads(response.read() or b"null")


def test_duckdb_reads_what_pyiceberg_wrote(catalog: Catalog, connection: duckdb.DuckDBPyConnection) -> None:
    assert connection.execute("SELECT key, value FROM lake.silver.sample").fetchall() == [("a", 1)]
    load_table(catalog, "silver.sample").delete("key = 'a'")
    assert connection.execute("SELECT count(*) FROM lake.silver.sample").fetchall() == [(0,)]


def test_every_snapshot_of_a_merge_carries_the_stamp(
    connection: duckdb.DuckDBPyConnection, catalog: Catalog, instance: Settings
) -> None:
    before = load_table(catalog, "silver.sample").current_snapshot()
    with catalog_face(instance).stamp("silver.sample", lambda _: {"freshdata.cursor": "{}"}):
        connection.execute(
            "MERGE INTO lake.silver.sample AS t "
            "USING (VALUES (DATE '2013-01-01', 'a', 2), (DATE '2013-01-02', 'b', 3)) AS s(day, key, value) "
            "ON t.day = s.day AND t.key = s.key "
            "WHEN MATCHED THEN UPDATE SET value = s.value WHEN NOT MATCHED THEN INSERT VALUES (s.day, s.key, s.value)"
        )
    table = load_table(catalog, "silver.sample")
    stamps = [summary_property(snapshot, "freshdata.cursor") for snapshot in ancestors(table) if snapshot != before]
    assert stamps
    assert set(stamps) == {"{}"}
    assert sorted(table.scan().to_arrow().column("value").to_pylist()) == [2, 3]
    connection.execute("INSERT INTO lake.silver.sample VALUES (DATE '2013-01-03', 'c', 4)")
    last = load_table(catalog, "silver.sample").current_snapshot()
    assert last is not None
    assert summary_property(last, "freshdata.cursor") is None


def test_a_write_that_lost_a_race_is_told_so(connection: duckdb.DuckDBPyConnection, catalog: Catalog) -> None:
    connection.execute("BEGIN")
    connection.execute("INSERT INTO lake.silver.sample VALUES (DATE '2013-01-02', 'b', 2)")
    load_table(catalog, "silver.sample").delete("key = 'a'")
    with pytest.raises(duckdb.TransactionException):
        connection.execute("COMMIT")
    assert load_table(catalog, "silver.sample").scan().to_arrow().num_rows == 0


@pytest.mark.parametrize(
    ("verb", "path", "status", "kind"),
    [
        ("GET", "/v1/namespaces/silver/tables/none", 404, "NoSuchTableException"),
        ("GET", "/v1/namespaces/none", 404, "NoSuchNamespaceException"),
        ("DELETE", "/v1/namespaces/silver", 409, "NamespaceNotEmptyException"),
        ("POST", "/v1/namespaces/silver/tables", 501, "UnsupportedOperationException"),
        ("POST", "/v1/transactions/commit", 501, "UnsupportedOperationException"),
    ],
)
def test_failures_have_the_protocols_form(catalog: Catalog, verb: str, path: str, status: int, kind: str) -> None:
    with CatalogFace(catalog) as face:
        code, body = ask(face, verb, path)
    assert code == status
    assert body["error"]["type"] == kind
    assert body["error"]["code"] == status


def test_a_commit_whose_requirement_fails_is_a_conflict(catalog: Catalog) -> None:
    with CatalogFace(catalog) as face:
        requirement = {"type": "assert-ref-snapshot-id", "ref": "main", "snapshot-id": 1}
        body = {"requirements": [requirement], "updates": [{"action": "set-properties", "updates": {"x": "y"}}]}
        code, answer = ask(face, "POST", "/v1/namespaces/silver/tables/sample", body)
    assert (code, answer["error"]["type"]) == (409, "CommitFailedException")


def test_namespaces_can_be_made_and_dropped(catalog: Catalog) -> None:
    with CatalogFace(catalog) as face:
        assert ask(face, "POST", "/v1/namespaces", {"namespace": ["gold"]})[0] == 200
        assert ["gold"] in ask(face, "GET", "/v1/namespaces")[1]["namespaces"]
        assert ask(face, "DELETE", "/v1/namespaces/gold")[0] == 204
        assert ask(face, "GET", "/v1/namespaces/silver/tables")[1]["identifiers"] == [
            {"namespace": ["silver"], "name": "sample"}
        ]
