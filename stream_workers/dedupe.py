"""The index of recently seen keys of one Kafka partition. Bronze is its changelog: it is rebuilt from there."""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import xxhash

MICROSECONDS_PER_BUCKET = 3_600_000_000


def key_hash(key: str, version: object | None) -> bytes:
    """The 128-bit hash under which a key (and its version, where the contract has one) is remembered."""
    return xxhash.xxh3_128_digest((key if version is None else f"{key}\0{version}").encode())


class DedupeIndex:
    """Remembers the keys of a window of event time.

    A key is a duplicate when it was seen with an event time inside the window that ends at the newest event time
    *before* the row. The decision depends on the order of the partition only, never on batch boundaries or restarts,
    so a replay from offset 0 decides the same.

    Attributes:
        window: Length of the window, in microseconds.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._seen: dict[bytes, int] = {}
        self._buckets: defaultdict[int, list[bytes]] = defaultdict(list)

    def __len__(self) -> int:
        """Number of keys remembered."""
        return len(self._seen)

    def add(self, hashes: Iterable[bytes], event_times: Iterable[int]) -> None:
        """Remember keys without asking (rebuild from Bronze)."""
        for digest, time in zip(hashes, event_times, strict=True):
            self._remember(digest, time)

    def admit(
        self, hashes: list[bytes], event_times: npt.NDArray[np.int64], newest_before: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Tell first sights from duplicates, and remember the first sights.

        Args:
            hashes: Key hash of each row, in partition order.
            event_times: Event time of each row, in microseconds.
            newest_before: Newest event time of the partition before each row, in microseconds.

        Returns:
            True for rows to keep.
        """
        admitted = np.ones(len(hashes), dtype=np.bool_)
        seen, window = self._seen, self.window
        for row, (digest, time, newest) in enumerate(
            zip(hashes, event_times.tolist(), newest_before.tolist(), strict=True)
        ):
            before = seen.get(digest)
            if before is not None and before >= newest - window:
                admitted[row] = False
            else:
                self._remember(digest, time)
        if len(hashes):
            self._evict(int(max(newest_before[-1], event_times[-1])) - window)
        return admitted

    def _remember(self, digest: bytes, time: int) -> None:
        self._seen[digest] = time
        self._buckets[time // MICROSECONDS_PER_BUCKET].append(digest)

    def _evict(self, before: int) -> None:
        for bucket in [b for b in self._buckets if (b + 1) * MICROSECONDS_PER_BUCKET <= before]:
            for digest in self._buckets.pop(bucket):
                # The key may have been seen again later; then it lives in a newer bucket.
                if self._seen.get(digest, 0) // MICROSECONDS_PER_BUCKET == bucket:
                    self._seen.pop(digest, None)
