"""Children are started, healed and stopped; none outlives its supervisor."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from freshdata.errors import ServiceError
from freshdata.services.processes import Program, Supervisor, alive, created, free_port, listening

SLEEPER = (sys.executable, "-c", "import time; time.sleep(600)")


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_killed_child_comes_back_and_stop_leaves_none(tmp_path):
    with Supervisor(tmp_path) as supervisor:
        supervisor.start("sleeper", lambda: Program(SLEEPER))
        first = supervisor.states()[0]
        os.kill(first.pid, signal.SIGKILL)
        until(lambda: supervisor.states()[0].restarts == 1 and not gone(supervisor.states()[0].pid))
        second = supervisor.states()[0]
        assert second.pid != first.pid
    assert gone(second.pid)
    assert supervisor.states() == []


def test_children_stop_in_reverse_order(tmp_path):
    log = tmp_path / "order"
    code = (
        "import signal,sys,time\n"
        "signal.signal(15, lambda *_: (open({0!r}, 'a').write({1!r}), sys.exit()))\n"
        "open({2!r}, 'w')\n"
        "time.sleep(600)"
    )

    def program(name):
        ready = tmp_path / f"{name}.ready"
        return Program((sys.executable, "-c", code.format(str(log), name, str(ready))), ready=ready.exists)

    with Supervisor(tmp_path) as supervisor:
        for name in ("a", "b", "c"):
            supervisor.start(name, lambda name=name: program(name))
    assert log.read_text() == "cba"


def test_a_child_that_ignores_sigterm_is_killed_with_its_own_children(tmp_path):
    stubborn = (
        "import signal,subprocess,sys,time\n"
        "signal.signal(15, signal.SIG_IGN)\n"
        "p=subprocess.Popen([sys.executable,'-c','import time; time.sleep(600)'])\n"
        "open({0!r},'w').write(str(p.pid))\n"
        "time.sleep(600)"
    )
    note = tmp_path / "grandchild"
    with Supervisor(tmp_path) as supervisor:
        command = (sys.executable, "-c", stubborn.format(str(note)))
        supervisor.start(
            "stubborn", lambda: Program(command, ready=lambda: note.exists() and note.read_text(), grace=0.2)
        )
        pids = [supervisor.states()[0].pid, int(note.read_text())]
    until(lambda: all(gone(pid) for pid in pids))


def test_a_start_that_fails_says_why_and_names_the_log(tmp_path):
    program = Program((sys.executable, "-c", "raise ValueError('no such thing')"), ready=lambda: False)
    with Supervisor(tmp_path) as supervisor, pytest.raises(ServiceError, match="no such thing") as raised:
        supervisor.start("broken", lambda: program)
    assert str(tmp_path / "broken.log") in raised.value.remedy


def test_no_child_outlives_a_killed_supervisor(tmp_path):
    """Also children started again by the supervisor's own thread."""
    script = f"""
import os, signal, sys, time
from pathlib import Path
from freshdata.services.processes import Program, Supervisor
s = Supervisor(Path({str(tmp_path)!r}))
for name in "ab":
    s.start(name, lambda: Program({SLEEPER!r}, death_signal=signal.SIGKILL if name == "a" else signal.SIGTERM))
os.kill(s.states()[0].pid, signal.SIGKILL)
while not s.states()[0].restarts: time.sleep(0.02)
print(*(state.pid for state in s.states()), flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as supervisor:
        pids = [int(pid) for pid in supervisor.stdout.readline().split()]
        assert len(pids) == 2
        assert not any(gone(pid) for pid in pids)
        supervisor.kill()
    until(lambda: all(gone(pid) for pid in pids))


def test_children_react_to_signals_their_supervisor_ignores(tmp_path):
    """A platform started with nohup or & ignores SIGINT; Dagster then would not stop on SIGTERM either."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    report = (
        "import signal,time\n"
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, flush=True)\n"
        "time.sleep(600)"
    )
    try:
        with Supervisor(tmp_path) as supervisor:
            log = Path(tmp_path, "child.log")
            supervisor.start(
                "child", lambda: Program((sys.executable, "-c", report), ready=lambda: log.read_text() != "")
            )
    finally:
        signal.signal(signal.SIGINT, before)
    assert log.read_text() == "True\n"


def test_a_dependent_is_restarted_when_a_port_changes(tmp_path):
    ports = iter((1001, 1002))
    with Supervisor(tmp_path) as supervisor:
        supervisor.start("server", lambda: Program(SLEEPER, port=next(ports)))
        supervisor.start("client", lambda: Program(SLEEPER), restart_with="server")
        os.kill(supervisor.states()[0].pid, signal.SIGKILL)
        until(lambda: [state.restarts for state in supervisor.states()] == [1, 1])


def test_a_busy_port_is_not_free():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) != port
        assert listening(port)
    assert free_port(port) == port


def test_a_pid_alone_does_not_make_a_process():
    pid = os.getpid()
    assert alive(pid, created(pid))
    assert not alive(pid, created(pid) - 1)
    assert not alive(None, None)


def test_a_corrected_clock_makes_no_process_look_dead(monkeypatch):
    pid, known = os.getpid(), created(os.getpid())
    started = psutil.boot_time()
    for module in (psutil, psutil._pslinux):  # Where the kernel's answer is read: a clock cannot be set here.
        monkeypatch.setattr(module, "boot_time", lambda: started + 3600)
    assert psutil.Process(pid).create_time() > started + 3600
    assert alive(pid, known)
