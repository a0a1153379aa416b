"""What two cursors of one table have both seen."""

from datetime import date

import pytest

from freshdata.lake.catalog import load_table
from freshdata.lake.cursors import Cursor, Mark, common
from tests.bronze import append, flight_event

BRONZE = "bronze.flight_events"


@pytest.fixture
def snapshots(catalog):
    return [append(catalog, "flight_events", [flight_event(date(2013, 1, 1), number)]) for number in range(3)]


def test_it_is_the_earlier_snapshot_whichever_comes_first(catalog, snapshots):
    older, newer = (Cursor({BRONZE: snapshots[n]}, "v1", {BRONZE: Mark(n + 1, n)}) for n in (0, 2))
    for pair in ((older, newer), (newer, older)):
        found = common(catalog, *pair)
        assert found == older
        assert found.marks == older.marks
    assert common(catalog, newer, newer) is newer


def test_a_snapshot_that_has_expired_was_before_all_that_is_left(catalog, snapshots):
    load_table(catalog, BRONZE).maintenance.expire_snapshots().by_id(snapshots[0]).commit()
    expired, newer = Cursor({BRONZE: snapshots[0]}, "v1"), Cursor({BRONZE: snapshots[2]}, "v1")
    assert common(catalog, newer, expired) == common(catalog, expired, newer) == expired


def test_of_other_code_or_of_no_run_nothing_is_known(catalog, snapshots):
    cursor = Cursor({BRONZE: snapshots[2]}, "v1")
    for other in (None, Cursor({BRONZE: snapshots[2]}, "v2")):
        assert common(catalog, cursor, other) == common(catalog, other, cursor) == Cursor({}, "")
    assert common(catalog, None, None) is None


def test_a_table_that_only_one_has_seen_is_left_out(catalog, snapshots):
    one, other = Cursor({BRONZE: snapshots[1]}, "v1"), Cursor({BRONZE: snapshots[1], "silver.x": 1}, "v1")
    assert common(catalog, one, other) == one
