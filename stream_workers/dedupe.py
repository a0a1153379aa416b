"""The index of recently seen keys of one Kafka partition. Bronze is its changelog: it is rebuilt from there."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xxhash

Integers = npt.NDArray[np.int64]

EMPTY = np.iinfo(np.int64).min
CLAIMED = EMPTY + 1  # Plus a row number: a slot that this row has just taken.
SMALLEST = 1 << 14  # slots
FULLEST = 0.7  # Beyond it linear probing gets long: 6 slots for a key that is not there.
ROOMY = 0.5  # After a rebuild: 48 bytes a key at most, 34 at least.


def key_hashes(keys: Sequence[bytes | None], versions: Sequence[object] | None = None) -> Integers:
    """The 128-bit hashes (xxh3) under which keys, with their versions where the contract has them, are remembered.

    Returns:
        Shape ``(len(keys), 2)``.
    """
    digest = xxhash.xxh3_128_digest
    if versions is None:
        digests = [digest(key or b"") for key in keys]
    else:
        digests = [digest(b"%b\0%b" % (key or b"", str(v).encode())) for key, v in zip(keys, versions, strict=True)]
    return np.frombuffer(b"".join(digests), dtype=np.int64).reshape(-1, 2)


class DedupeIndex:
    """Remembers the keys of a window of event time, 24 bytes a slot: a hash table in three arrays, open addressing.

    A key is a duplicate when it was admitted with an event time inside the window that ends at the newest event time
    *before* the row. The decision depends on the order of the partition only, never on batch boundaries or restarts,
    so a replay from offset 0 decides the same. Probing is linear (Knuth, The Art of Computer Programming 6.4,
    algorithm L) and done for all keys of a batch at once. Keys that left the window go when the table is rebuilt.

    Attributes:
        window: Length of the window, in microseconds.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._count = 0
        self._allocate(SMALLEST)

    def __len__(self) -> int:
        """Number of keys held."""
        return self._count

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self._high.nbytes + self._low.nbytes + self._times.nbytes

    def add(self, hashes: Integers, event_times: Integers) -> None:
        """Remember keys without asking (rebuild from Bronze)."""
        self._make_room(len(hashes), EMPTY)
        at = self._find(hashes)
        self._count += int(np.count_nonzero(self._times.take(at) == CLAIMED + np.arange(len(at))))
        np.maximum.at(self._times, at, event_times)

    def admit(self, hashes: Integers, event_times: Integers, newest_before: Integers) -> npt.NDArray[np.bool_]:
        """Tell first sights from duplicates, and remember the first sights.

        Args:
            hashes: Key hash of each row, in partition order.
            event_times: Event time of each row, in microseconds.
            newest_before: Newest event time of the partition before each row, in microseconds.

        Returns:
            True for rows to keep.
        """
        if not len(hashes):
            return np.ones(0, dtype=np.bool_)
        oldest = newest_before - self.window
        self._make_room(len(hashes), int(oldest[0]))
        at = self._find(hashes)
        seen = self._times.take(at)
        first = seen == CLAIMED + np.arange(len(at))
        self._count += int(np.count_nonzero(first))
        self._times[at[first]] = event_times[first]
        admitted = seen < oldest
        # Only a key that comes again within the batch, or after its window, depends on what the rows before it did.
        for row in np.flatnonzero(admitted & ~first).tolist():
            newest = self._times[at[row]]
            admitted[row] = newest < oldest[row]
            if admitted[row]:
                self._times[at[row]] = max(newest, event_times[row])
        return admitted

    def _find(self, hashes: Integers) -> Integers:
        """The slot of each key; a key that is not there takes the first free one, marked with its row."""
        size = len(self._times)
        high, low = hashes[:, 0].copy(), hashes[:, 1].copy()
        at = _home(high, size)
        todo, here = np.arange(len(high)), at
        while todo.size:
            # Of several keys that want one slot the last write stays: backwards, that is the first row's.
            free = np.flatnonzero(self._times.take(here) == EMPTY)[::-1]
            slots, rows = here[free], todo[free]
            self._high[slots], self._low[slots], self._times[slots] = high[rows], low[rows], CLAIMED + rows
            other = (self._high.take(here) != high[todo]) | (self._low.take(here) != low[todo])
            todo = todo[other]
            here = (here[other] + 1) % size
            at[todo] = here
        return at

    def _make_room(self, keys: int, oldest: int) -> None:
        """Rebuild the table without the keys that left the window, if it could get too full."""
        if self._count + keys <= FULLEST * len(self._times):
            return
        held = np.flatnonzero(self._times >= max(oldest, EMPTY + 1))
        held = held[
            np.argsort(self._high[held].view(np.uint64), kind="stable")
        ]  # Nearly sorted: it lies in that order.
        high, low, times = self._high[held], self._low[held], self._times[held]
        size = max(SMALLEST, int((len(times) + keys) / ROOMY))
        self._allocate(size)
        self._count = len(times)
        # Keys in the order of their home slots: linear probing puts each into its home, or behind the one before it.
        ranks = np.arange(len(times))
        slots = (np.maximum.accumulate(_home(high, size) - ranks) + ranks) if len(times) else ranks
        fits = slots < size
        slots = slots[fits]
        self._high[slots], self._low[slots], self._times[slots] = high[fits], low[fits], times[fits]
        over = ~fits  # Beyond the end probing goes on at the beginning.
        self._times[self._find(np.stack((high[over], low[over]), axis=1))] = times[over]

    def _allocate(self, slots: int) -> None:
        # The old arrays are let go of before the new ones are made: both may be large.
        self._high = self._low = self._times = np.empty(0, dtype=np.int64)
        self._high, self._low = np.zeros(slots, dtype=np.int64), np.zeros(slots, dtype=np.int64)
        self._times = np.full(slots, EMPTY)


def _home(high: Integers, size: int) -> Integers:
    # The upper half of the hash scaled to the table's size: no power of two is needed, and the order is the hash's.
    return (((high.view(np.uint64) >> np.uint64(32)) * np.uint64(size)) >> np.uint64(32)).view(np.int64)
