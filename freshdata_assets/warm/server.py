"""``python -m freshdata_assets.warm.server SOCKET``: imports what runs need, and forks a process for each of them.

What is forked must have one thread: DuckDB, which starts some when it is imported, is left to the child. When a file of
the code, a contract or a model changes, the next run is refused, so that it starts cold, and this process begins anew.
"""

import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
from importlib import import_module
from pathlib import Path

import dagster as dg

from freshdata.clock import instance_clock
from freshdata.quality.library import great_expectations
from freshdata.services.child import die_with_parent
from freshdata.services.processes import created
from freshdata.settings import PROJECT, load_settings
from freshdata_assets import definitions
from freshdata_assets.platform import renew_platform
from freshdata_assets.warm.launcher import GO, TIMEOUT

PRELOADED = (
    "dagster._cli.api",
    "freshdata.transform.project",
    "freshdata.transform.runner",
    "freshdata.quality.validate",
    "pandas",
)
SOURCES = (".py", ".sql", ".yaml", ".yml")
CODE = ("freshdata", "freshdata_assets", "stream_workers")

logger = logging.getLogger(__name__)


def main() -> None:
    """Serve until ended; the run's processes end with this one."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    path, known, clock = Path(sys.argv[1]), fingerprint(), instance_clock(load_settings().home)
    time = clock.told()
    for name in PRELOADED:
        import_module(name)
    great_expectations()
    _rehearse()
    if threading.active_count() > 1 or "duckdb" in sys.modules:
        # A lock that one of them holds at the time of a fork would stay locked in the child for ever.
        raise RuntimeError(f"what was imported runs threads: {threading.enumerate()}")
    # What is frozen is not looked at by the collector, which would copy the pages that parent and child share.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # The kernel reaps them.
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o600)
        server.listen(16)
        logger.info("ready socket=%s pid=%d", path, os.getpid())
        while True:
            connection, _ = server.accept()
            with connection:
                if fingerprint() != known:
                    _answer(connection, {"refused": "the code, a contract or a model has changed"})
                    logger.info("files have changed: starting anew")
                    break
                if os.fork() == 0:
                    server.close()
                    if clock.told() != time:
                        renew_platform()
                    _run(connection)
    # As the same process, so that the runs under way are still its children.
    os.execv(sys.executable, [sys.executable, "-m", "freshdata_assets.warm.server", *sys.argv[1:]])  # noqa: S606


def _rehearse() -> None:
    """Do what every run begins with: what is imported late is there, and the definitions need not be made again."""
    definitions.defs()
    with dg.DagsterInstance.get() as instance:
        instance.get_runs(limit=1)


def fingerprint() -> dict[str, tuple[int, int]]:
    """Every file that a run's code comes from, its size and when it was changed."""
    settings = load_settings()
    folders = [
        *(PROJECT / name for name in CODE),
        settings.contracts_dir,
        settings.models_dir,
        settings.expectations_dir,
    ]
    paths = (path for folder in folders for path in folder.rglob("*") if path.suffix in SOURCES)
    return {str(path): (found.st_mtime_ns, found.st_size) for path in paths for found in [path.stat()]}


def _run(connection: socket.socket) -> None:
    """Be a run's process: say so, wait for the word, and execute it as ``dagster api execute_run`` does."""
    code = 1
    try:
        die_with_parent(signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        connection.settimeout(TIMEOUT)
        stream = connection.makefile("rb")
        arguments = json.loads(stream.readline())["arguments"]
        _answer(connection, {"pid": os.getpid(), "created": created(os.getpid())})
        word = stream.readline()
        connection.close()
        if word == GO:
            code = _execute(arguments)
    except Exception:
        logger.exception("a run's process failed")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # What the parent has set up to be done at its end is not the child's.


def _execute(arguments: str) -> int:
    from dagster._cli.api import execute_run_command

    try:
        execute_run_command.main([arguments], standalone_mode=False)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _answer(connection: socket.socket, content: dict[str, object]) -> None:
    connection.sendall(json.dumps(content).encode() + b"\n")


if __name__ == "__main__":
    main()
