"""Set up the process for a loop that makes and drops ten thousand messages a time.

Python's collector counts new objects: at a hundred thousand messages a second it walked over all imported modules again
and again, a seventh of the worker's time. The C library gives large freed blocks back to the system at once, and each
comes back as fresh pages: a tenth.
"""

import ctypes
import gc

import pyarrow as pa

# glibc's mallopt: which blocks are mapped on their own, how much free memory is kept, how much is fetched at a time.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
KEPT = 1 << 30  # bytes
FETCHED = 1 << 26  # bytes
YOUNG_OBJECTS = 100_000


def tune_process() -> None:
    """Let the collector skip what is imported by now, and the allocator keep what is freed."""
    # Arrow's own allocator gives back what is free for ten milliseconds, a tenth of the time between two commits.
    pa.set_memory_pool(pa.system_memory_pool())
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 50, 100)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        for option, value in ((M_MMAP_THRESHOLD, KEPT), (M_TRIM_THRESHOLD, KEPT), (M_TOP_PAD, FETCHED)):
            mallopt(option, value)
