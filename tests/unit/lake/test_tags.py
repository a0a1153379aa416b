"""A tag keeps the rows it was put on, and never moves."""

import json
import os
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from typer.testing import CliRunner

from freshdata.cli.main import app
from freshdata.errors import LakeError
from freshdata.lake.catalog import ensure_table, open_catalog
from freshdata.lake.cursors import RUN_PROPERTY
from freshdata.lake.history import history
from freshdata.lake.maintenance import Retention, expire_snapshots, maintain
from freshdata.lake.snapshots import remove_snapshots
from freshdata.lake.tags import create_tag, drop_expired_refs, drop_tag, list_tags, snapshot_at
from freshdata.settings import Settings

# PyIceberg warns when a day that is replaced held no row.
pytestmark = pytest.mark.filterwarnings("ignore:Delete operation did not match any records")

NAME = "gold.sample"
SCHEMA = pa.schema([pa.field("day", pa.date32()), pa.field("key", pa.string())])
DAY = date(2013, 1, 1)
AT_ONCE = Retention(keep=2, young=timedelta(0), cursor_age=timedelta(0), orphan_age=timedelta(0))


@pytest.fixture
def catalog(instance: Settings, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    monkeypatch.setenv("FRESHDATA_HOME", str(instance.home))
    return open_catalog(instance)


@pytest.fixture
def table(catalog: Catalog) -> Table:
    return ensure_table(catalog, NAME, SCHEMA, partition_by={"day": IdentityTransform()})


def write(table: Table, *keys: str) -> int:
    """Replace the day's rows, as a run of a model does; returns the snapshot."""
    table.refresh()
    rows = pa.Table.from_pylist([{"day": DAY, "key": key} for key in keys], schema=SCHEMA)
    table.overwrite(rows, overwrite_filter=f"day = '{DAY}'", snapshot_properties={RUN_PROPERTY: "-".join(keys)})
    return head(table)


def head(table: Table) -> int:
    snapshot = table.refresh().current_snapshot()
    assert snapshot is not None
    return snapshot.snapshot_id


def keys(table: Table, tag: str) -> list[str]:
    ref = table.refresh().refs()[tag]
    return sorted(table.scan(snapshot_id=ref.snapshot_id).to_arrow()["key"].to_pylist())


def command(*arguments: str) -> Any:
    result = CliRunner().invoke(app, ["snapshot", NAME, *arguments, "--json"])
    if isinstance(result.exception, LakeError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_tag_reads_the_same_after_commits_maintenance_and_an_orphan_sweep(catalog: Catalog, table: Table) -> None:
    write(table, "a", "b")
    tag = create_tag(table, "TRAINING_2013_01")
    for number in range(12):
        write(table, f"k{number}")
    write(table, "last")
    assert maintain(catalog, NAME, AT_ONCE, orphans=False).expired > 0
    # A sweep removes what nothing refers to, once a head is an hour younger than it: here all is made that old.
    folder = Path(table.location().removeprefix("file://"))
    for path in folder.rglob("*.*"):
        os.utime(path, (time.time() - 7200,) * 2)
    assert maintain(catalog, NAME, AT_ONCE).orphans > 0
    assert keys(table, "TRAINING_2013_01") == ["a", "b"]
    assert list_tags(table) == [tag]
    assert keys(table, "main") == ["last"]


def test_a_tag_never_moves(table: Table) -> None:
    first = write(table, "a")
    create_tag(table, "pinned")
    write(table, "b")
    with pytest.raises(LakeError, match=rf"tag pinned already, on snapshot {first}.*--drop pinned"):
        create_tag(table, "pinned")
    with pytest.raises(LakeError, match=r"a branch main already|no name for a tag"):
        create_tag(table, "main")
    assert keys(table, "pinned") == ["a"]
    assert drop_tag(table, "pinned").snapshot_id == first
    assert list_tags(table) == []


@pytest.mark.parametrize("name", ["", "2013", "two words", "x;y", "-x", "a" * 129, "ünicode"])
def test_a_name_that_engines_would_not_take_is_refused(table: Table, name: str) -> None:
    write(table, "a")
    with pytest.raises(LakeError, match="no name for a tag"):
        create_tag(table, name)


def test_what_cannot_be_tagged_is_explained(table: Table) -> None:
    with pytest.raises(LakeError, match="no rows yet"):
        create_tag(table, "early")
    write(table, "a")
    write(table, "b")
    with pytest.raises(LakeError, match="no snapshot 17, or it has expired"):
        create_tag(table, "lost", snapshot_id=17)
    half = table.current_snapshot().parent_snapshot_id
    with pytest.raises(LakeError, match=rf"one half of a change.*{head(table)}"):
        create_tag(table, "half", snapshot_id=half)
    with pytest.raises(LakeError, match="has no tag lost"):
        drop_tag(table, "lost")


def test_a_tag_of_a_time_is_on_the_whole_change_before_it(table: Table) -> None:
    first, second = write(table, "a"), write(table, "b")
    made = {snapshot.snapshot_id: snapshot.timestamp_ms for snapshot in table.snapshots()}
    half = table.snapshot_by_id(second).parent_snapshot_id

    def at(milliseconds: float) -> int:
        return snapshot_at(table, datetime.fromtimestamp(milliseconds / 1000, UTC))

    assert at(made[second]) == second
    # Between the two snapshots of one change its rows were taken away and not yet put back.
    assert at((made[half] + made[second]) / 2 - 0.001) == first
    with pytest.raises(LakeError, match="oldest snapshot that is kept"):
        at(made[first] - 1)


def test_a_commit_in_between_is_no_reason_to_fail(
    catalog: Catalog, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(table, "a")
    commit, tries = Table._do_commit, []

    def late(self: Table, *args: Any, **kwargs: Any) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise CommitFailedException("another writer was first")
        commit(self, *args, **kwargs)
        if len(tries) == 2:
            raise TimeoutError("the answer was lost")

    monkeypatch.setattr(Table, "_do_commit", late)
    assert create_tag(table, "tried").snapshot_id == first
    assert len(tries) == 2


def test_expiry_that_was_planned_before_a_tag_does_not_take_it(catalog: Catalog, table: Table) -> None:
    snapshots = [write(table, f"k{number}") for number in range(4)]
    planning = catalog.load_table(NAME)
    create_tag(table, "just_now", snapshot_id=snapshots[0])
    with pytest.raises(CommitFailedException, match="just_now"):
        remove_snapshots(planning, snapshots[:2])
    assert expire_snapshots(planning, {}, AT_ONCE) > 0
    assert keys(table, "just_now") == ["k0"]


def test_a_tag_with_an_age_is_dropped_by_maintenance_and_its_rows_with_it(catalog: Catalog, table: Table) -> None:
    snapshots = [write(table, f"k{number}") for number in range(4)]
    kept = create_tag(table, "kept", snapshot_id=snapshots[1], kept=timedelta(days=90))
    assert kept.expires is not None
    assert timedelta(days=89) < kept.expires - datetime.now(UTC) < timedelta(days=91)
    create_tag(table, "brief", snapshot_id=snapshots[0], kept=timedelta(milliseconds=1))
    deadline = time.monotonic() + 10
    while list_tags(table)[0].expires > datetime.now(UTC):
        assert time.monotonic() < deadline
    maintain(catalog, NAME, AT_ONCE, orphans=False)
    assert [tag.name for tag in list_tags(table.refresh())] == ["kept"]
    assert table.snapshot_by_id(snapshots[0]) is None
    assert keys(table, "kept") == ["k1"]
    assert drop_expired_refs(table) == []


def test_the_command_tags_lists_and_drops(table: Table) -> None:
    first = write(table, "a")
    write(table, "b")
    assert command("--tag", "old", "--snapshot-id", str(first))["tagged"]["snapshot_id"] == str(first)
    assert command("--tag", "now", "--as-of", "2999-01-01")["tagged"]["snapshot_id"] == str(head(table))
    listed = command()
    assert [tag["name"] for tag in listed["tags"]] == ["now", "old"]
    # Each change is two snapshots to Iceberg, and one to its readers.
    assert [entry["snapshot_id"] for entry in listed["snapshots"]] == [str(head(table)), str(first)]
    assert listed["snapshots"][1]["tags"] == ["old"]
    with pytest.raises(LakeError, match="never moves"):
        command("--tag", "old")
    assert command("--drop", "old")["dropped"]["name"] == "old"
    shown = CliRunner().invoke(app, ["snapshot", NAME])
    assert "now" in shown.stdout
    assert str(first) in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--tag", "a", "--drop", "a"], "either --tag or --drop"),
        (["--as-of", "2013-01-01"], "say where --tag goes"),
        (["--tag", "a", "--as-of", "yesterday"], "no ISO 8601 time"),
    ],
)
def test_options_that_contradict_each_other_are_refused(table: Table, arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(app, ["snapshot", NAME, *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert told in result.output


def test_a_rolled_back_snapshot_is_no_history(table: Table) -> None:
    first = write(table, "a")
    write(table, "b")
    table.manage_snapshots().rollback_to_snapshot(first).commit()
    assert [entry.snapshot_id for entry in history(table.refresh()).entries] == [first]
