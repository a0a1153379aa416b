"""The dedupe index decides by the partition's order only."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_workers.dedupe import ROOMY, SMALLEST, DedupeIndex, key_hashes

HOUR = 3_600_000_000
LONG_AGO = -(2**62)


def hashes(keys):
    return key_hashes([key.encode() for key in keys])


def admit(index, keys, times, newest=None):
    before = newest or np.maximum.accumulate([LONG_AGO, *times])[:-1]
    return index.admit(hashes(keys), np.array(times, np.int64), np.array(before, np.int64)).tolist()


def test_a_repeat_is_found_inside_a_batch_and_across_batches():
    index = DedupeIndex(24 * HOUR)
    assert admit(index, ["a", "b", "a"], [1, 2, 1]) == [True, True, False]
    assert admit(index, ["b", "c"], [2, 3], newest=[2, 2]) == [False, True]


def test_a_repeat_after_the_window_is_a_new_event():
    index = DedupeIndex(2 * HOUR)
    assert admit(index, ["a", "b"], [0, 10 * HOUR]) == [True, True]
    assert admit(index, ["a", "a"], [0, 10 * HOUR], newest=[10 * HOUR, 10 * HOUR]) == [True, True]
    assert admit(index, ["a"], [0], newest=[10 * HOUR]) == [False]


def test_memory_follows_the_window_not_the_stream():
    index = DedupeIndex(2 * HOUR)
    keys = SMALLEST // 8
    for hour in range(60):
        names, times = [f"{hour}-{n}" for n in range(keys)], [hour * HOUR] * keys
        assert all(admit(index, names, times, newest=[max(hour - 1, 0) * HOUR] * keys))
        assert not any(admit(index, names, times, newest=[hour * HOUR] * keys))
    assert index.nbytes <= 24 * 4 * keys / ROOMY  # The window, and the batch, at the roomiest.


def test_keys_survive_the_growth_of_the_table():
    index, keys = DedupeIndex(HOUR), [f"k{n}" for n in range(3 * SMALLEST)]
    for start in range(0, len(keys), 1000):
        assert all(admit(index, keys[start : start + 1000], [0] * len(keys[start : start + 1000])))
    assert not any(admit(index, keys, [0] * len(keys), newest=[0] * len(keys)))
    assert len(index) == len(keys)


def test_versions_of_a_key_are_told_apart():
    first, second, none, empty = (
        key_hashes([b"a"], versions).tolist() for versions in ([1], [2], None, [None])
    )  # fmt: skip
    assert first != second != none != empty != first


@given(
    events=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 12)), max_size=80),
    cuts=st.lists(st.integers(0, 80), max_size=5),
)
def test_batch_boundaries_and_restarts_change_nothing(events, cuts):
    """A batch may end anywhere and the index may be rebuilt from what was stored: the outcome is the same."""
    keys = hashes([f"k{key}" for key, _ in events])
    times = np.array([time * HOUR for _, time in events], dtype=np.int64)
    newest = np.maximum.accumulate(np.array([LONG_AGO, *times.tolist()], dtype=np.int64))
    expected, stored = [], {}
    for (key, _), time, before in zip(events, times.tolist(), newest.tolist(), strict=False):
        expected.append(all(other < before - 3 * HOUR for other in stored.get(key, [])))
        if expected[-1]:
            stored.setdefault(key, []).append(time)
    found: list[bool] = []
    cuts = sorted(min(cut, len(events)) for cut in cuts)
    for start, end in zip([0, *cuts], [*cuts, len(events)], strict=True):
        index = DedupeIndex(3 * HOUR)
        kept = [n for n in range(start) if found[n] and times[n] >= newest[start] - 3 * HOUR]
        index.add(keys[kept], times[kept])
        found += index.admit(keys[start:end], times[start:end], newest[:-1][start:end]).tolist()
    assert found == expected


@given(st.lists(st.integers(0, 40), max_size=200), st.integers(1, 50))
def test_keys_of_one_home_slot_are_told_apart(lows, step):
    """Half of the hash decides the slot: with equal halves every key probes past the others."""
    index, seen = DedupeIndex(HOUR), set()
    for start in range(0, len(lows), step):
        part = lows[start : start + step]
        rows = np.array([[-1, low] for low in part], dtype=np.int64)
        admitted = index.admit(rows, np.zeros(len(part), np.int64), np.zeros(len(part), np.int64)).tolist()
        for low, first in zip(part, admitted, strict=True):
            assert first == (low not in seen)
            seen.add(low)
