"""One clock for everything that compares with now."""

from datetime import UTC, date, datetime, timedelta

from freshdata.clock import DEFAULT_START, instance_clock


def test_without_a_replay_the_clock_is_the_system_s(tmp_path):
    clock = instance_clock(tmp_path)
    assert not clock.simulated
    assert clock.start == DEFAULT_START
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_replay_sets_the_present_for_every_process(tmp_path):
    present = datetime(2013, 2, 1, 10, tzinfo=UTC)
    instance_clock(tmp_path).set(start=date(2013, 1, 1), now=present)
    clock = instance_clock(tmp_path)
    assert clock.simulated
    assert clock.now() == present


def test_a_live_sample_sets_the_first_day_only(tmp_path):
    instance_clock(tmp_path).set(start=date(2026, 1, 1), now=None)
    clock = instance_clock(tmp_path)
    assert not clock.simulated
    assert clock.start == date(2026, 1, 1)
