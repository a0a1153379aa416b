"""Silver and Gold read the same with every reader, behind merges (delete files included), and on a tag.

One more reader is one more function in READERS.
"""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table

from freshdata.lake.catalog import load_table, open_catalog
from freshdata.lake.history import history
from freshdata.lake.query import connect
from freshdata.lake.tags import create_tag, drop_tag
from freshdata.settings import PROJECT, Settings
from freshdata.transform.runner import open_runner
from tests.bronze import append, flight_event, head, observation

pytestmark = [
    pytest.mark.integration,
    # It asks for a plugin of its own that plans scans faster.
    pytest.mark.filterwarnings("ignore:Iceberg scan planning with the polars_iceberg plugin"),
]

SILVER, GOLD = ("silver.flight_events", "silver.weather"), ("gold.carrier_day", "gold.route_day")
DAYS = [date(2013, 1, day) for day in (1, 2, 3)]
TAG = "TRAINING_2013_01"
# Reads a table, or what a tag on it keeps.
Reader = Callable[[Settings, Table, str | None], pa.Table]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lake whose tables were tagged after two merges, and merged into twice more."""
    settings = Settings().for_home(tmp_path_factory.mktemp("project") / ".freshdata" / "live")
    catalog = open_catalog(settings)
    with open_runner(settings) as runner:
        for round_ in range(4):
            ingested = datetime(2013, 2, 1 + round_, tzinfo=UTC)
            numbers = range(1 + round_ * 3, 8 + round_ * 3)  # Some flights are new, some corrected.
            append(
                catalog,
                "flight_events",
                [
                    flight_event(day, number, dep_delay=number * 10 + round_, _ingested_at=ingested)
                    for day in DAYS
                    for number in numbers
                ],
            )
            append(catalog, "weather", [observation(day, 11 + round_, precip=0.1) for day in DAYS])
            for model in runner.manifest:
                runner.run_live(model)
            if round_ == 1:
                for name in SILVER + GOLD:
                    create_tag(load_table(catalog, name), TAG)
    return settings


def pyiceberg(_: Settings, table: Table, tag: str | None) -> pa.Table:
    return table.scan(snapshot_id=table.refs()[tag].snapshot_id if tag else None).to_arrow()


def duckdb(settings: Settings, table: Table, tag: str | None) -> pa.Table:
    at = f" AT (VERSION => {table.refs()[tag].snapshot_id})" if tag else ""
    with connect(settings) as connection:
        return connection.execute(f"FROM lake.{'.'.join(table.name())}{at}").to_arrow_table()


def polars(_: Settings, table: Table, tag: str | None) -> pa.Table:
    import polars as pl

    snapshot_id = table.refs()[tag].snapshot_id if tag else None
    return pl.scan_iceberg(table.metadata_location, snapshot_id=snapshot_id).collect().to_arrow()


def chdb(settings: Settings, table: Table, tag: str | None) -> pa.Table:
    from chdb.session import Session

    folder = table.location().removeprefix("file://")
    metadata = os.path.relpath(table.metadata_location.removeprefix("file://"), folder)
    pinned = f"SETTINGS iceberg_snapshot_id = {table.refs()[tag].snapshot_id}" if tag else ""
    # chDB reads nothing outside the working directory.
    with contextlib.chdir(settings.home), contextlib.closing(Session()) as session:
        source = f"icebergLocal('{folder}', SETTINGS iceberg_metadata_file_path = '{metadata}')"
        return session.query(f"SELECT * FROM {source} {pinned}", "ArrowTable")


READERS: tuple[Reader, ...] = (pyiceberg, duckdb, polars, chdb)


def plain(rows: pa.Table) -> list[dict[str, Any]]:
    """Rows in an order of their own, their times in one unit."""
    found = []
    for field in rows.schema:
        column = rows[field.name]
        if pa.types.is_timestamp(field.type):
            column = column.cast(pa.timestamp("us", "UTC"))
        found.append(column)
    return sorted(pa.table(found, names=rows.column_names).to_pylist(), key=repr)


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
@pytest.mark.parametrize("tag", [None, TAG], ids=["now", "tag"])
@pytest.mark.parametrize("name", SILVER + GOLD)
def test_readers_agree(lake: Settings, name: str, tag: str | None, read: Reader) -> None:
    table = load_table(open_catalog(lake), name)
    expected = plain(pyiceberg(lake, table, tag))
    assert expected
    assert plain(read(lake, table, tag)) == expected


def test_every_snippet_of_the_page_runs(lake: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of docs/reading.md in order, but for Spark's."""
    monkeypatch.chdir(lake.home.parent.parent)
    monkeypatch.setenv("FRESHDATA_HOME", str(lake.home))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    page = (PROJECT / "docs" / "reading.md").read_text()
    snippets = re.findall(r"^```(sh|python)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    table = load_table(open_catalog(lake), "silver.flight_events")
    before, names = table.current_snapshot(), {}
    try:
        for language, snippet in snippets:
            if language == "sh":
                subprocess.run(["bash", "-euc", snippet], check=True, capture_output=True)
                if "--tag" in snippet:
                    table.refresh().delete(f"flight_date = '{DAYS[0]}'")
            elif "pyspark" not in snippet:
                exec(snippet, names)  # noqa: S102 - the project's own page.
                assert len(names.pop("training")) == 3 * 16, snippet
                assert len(names.pop("flights")) == 2 * 16, snippet
    finally:
        drop_tag(table, "TRAINING_2013_06")
        table.manage_snapshots().rollback_to_snapshot(before.snapshot_id).commit()
    assert [language for language, _ in snippets] == ["sh", "sh", *["python"] * 5, "sh"]


def test_what_is_compared_has_delete_files_and_a_past(lake: Settings) -> None:
    table = load_table(open_catalog(lake), "silver.flight_events")
    manifests = table.current_snapshot().manifests(table.io)
    assert ManifestContent.DELETES in {manifest.content for manifest in manifests}
    assert pyiceberg(lake, table, None).num_rows == 3 * 16
    tagged = pyiceberg(lake, table, TAG)
    assert tagged.num_rows == 3 * 10
    # The version that was newest when it was tagged.
    assert {delay % 10 for delay in tagged["dep_delay"].to_pylist()} == {0, 1}


def test_each_merge_is_one_commit_in_a_days_history(lake: Settings) -> None:
    table = load_table(open_catalog(lake), "silver.flight_events")
    past = history(table, day=DAYS[1])
    assert [(entry.rows_added, entry.rows_removed) for entry in past.entries] == [(7, 4), (7, 4), (7, 4), (7, 0)]
    assert [source.snapshot_id for source in past.sources] == [entry.snapshot_id for entry in past.entries]
    assert past.entries[2].tags == (TAG,)
    made = past.entries[0].model
    assert made is not None
    assert (made.mode, made.interval, made.fingerprint) == ("live", "2013-01-01/2013-01-03", past.fingerprint)
    assert made.upstream == {"bronze.flight_events": head(open_catalog(lake), "bronze.flight_events")}
