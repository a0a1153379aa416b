"""The dedupe index decides by the partition's order only."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_workers.dedupe import MICROSECONDS_PER_BUCKET, DedupeIndex, key_hash

HOUR = MICROSECONDS_PER_BUCKET


def admit(index, keys, times, newest=None):
    before = newest or np.maximum.accumulate([-(2**62), *times])[:-1]
    return index.admit([key_hash(key, None) for key in keys], np.array(times), np.array(before)).tolist()


def test_a_repeat_is_found_inside_a_batch_and_across_batches():
    index = DedupeIndex(24 * HOUR)
    assert admit(index, ["a", "b", "a"], [1, 2, 1]) == [True, True, False]
    assert admit(index, ["b", "c"], [2, 3], newest=[2, 2]) == [False, True]


def test_a_repeat_after_the_window_is_a_new_event():
    index = DedupeIndex(2 * HOUR)
    assert admit(index, ["a", "b"], [0, 10 * HOUR]) == [True, True]
    assert admit(index, ["a"], [0], newest=[10 * HOUR]) == [True]


def test_keys_leave_the_index_with_the_window():
    index = DedupeIndex(2 * HOUR)
    for hour in range(100):
        admit(index, [f"k{hour}"], [hour * HOUR], newest=[max(hour - 1, 0) * HOUR])
    assert len(index) <= 4


def test_versions_of_a_key_are_told_apart():
    assert key_hash("a", 1) != key_hash("a", 2) != key_hash("a", None)


@given(
    events=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 12)), max_size=80),
    cuts=st.lists(st.integers(0, 80), max_size=5),
)
def test_batch_boundaries_and_restarts_change_nothing(events, cuts):
    """A batch may end anywhere and the index may be rebuilt from what was stored: the outcome is the same."""
    keys = [f"k{key}" for key, _ in events]
    times = [time * HOUR for _, time in events]
    newest = np.maximum.accumulate([-(2**62), *times]).tolist()
    whole = DedupeIndex(3 * HOUR)
    expected = whole.admit([key_hash(k, None) for k in keys], np.array(times, dtype=np.int64), np.array(newest[:-1]))
    found: list[bool] = []
    cuts = sorted(min(cut, len(events)) for cut in cuts)
    for start, end in zip([0, *cuts], [*cuts, len(events)], strict=True):
        index = DedupeIndex(3 * HOUR)
        stored = [n for n in range(start) if found[n] and times[n] >= newest[start] - 3 * HOUR]
        index.add([key_hash(keys[n], None) for n in stored], [times[n] for n in stored])
        part = slice(start, end)
        found += index.admit(
            [key_hash(k, None) for k in keys[part]],
            np.array(times[part], dtype=np.int64),
            np.array(newest[:-1][part], dtype=np.int64),
        ).tolist()
    assert found == expected.tolist()
