"""Trino over a lake that DuckDB built; `make test-trino` fetches the server, without it this is skipped."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from trino.dbapi import connect

from freshdata.lake.catalog import open_catalog
from freshdata.lake.query import run_query
from freshdata.lake.scratch import NAMESPACE
from freshdata.serving import select_of
from freshdata.settings import Settings
from tests.engines import assert_captures_alike, assert_equal, assert_trades_alike, build, proceed
from tests.trino import OLDEST_JAVA, find_java, trino, trino_home

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


VIEWS = ("serving.carrier_punctuality", "serving.route_traffic")


def ask(address: str, sql: str) -> list[dict[str, Any]]:
    """A statement's rows."""
    place = urlparse(address)
    with connect(host=place.hostname, port=place.port, user="test") as connection:
        cursor = connection.cursor().execute(sql)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@pytest.fixture
def java() -> str:
    java = find_java()
    if not trino_home(Settings()).is_dir():
        pytest.skip("no Trino: `make test-trino` fetches it (830 MB)")
    if java is None:
        pytest.skip(f"no Java {OLDEST_JAVA} or newer: name one in JAVA_HOME")
    return java


def test_it_continues_the_lake_as_duckdb_would(tmp_path: Path, java: str) -> None:
    ours, theirs = Settings().for_home(tmp_path / "ours"), Settings().for_home(tmp_path / "theirs")
    for settings in (ours, theirs):
        build(settings)
    expected = proceed(ours)
    with trino(theirs, java, tmp_path / "trino") as address:
        found = proceed(theirs.model_copy(update={"engine": "trino", "trino_uri": address}))
        told = {view: ask(address, select_of(theirs, view, "trino")) for view in VIEWS}
    for model, table in expected.items():
        assert_equal(found[model], table)
    for view in VIEWS:
        here = run_query(ours, f"FROM {view}").to_pylist()
        assert_equal(sorted(told[view], key=repr), sorted(here, key=repr))
    assert open_catalog(theirs).list_tables(NAMESPACE) == []


@pytest.mark.parametrize("alike", [assert_trades_alike, assert_captures_alike])
def test_deletes_moves_and_versions_become_the_same(
    tmp_path: Path, java: str, alike: Callable[[Path, Callable[[Settings], Settings]], None]
) -> None:
    with ExitStack() as stack:

        def on_trino(settings: Settings) -> Settings:
            settings.home.mkdir(parents=True, exist_ok=True)
            address = stack.enter_context(trino(settings, java, tmp_path / "trino"))
            return settings.model_copy(update={"engine": "trino", "trino_uri": address})

        alike(tmp_path, on_trino)
