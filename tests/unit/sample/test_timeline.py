"""What is sent, and when: true events always, disorder on top of them."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from functools import cache

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from freshdata.contracts.decode import Decoder
from freshdata.sample import flights
from freshdata.sample.disorder import damages
from freshdata.sample.timeline import SEQUENCE_STEP, Plan, Timeline, historical_plan, live_plan
from freshdata.settings import PROJECT

ALL = range(100)


def messages(timeline, numbers=ALL):
    parts = []
    for number in numbers:
        part = timeline.chunk(number)
        if part is None:
            break
        parts.append(part)
    return pa.concat_tables(parts)


@pytest.fixture(scope="module", autouse=True)
def source_read_once():
    """The year's events take seconds to make; every timeline here starts from the same ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flights, "flight_events", cache(flights.flight_events))
        yield


@pytest.fixture(scope="module")
def contracts():
    from freshdata.contracts import load_contracts

    return load_contracts(PROJECT / "contracts")


@pytest.fixture(scope="module")
def plain(contracts):
    return messages(Timeline(contracts, historical_plan(1, disorder=False, seed=1)))


@pytest.fixture(scope="module")
def disordered(contracts):
    return messages(Timeline(contracts, historical_plan(1, disorder=True, seed=1)))


def test_a_month_is_all_its_flights_and_observations(plain):
    counts = Counter(plain["stream"].to_pylist())
    assert counts == {"flight_events": 2 * 27_004 - 521, "weather": 2_226}
    assert set(plain["event_date"].to_pylist()) == {date(2013, 1, day) for day in range(1, 32)}
    assert pc.all(pc.equal(plain["late_by_seconds"], 0)).as_py()


@pytest.mark.parametrize("kind", ["plain", "disordered"])
def test_messages_are_in_sending_order(kind, request):
    sent = request.getfixturevalue(kind)
    for column in ("sent_at", "seq"):
        values = pc.cast(sent[column], pa.int64()).to_numpy()
        assert (np.diff(values) >= (1 if column == "seq" else 0)).all()


def test_disorder_neither_removes_nor_changes_a_true_event(plain, disordered):
    real = disordered.filter(pc.equal(disordered["kind"], "real"))
    assert Counter(zip(real["key"].to_pylist(), real["payload"].to_pylist(), strict=True)) == Counter(
        zip(plain["key"].to_pylist(), plain["payload"].to_pylist(), strict=True)
    )
    others = disordered.filter(pc.is_in(disordered["kind"], pa.array(["malformed", "contract"])))
    assert not set(others["key"].to_pylist()) & set(plain["key"].to_pylist())
    assert len(set(others["key"].to_pylist())) == len(others)


def test_all_kinds_of_disorder_occur_in_moderation(disordered):
    for stream in ("flight_events", "weather"):
        own = disordered.filter(pc.equal(disordered["stream"], stream))
        shares = {kind: count / len(own) for kind, count in Counter(own["kind"].to_pylist()).items()}
        assert all(0.0005 < shares[kind] < 0.03 for kind in ("duplicate", "malformed", "contract")), shares
        held = own["late_by_seconds"].to_numpy()
        assert 0.001 < (held > 6 * 3600).mean() < 0.03
        assert 0.01 < ((held > 0) & (held <= 3600)).mean() < 0.05
    payloads = disordered["payload"].to_pylist()
    assert b"" in payloads
    assert any(b"\xff" in payload for payload in payloads)


def test_a_repeat_follows_its_original_within_days(disordered):
    first = {}
    for row in disordered.select(["key", "payload", "kind", "sent_at"]).to_pylist():
        if row["kind"] == "real":
            first[row["key"]] = row
        elif row["kind"] == "duplicate":
            original = first[row["key"]]
            assert original["payload"] == row["payload"]
            assert timedelta(0) < row["sent_at"] - original["sent_at"] <= timedelta(hours=48)


def test_a_true_event_is_known_when_it_happens_or_when_it_was_held_back_to(disordered):
    real = disordered.filter(pc.equal(disordered["kind"], "real"))
    for row in real.slice(0, 5000).to_pylist():
        happened = datetime.fromisoformat(msgspec.json.decode(row["payload"])["event_time"])
        assert row["sent_at"] - happened == timedelta(seconds=row["late_by_seconds"])


def test_the_contract_accepts_and_refuses_as_the_ledger_expects(contracts, disordered):
    for stream in ("flight_events", "weather"):
        own = disordered.filter(pc.equal(disordered["stream"], stream))
        times = pc.cast(own["sent_at"], pa.int64()).to_numpy() * 1000
        decoded = Decoder(contracts[stream])(own["payload"].to_pylist(), own["key"].to_pylist(), times)
        good = np.zeros(len(own), dtype=bool)
        good[decoded.positions] = True
        assert [bool(value) for value in good] == [value != "rejected" for value in own["expected"].to_pylist()]


@pytest.mark.parametrize("stream", ["flight_events", "weather"])
def test_each_damage_breaks_the_contract(contracts, plain, stream):
    own = plain.filter(pc.equal(plain["stream"], stream))
    row = own.slice(0, 1).to_pylist()[0]
    decoder = Decoder(contracts[stream])
    times = np.array([row["sent_at"].timestamp() * 1000], dtype=np.int64)
    ways = damages(contracts[stream])
    assert len(ways) > 20
    for way in ways:
        event = msgspec.json.decode(row["payload"])
        way(event, row["sent_at"])
        assert decoder([msgspec.json.encode(event)], [row["key"]], times).rejected, event


def test_equal_seeds_make_equal_messages_and_weeks_stand_alone(contracts, disordered):
    again = Timeline(contracts, historical_plan(1, disorder=True, seed=1)).chunk(2)
    inside = pc.and_(
        pc.greater_equal(disordered["seq"], 2 * SEQUENCE_STEP), pc.less(disordered["seq"], 3 * SEQUENCE_STEP)
    )
    assert again.equals(disordered.filter(inside).combine_chunks())
    assert not Timeline(contracts, historical_plan(1, disorder=True, seed=2)).chunk(2).equals(again)


def test_the_live_sample_is_the_same_season_moved_by_weeks(contracts):
    now = datetime(2026, 11, 22, 15, tzinfo=UTC)
    plan = live_plan(now, 7, disorder=False, seed=1)
    assert plan.first == date(2026, 11, 15)
    assert Plan.from_json(plan.to_json()) == plan
    week = Timeline(contracts, plan).chunk(0)
    assert set(week["event_date"].to_pylist()) == {date(2026, 11, day) for day in range(15, 22)}
    shift = timedelta(weeks=plan.shift_weeks)
    assert abs((datetime(2026, 11, 22, tzinfo=UTC) - shift - datetime(2013, 11, 22, tzinfo=UTC)).days) <= 3
    row = week.filter(pc.equal(week["stream"], "flight_events")).slice(0, 1).to_pylist()[0]
    event = msgspec.json.decode(row["payload"])
    assert event["flight_date"] == row["event_date"].isoformat()
    assert event["flight_date"].replace("-", "") in event["event_id"]
    assert event["event_id"].encode() == row["key"]


def test_the_live_sample_goes_round_without_gap_or_repeat(contracts):
    """Over New Year of the sample's year the next repetition begins; flights of two years never share an id."""
    plan = live_plan(datetime(2026, 12, 24, tzinfo=UTC), 3, disorder=False, seed=1)
    sent = messages(Timeline(contracts, plan), range(4))
    keys = sent["key"].to_pylist()
    assert len(set(keys)) == len(keys)
    flown = sent.filter(pc.equal(sent["stream"], "flight_events"))
    per_day = Counter(flown["event_date"].to_pylist())
    days = [plan.first + timedelta(days=number) for number in range(27)]
    assert all(per_day[day] > 1000 for day in days)
