"""Processor time and memory of processes that a benchmark watches."""

import time
from dataclasses import dataclass, field

import psutil

TREE_EVERY = 0.25  # seconds between two looks at the process tree and its memory


@dataclass
class Usage:
    """Processor time and memory of some processes and their children, dead ones included.

    Attributes:
        roots: Ids of the processes.
        every: Seconds between two looks at the process tree and its memory.
        peak: Most memory seen, in bytes (proportional set size).
    """

    roots: list[int]
    every: float = TREE_EVERY
    peak: int = 0
    _seen: dict[tuple[int, float], float] = field(default_factory=dict)
    _tree: list[psutil.Process] = field(default_factory=list)
    _due: float = 0.0

    def sample(self) -> float:
        """Processor seconds used so far."""
        if time.monotonic() >= self._due:
            self.look_around()
        for process in self._tree:
            try:
                times = process.cpu_times()
                self._seen[process.pid, process.create_time()] = times.user + times.system
            except psutil.Error:
                continue
        return sum(self._seen.values())

    def look_around(self) -> None:
        """Look at the process tree and its memory, whether it is due or not."""
        self._due = time.monotonic() + self.every
        tree: list[psutil.Process] = []
        memory = 0
        for root in self.roots:
            try:
                process = psutil.Process(root)
                tree += [process, *process.children(recursive=True)]
            except psutil.Error:
                continue
        for process in tree:
            try:
                memory += process.memory_full_info().pss
            except psutil.Error:
                continue
        self._tree, self.peak = tree, max(self.peak, memory)
