"""Become another program that cannot outlive the process that started it.

Run as a script by :mod:`freshdata.services.processes`: ``child.py DEATH_SIGNAL PARENT_PID COMMAND...``. It prepares
this process and replaces itself by the command, so nothing of it stays in memory. It is a program of its own, not a
``preexec_fn``: that one would run Python between fork and exec in a process full of librdkafka's threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Reset the signals, tie this process to its parent's life, and become the command."""
    death_signal, parent, *command = sys.argv[1:]
    # A platform started in the background inherits an ignored SIGINT; Dagster then ignores SIGTERM too, until killed.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    die_with_parent(int(death_signal))
    if os.getppid() != int(parent):  # The parent died before the line above took effect.
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 (no shell is the point)


def die_with_parent(number: int) -> None:
    """Have this process get a signal when the thread that started it ends; on Linux, elsewhere nothing is done."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


if __name__ == "__main__":
    main()
