"""A stream's watermark: the minimum of its live partitions, and never backwards."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from freshdata.lake.progress import PartitionProgress, Progress
from stream_workers.watermark import StreamWatermark

LATENESS = timedelta(hours=6)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def rules(contracts):
    """Two partitions that are idle after a minute."""
    minute = timedelta(minutes=1)
    return replace(
        contracts["flight_events"].rules, topic_partitions=2, allowed_lateness=LATENESS, partition_idle_after=minute
    )


def progress(**hours):
    """Progress of partitions p0, p1, … whose newest event is so many hours after noon, with as many records."""
    return Progress("cluster", "topic", {int(name[1:]): part(hour) for name, hour in hours.items()})


def part(hour):
    newest = int((NOON + timedelta(hours=hour)).timestamp() * 1_000_000)
    return PartitionProgress(offset=hour, max_event_time=newest, consumed=hour, accepted=hour)


def at(hours):
    return NOON + timedelta(hours=hours) - LATENESS


def test_it_is_the_lowest_of_the_partitions(rules):
    mark = StreamWatermark(rules, 0)
    assert mark.advance(progress(p0=5, p1=3), None, 1) == at(3)
    assert mark.current == at(3)


def test_a_partition_without_any_record_yet_holds_it_back_until_it_counts_as_idle(rules):
    mark = StreamWatermark(rules, 0)
    assert mark.advance(progress(p0=5), None, 59) is None
    assert mark.advance(progress(p0=6), None, 60) == at(6)


def test_an_idle_partition_does_not_freeze_it(rules):
    mark = StreamWatermark(rules, 0)
    assert mark.advance(progress(p0=5, p1=3), None, 1) == at(3)
    assert mark.advance(progress(p0=7, p1=3), at(3), 60) == at(3)
    assert mark.advance(progress(p0=8, p1=3), at(3), 61) == at(8)


def test_a_partition_that_wakes_up_behind_it_does_not_move_it_back(rules):
    mark = StreamWatermark(rules, 0)
    mark.advance(progress(p0=5, p1=3), None, 1)
    assert mark.advance(progress(p0=8, p1=3), at(3), 100) == at(8)
    assert mark.advance(progress(p0=8, p1=4), at(8), 101) == at(8)
    assert mark.advance(progress(p0=9, p1=9), at(8), 102) == at(9)


def test_a_partition_of_broken_records_only_does_not_freeze_it(rules):
    mark = StreamWatermark(rules, 0)
    broken = {1: PartitionProgress(offset=50, consumed=50, rejected=50)}
    assert mark.advance(progress(p0=5).merged(broken), None, 1) is None
    assert mark.advance(progress(p0=6).merged(broken).merged(broken), None, 100) == at(6)


def test_a_restart_goes_on_from_what_the_table_records(rules):
    restarted = StreamWatermark(rules, 1000)
    assert restarted.advance(progress(p0=9, p1=3), at(8), 1001) == at(8)


def test_two_partitions_that_are_both_silent_keep_it_where_it_is(rules):
    mark = StreamWatermark(rules, 0)
    assert mark.advance(progress(p0=5, p1=3), None, 1) == at(3)
    assert mark.advance(progress(p0=5, p1=3), at(3), 1000) == at(3)


def test_an_outage_of_the_lake_makes_no_partition_idle(rules):
    mark = StreamWatermark(rules, 0)
    mark.advance(progress(p0=5, p1=3), None, 1)
    mark.skip(600)
    assert mark.advance(progress(p0=8, p1=3), at(3), 605) == at(3)
