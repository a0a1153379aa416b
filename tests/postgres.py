"""A real PostgreSQL in a temporary folder, on a free loopback port, for as long as a test needs it."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from freshdata.errors import PrerequisiteError
from freshdata.services.postgres import find_postgres as installed_postgres

USER, PASSWORD = "freshdata", "only-for-tests"
READY_SECONDS = 60


def find_postgres() -> Path | None:
    """The folder of PostgreSQL's programs, or None when it is not installed."""
    try:
        return installed_postgres()
    except PrerequisiteError:
        return None


@contextmanager
def postgres(programs: Path) -> Iterator[str]:
    """Run a server; yields the beginning of its URIs, to be followed by a database's name."""
    # It refuses to run as root.
    account = _account() if os.getuid() == 0 else None
    home = Path(tempfile.mkdtemp(prefix="postgres-"))
    process = None
    try:
        password = home / "password"
        password.write_text(PASSWORD)
        if account:
            os.chown(home, account.pw_uid, account.pw_gid)
            os.chown(password, account.pw_uid, account.pw_gid)
        run_as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}
        data = home / "data"
        command = [programs / "initdb", "-D", data, "-U", USER, f"--pwfile={password}", "-A", "scram-sha-256"]
        subprocess.run([*command, "--no-sync", "-E", "UTF8"], check=True, capture_output=True, cwd=home, **run_as)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
        command = [programs / "postgres", "-D", data, *(f"--{name}={value}" for name, value in options.items())]
        with (home / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=home, **run_as)
        address = f"postgresql+psycopg2://{USER}:{PASSWORD}@127.0.0.1:{port}"
        _wait(process, address, home / "log")
        yield address
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # At SIGTERM it would wait for its clients to leave.
            process.wait(60)
        shutil.rmtree(home)


def create_database(address: str, name: str) -> str:
    """Create a database; returns its URI."""
    from sqlalchemy import create_engine, text

    engine = create_engine(f"{address}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    engine.dispose()
    return f"{address}/{name}"


def _account() -> pwd.struct_passwd:
    names = {account.pw_name: account for account in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import OperationalError

    engine = create_engine(f"{address}/postgres")
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            engine.connect().close()
        except OperationalError:
            time.sleep(0.05)
        else:
            engine.dispose()
            return
    raise AssertionError(f"PostgreSQL did not start: {log.read_text()[-2000:]}")
