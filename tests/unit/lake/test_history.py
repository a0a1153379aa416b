"""Any row's making can be found: from snapshots while they are kept, from the files' own entries for ever."""

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from typer.testing import CliRunner

from freshdata.cli.main import app
from freshdata.errors import LakeError
from freshdata.lake.catalog import ensure_table, open_catalog
from freshdata.lake.changes import added_partitions
from freshdata.lake.cursors import (
    COMMIT_PROPERTY,
    DAGSTER_RUN_PROPERTY,
    INTERVAL_PROPERTY,
    MODE_PROPERTY,
    MODEL_PROPERTY,
    RUN_PROPERTY,
    Cursor,
)
from freshdata.lake.history import ModelCommit, Source, history
from freshdata.lake.maintenance import FANOUT, Retention, maintain, merge_manifests
from freshdata.lake.tags import create_tag
from freshdata.settings import Settings
from tests.lakes import departures, ingest

pytestmark = pytest.mark.filterwarnings("ignore:Delete operation did not match any records")

NAME = "gold.sample"
SCHEMA = pa.schema([pa.field("day", pa.date32()), pa.field("key", pa.string())])
FIRST, SECOND = date(2013, 1, 1), date(2013, 1, 2)
AT_ONCE = Retention(keep=2, young=timedelta(0), cursor_age=timedelta(0))


@pytest.fixture
def catalog(instance: Settings, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    monkeypatch.setenv("FRESHDATA_HOME", str(instance.home))
    return open_catalog(instance)


@pytest.fixture
def table(catalog: Catalog) -> Table:
    return ensure_table(catalog, NAME, SCHEMA, partition_by={"day": IdentityTransform()})


def build(table: Table, day: date, *keys: str, run: str) -> int:
    """Replace a day's rows, as a run of a model does; returns the snapshot."""
    rows = pa.Table.from_pylist([{"day": day, "key": key} for key in keys], schema=SCHEMA)
    properties = {
        MODEL_PROPERTY: NAME,
        MODE_PROPERTY: "live",
        RUN_PROPERTY: run,
        INTERVAL_PROPERTY: f"{day}/{day}",
        COMMIT_PROPERTY: "0123456789ab-dirty",
        DAGSTER_RUN_PROPERTY: f"dagster-{run}",
    } | Cursor({"silver.sample": 7}, "v1").properties()
    table.refresh()
    table.overwrite(rows, overwrite_filter=f"day = '{day}'", snapshot_properties=properties)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    return snapshot.snapshot_id


def command(name: str, *arguments: str) -> Any:
    result = CliRunner().invoke(app, ["history", name, *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_each_run_says_what_it_did_from_what_with_which_code(table: Table) -> None:
    first = build(table, FIRST, "a", "b", run="r1")
    second = build(table, FIRST, "c", run="r2")
    create_tag(table, "pinned", snapshot_id=first)
    past = history(table.refresh())
    assert [(e.snapshot_id, e.operation, e.rows_added, e.rows_removed, e.tags) for e in past.entries] == [
        (second, "overwrite", 1, 2, ()),
        (first, "append", 2, 0, ("pinned",)),
    ]
    assert past.entries[0].model == ModelCommit(
        NAME, "live", "v1", "0123456789ab-dirty", "2013-01-01/2013-01-01", "r2", "dagster-r2", {"silver.sample": 7}
    )
    assert (past.expired, past.more) == (False, False)
    assert history(table, limit=1).more


def test_a_days_history_is_of_the_commits_that_touched_it(table: Table) -> None:
    first = build(table, FIRST, "a", "b", run="r1")
    build(table, SECOND, "c", run="r2")
    third = build(table, FIRST, "d", run="r3")
    past = history(table.refresh(), day=FIRST)
    assert [(e.snapshot_id, e.rows_added, e.rows_removed) for e in past.entries] == [(third, 1, 2), (first, 2, 0)]
    assert past.sources == (Source(third, expired=False, files=1, rows=1),)


def test_live_rows_name_their_snapshot_when_it_has_expired(catalog: Catalog, table: Table) -> None:
    first = build(table, FIRST, "a", "b", run="r1")
    for number in range(3):
        build(table, SECOND, f"k{number}", run=f"again-{number}")
    maintain(catalog, NAME, AT_ONCE, orphans=False)
    past = history(table.refresh(), day=FIRST)
    assert past.entries == ()
    assert past.expired
    assert past.sources == (Source(first, expired=True, files=1, rows=2),)
    assert past.fingerprint == "v1"
    shown = CliRunner().invoke(app, ["history", NAME, "--day", "2013-01-01"]).stdout.splitlines()
    assert f"2 in 1 file, by {first}, which has expired; code v1" in shown[-2]
    assert shown[-1] == "What came before has expired."


def test_what_a_tag_keeps_is_still_history(catalog: Catalog, table: Table) -> None:
    first = build(table, FIRST, "a", run="r1")
    create_tag(table, "pinned")
    for number in range(3):
        build(table, SECOND, f"k{number}", run=f"again-{number}")
    maintain(catalog, NAME, AT_ONCE, orphans=False)
    past = history(table.refresh())
    assert past.entries[-1].snapshot_id == first
    assert past.entries[-1].model is not None
    assert past.expired


def test_a_merge_of_manifests_is_nobodys_run(table: Table) -> None:
    snapshots = [build(table, FIRST + timedelta(days=number), "a", run=f"r{number}") for number in range(FANOUT)]
    assert merge_manifests(table) > 0
    past = history(table.refresh())
    assert (past.entries[0].operation, past.entries[0].model, past.entries[0].rows_added) == ("replace", None, 0)
    assert [entry.snapshot_id for entry in past.entries[1:]] == snapshots[::-1]
    assert [entry.snapshot_id for entry in history(table, day=FIRST).entries] == snapshots[:1]


def test_bronze_shows_the_offsets_of_its_workers_commits(instance: Settings, catalog: Catalog) -> None:
    ingest(instance, "flight_events", departures(FIRST, 3))
    ingest(instance, "flight_events", departures(SECOND, 2))
    past = command("bronze.flight_events")
    assert [commit["worker"]["offsets"] for commit in past["commits"]] == [{"0": [3, 5]}, {"0": [0, 3]}]
    assert past["commits"][0]["worker"]["counts"] == {"accepted": 2, "duplicates": 0, "rejected": 0, "late": 0}
    day = command("bronze.flight_events", "--day", "2013-01-02")
    assert [commit["snapshot_id"] for commit in day["commits"]] == [past["commits"][0]["snapshot_id"]]
    assert "0 [3, 5)" in CliRunner().invoke(app, ["history", "bronze.flight_events"]).stdout
    # Where it began is not known when the snapshot before has expired.
    for _ in range(3):
        ingest(instance, "flight_events", [])
    ingest(instance, "flight_events", departures(SECOND, 1, event_id="late"))
    maintain(catalog, "bronze.flight_events", Retention(keep=1, young=timedelta(0)), orphans=False)
    oldest = command("bronze.flight_events")["commits"][-1]["worker"]
    assert oldest == {"offsets": {"0": [None, 6]}, "counts": None}


def test_the_command_shows_a_run_in_words(table: Table) -> None:
    build(table, FIRST, "a", run="r1")
    shown = CliRunner().invoke(app, ["history", NAME]).stdout
    for told in ("append  +1 -0", "live", "days 2013-01-01/2013-01-01", "code v1", "commit 0123456789ab-dirty",
                 "run r1", "Dagster dagster-r1", "from silver.sample 7"):  # fmt: skip
        assert told in shown


def test_a_day_of_a_table_without_days_is_refused(catalog: Catalog) -> None:
    whole = ensure_table(catalog, "gold.whole", SCHEMA)
    with pytest.raises(LakeError, match="no daily partitions"):
        history(whole, day=FIRST)


def test_a_table_partitioned_by_the_hour_has_days_too(catalog: Catalog) -> None:
    schema = pa.schema([pa.field("hour", pa.timestamp("us", "UTC"))])
    table = ensure_table(catalog, "bronze.hourly", schema, partition_by={"hour": IdentityTransform()})
    hours = [datetime(2013, 1, 1, 23, tzinfo=UTC), datetime(2013, 1, 2, 0, tzinfo=UTC)]
    table.append(pa.Table.from_pylist([{"hour": hour} for hour in hours], schema=schema))
    assert [change.partition["hour"] for change in added_partitions(table, None)] == hours
    assert [entry.rows_added for entry in history(table, day=FIRST).entries] == [1]
