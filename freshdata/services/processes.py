"""Child processes that are started, watched, restarted and stopped as one group."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

import psutil

from freshdata.errors import ServiceError
from freshdata.files import replace_file

STUB = Path(__file__).with_name("child.py")
POLL = 0.1  # seconds
TICK = 0.01  # seconds, what a process's creation is known to
LONGEST_BACKOFF = 30.0  # seconds
SETTLED = 60.0  # seconds a child must live for its earlier deaths to be forgotten
LOG_LIMIT = 20 * 1024 * 1024  # bytes


def free_port(preferred: int | None = None) -> int:
    """A loopback port that nothing listens on: the preferred one if it is free."""
    for port in (preferred, 0):
        if port is None:
            continue
        with socket.socket() as probe:
            # As servers do: a port in TIME_WAIT after a kill is not a busy one.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise ServiceError("ports", "No loopback port is free.", remedy="Stop some programs and try again.")


def listening(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def created(pid: int) -> float:
    """When a process was created, in seconds since the machine's start: pids are used again, both together are not.

    Not since the epoch: the kernel counts from its start, so a corrected clock would move the time of every process,
    and all that runs would look dead.
    """
    return psutil.Process(pid).create_time() - psutil.boot_time()


def alive(pid: Any, created_at: Any) -> bool:
    """Whether the process that had this pid and creation time still runs."""
    try:
        process = psutil.Process(int(pid))
        same = abs(created(process.pid) - float(created_at)) < TICK
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (TypeError, ValueError, psutil.Error):
        return False


def write_json(path: Path, content: Any) -> None:
    """Write a small state file so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(content))


def read_json(path: Path) -> dict[str, Any]:
    """A state file's content; empty when there is none, or it is damaged."""
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text())
        return content if isinstance(content, dict) else {}
    return {}


def remembering(path: Path, **facts: Any) -> Callable[[int], None]:
    """What keeps, in a state file, which process a child is, who started it, and facts of it."""

    def remember(pid: int) -> None:
        owner = {"pid": os.getpid(), "created": created(os.getpid())}
        write_json(path, {"pid": pid, "created": created(pid), "owner": owner, **facts})

    return remember


def running_state(path: Path) -> dict[str, Any] | None:
    """What a state file says of a process, if that still runs; one whose owner was killed is about to die."""
    state = read_json(path)
    both = (state, state.get("owner", {}))
    return state if all(alive(one.get("pid"), one.get("created")) for one in both) else None


def last_port(path: Path, name: str = "port") -> int | None:
    """The port that a state file names: clients that are already there find a restarted server only at its old one."""
    return int(read_json(path).get(name, 0)) or None


def answers(url: str) -> bool:
    """Whether an HTTP server answers a request well."""
    try:
        with urlopen(url, timeout=5):  # noqa: S310 - addresses on loopback, built here.
            return True
    except (OSError, HTTPException):
        return False


def bound_command(command: tuple[str, ...], death_signal: signal.Signals) -> list[str]:
    """The command, wrapped so that it gets ``death_signal`` when the thread that starts it ends."""
    return [sys.executable, "-I", "-S", str(STUB), str(int(death_signal)), str(os.getpid()), *command]


@dataclass(frozen=True)
class Program:
    """How to run one child.

    Attributes:
        command: Program and arguments.
        env: Additional environment variables.
        cwd: Working directory; None keeps the supervisor's.
        port: The port it serves on, for display.
        ready: Whether it answers by now; called until true.
        on_ready: Called with the pid once it is ready.
        timeout: Seconds it may take to get ready.
        attempts: How often a first start is tried before it is an error.
        grace: Seconds it gets between its stop signal and SIGKILL.
        death_signal: What it gets when the supervisor is killed.
        stop_signal: What asks it to end.
    """

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    port: int | None = None
    ready: Callable[[], bool] = lambda: True
    on_ready: Callable[[int], None] = lambda _pid: None
    timeout: float = 90
    attempts: int = 1
    grace: float = 20
    # Not SIGTERM: a worker that waits for a broker which is gone, too, stays for minutes.
    death_signal: signal.Signals = signal.SIGKILL
    stop_signal: signal.Signals = signal.SIGTERM


@dataclass(frozen=True)
class ChildState:
    """A child as shown to a user: its name, pid, port and number of restarts."""

    name: str
    pid: int
    port: int | None
    restarts: int


class Child:
    """One running program in its own session, its output in a log file."""

    def __init__(self, name: str, program: Program, log: Path) -> None:
        self.name = name
        self.program = program
        self.log = log
        self.started = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.is_file() and log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                bound_command(program.command, program.death_signal),
                cwd=program.cwd,
                env={**os.environ, **program.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A terminal's Ctrl-C reaches the supervisor only, which then stops them in order.
                start_new_session=True,
            )

    def wait_ready(self, cancelled: threading.Event) -> None:
        """Wait until the program answers.

        Raises:
            ServiceError: it died, or did not answer in time, or the group is being stopped.
        """
        deadline = time.monotonic() + self.program.timeout
        while not cancelled.is_set():
            if (code := self.process.poll()) is not None:
                raise self._failure(f"ended at once with code {code}: {self.last_line()}")
            if self.program.ready():
                self.program.on_ready(self.process.pid)
                return
            if time.monotonic() > deadline:
                raise self._failure(f"did not answer within {self.program.timeout:.0f} s: {self.last_line()}")
            cancelled.wait(POLL)
        raise self._failure("was stopped while starting.")

    def _failure(self, what: str) -> ServiceError:
        return ServiceError(self.name, f"{self.name} {what}", remedy=f"Its log is {self.log}.")

    def last_line(self) -> str:
        """The log's last line that says something."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines()[-100:] if line.strip()]
        telling = [line for line in lines if re.search(r"(Error|Exception)\b.*:", line)]
        return (telling or lines or ["it wrote nothing"])[-1][:300]

    def stop(self) -> None:
        """Its stop signal, a bounded wait, then SIGKILL for whatever is left of its session."""
        if self.process.poll() is None:
            self.process.send_signal(self.program.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(self.program.grace)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class _Entry:
    make: Callable[[], Program]
    restart_with: str | None
    child: Child
    restarts: int = 0
    failures: int = 0
    due: float | None = None


class Supervisor:
    """Starts children in order, restarts those that die, and stops all in reverse order.

    Restarting is done by a thread that waits until the children have been stopped: Linux delivers a child's
    parent-death signal when the *thread* that started it ends. For the same reason :meth:`start` must be called from a
    thread that stays, which is usually the main one.
    """

    def __init__(self, logs: Path, on_change: Callable[[], None] = lambda: None) -> None:
        self._logs = logs
        self._on_change = on_change
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, name: str, make: Callable[[], Program], *, restart_with: str | None = None) -> None:
        """Start a child and wait until it is ready.

        Args:
            name: Its name and its log file's.
            make: Says how to run it; asked anew before each start, as ports may have changed.
            restart_with: Name of a child whose change of port means that this one must be restarted.

        Raises:
            ServiceError: it did not get ready.
        """
        for attempt in range(1, 1000):
            child = self._spawn(name, make())
            try:
                child.wait_ready(self._stopping)
                break
            except ServiceError:
                child.stop()
                if attempt >= child.program.attempts or self._stopping.is_set():
                    raise
                self._stopping.wait(attempt)  # A killed predecessor may still be letting go of its port or files.
        with self._lock:
            self._entries[name] = _Entry(make, restart_with, child)
        if not self._thread.is_alive():
            self._thread.start()
        self._on_change()

    def cancel(self) -> None:
        """Make a start that is waiting give up (callable from a signal handler)."""
        self._stopping.set()

    def states(self) -> list[ChildState]:
        """All children, in starting order."""
        with self._lock:
            return [
                ChildState(name, entry.child.process.pid, entry.child.program.port, entry.restarts)
                for name, entry in self._entries.items()
            ]

    def stop(self) -> None:
        """Stop all children in reverse order; a second call does nothing."""
        self._stopping.set()
        with self._lock:
            while self._entries:
                self._entries.popitem()[1].child.stop()
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def stop_one(self, name: str) -> None:
        """Stop one child for good, if it is there."""
        with self._lock:
            if entry := self._entries.pop(name, None):
                entry.child.stop()
        self._on_change()

    def restart(self, name: str) -> None:
        """Have a child start anew, if it is there."""
        with self._lock:
            if entry := self._entries.get(name):
                entry.child.process.send_signal(entry.child.program.stop_signal)

    def _spawn(self, name: str, program: Program) -> Child:
        return Child(name, program, self._logs / f"{name}.log")

    def _watch(self) -> None:
        while not self._stopping.wait(POLL):
            with self._lock:
                for name, entry in self._entries.items():
                    self._heal(name, entry)
        self._stopped.wait()

    def _heal(self, name: str, entry: _Entry) -> None:
        now = time.monotonic()
        if entry.child.process.poll() is None:
            if entry.failures and now - entry.child.started > SETTLED:
                entry.failures = 0
            return
        if entry.due is None:
            # The first restart is immediate; a child that keeps dying is not allowed to burn the machine.
            entry.due = now + (min(LONGEST_BACKOFF, 2 ** (entry.failures - 1)) if entry.failures else 0)
            entry.failures += 1
        if now < entry.due:
            return
        entry.due = None
        port = entry.child.program.port
        entry.child.stop()  # Grandchildren of the dead one.
        try:
            entry.child = self._spawn(name, entry.make())
            entry.restarts += 1
            entry.child.wait_ready(self._stopping)
        except ServiceError:
            entry.child.stop()
        if entry.child.program.port != port:
            for other in self._entries.values():
                if other.restart_with == name:
                    other.child.process.terminate()
        self._on_change()
