"""The kept statistics of a real table's days."""

from datetime import date

import pyarrow as pa
import pytest
from pyiceberg.expressions import EqualTo
from pyiceberg.transforms import IdentityTransform

from freshdata.errors import LakeError
from freshdata.lake.catalog import ensure_table, open_catalog
from freshdata.quality.profiles import Profiles

SCHEMA = pa.schema([("day", pa.date32()), ("id", pa.int32()), ("state", pa.string())])
DAYS = [date(2013, 1, day) for day in (1, 2, 3)]


def rows(day, *ids, state="a"):
    return pa.table({"day": [day] * len(ids), "id": ids, "state": [state] * len(ids)}, schema=SCHEMA)


@pytest.fixture
def table(instance):
    table = ensure_table(open_catalog(instance), "silver.t", SCHEMA, partition_by={"day": IdentityTransform()})
    for day in DAYS:
        table.append(rows(day, 1, 2, 3))
    return table


def profiles(instance, table):
    """As a new process would open them."""
    return Profiles(instance.home / "profiles", table.catalog.load_table("silver.t"), "day", ("id", "state", "gone"))


def test_a_day_is_read_once(instance, table):
    first = profiles(instance, table)
    found = first.of([*DAYS, date(2013, 1, 9)])
    assert (list(found), first.computed) == (DAYS, DAYS)
    assert found[DAYS[0]].columns["state"].shares == {"a": 1.0}
    again = profiles(instance, table)
    assert again.of(DAYS) == found
    assert again.computed == []


def test_late_rows_of_an_old_day_are_learned(instance, table):
    profiles(instance, table).of(DAYS)
    table.append(rows(DAYS[0], 4, state="b"))
    later = profiles(instance, table)
    assert later.of(DAYS)[DAYS[0]].columns["state"].shares == {"a": 0.75, "b": 0.25}
    assert later.computed == [DAYS[0]]


def test_deleted_rows_are_unlearned_and_an_emptied_day_is_gone(instance, table):
    profiles(instance, table).of(DAYS)
    table.delete(EqualTo("id", 2))
    table.delete(EqualTo("day", DAYS[2]))
    later = profiles(instance, table)
    assert {day: profile.rows for day, profile in later.of(DAYS).items()} == {DAYS[0]: 2, DAYS[1]: 2}
    assert later.computed == DAYS[:2]


def test_what_is_kept_of_days_that_are_not_looked_at_any_more_is_given_up(instance, table):
    profiles(instance, table).of(DAYS)
    later = profiles(instance, table)
    later.of(DAYS[1:])
    assert later.computed == []
    assert sorted(path.name for path in (instance.home / "profiles" / "silver.t").iterdir()) == [
        f"{day}.json" for day in DAYS[1:]
    ]
    table.delete(EqualTo("day", DAYS[1]))
    profiles(instance, table).of(DAYS[1:])
    assert [path.name for path in (instance.home / "profiles" / "silver.t").iterdir()] == [f"{DAYS[2]}.json"]
    # It is made anew for whoever asks.
    assert list(profiles(instance, table).of(DAYS[:1])) == DAYS[:1]


def test_other_columns_are_learned_anew(instance, table):
    profiles(instance, table).of(DAYS)
    with table.update_schema() as change:
        change.delete_column("state")
    later = profiles(instance, table)
    assert set(later.of(DAYS)[DAYS[0]].columns) == {"id"}
    assert later.computed == DAYS


def test_rows_are_counted_where_there_is_nothing_else_to_look_at(instance, table):
    found = Profiles(instance.home / "profiles", table, "day", ()).of(DAYS)
    assert [profile.rows for profile in found.values()] == [3, 3, 3]


def test_a_table_without_days_is_refused_with_the_remedy(instance):
    table = ensure_table(open_catalog(instance), "silver.t", SCHEMA)
    table.append(rows(DAYS[0], 1))
    with pytest.raises(LakeError, match=r"not partitioned by day.*partitioned_by \(day\)"):
        profiles(instance, table).of(DAYS)
