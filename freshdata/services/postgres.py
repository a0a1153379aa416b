"""A local PostgreSQL with logical decoding as a child process: loopback only, its data in the instance's folder."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

from freshdata.errors import PrerequisiteError, ServiceError
from freshdata.files import replace_file
from freshdata.services.processes import Program, free_port, last_port, listening, remembering, running_state
from freshdata.settings import Settings

USER = "freshdata"
# The slots and senders are those of the connectors; the rest is for a small machine.
OPTIONS = {
    "wal_level": "logical",
    "max_replication_slots": 20,
    "max_wal_senders": 20,
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "32MB",
    # Timestamps without a zone must not depend on the machine's.
    "timezone": "UTC",
}


def find_postgres() -> Path:
    """The folder of PostgreSQL's programs: Debian's, newest version first, or the PATH's.

    Raises:
        PrerequisiteError: there is none.
    """
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    for folder in (*debian, *([Path(on_path).resolve().parent] if on_path else [])):
        if (folder / "initdb").is_file():
            return folder
    raise PrerequisiteError(
        "postgres", "PostgreSQL's programs were not found.", remedy="Install them: `apt install postgresql`."
    )


def running_postgres(settings: Settings) -> str | None:
    """``postgresql://`` address of the instance's own server, without a database; None when it does not run."""
    state = running_state(_address_file(settings))
    if state is None:
        return None
    return f"postgresql://{USER}:{_password_file(settings).read_text()}@127.0.0.1:{state['port']}"


def postgres_program(settings: Settings) -> Program:
    """How to run the server: its folder is made once, under a superuser whose password is generated.

    Raises:
        PrerequisiteError: PostgreSQL is not installed.
        ServiceError: the folder cannot be made.
    """
    programs = find_postgres()
    home = settings.home / "postgres"
    account = _account()
    if not (home / "data" / "PG_VERSION").is_file():
        _create(programs, settings, home, account)
    port = free_port(last_port(_address_file(settings)))
    options = [f"--{name}={value}" for name, value in {**OPTIONS, "port": port}.items()]

    return Program(
        command=(*_as_account(account), str(programs / "postgres"), "-D", str(home / "data"), *options),
        cwd=home,
        port=port,
        ready=lambda: listening(port) and _answers(programs, port),
        on_ready=remembering(_address_file(settings), port=port),
        attempts=4,
        # At SIGTERM it would wait until its clients have left.
        stop_signal=signal.SIGINT,
    )


def _address_file(settings: Settings) -> Path:
    return settings.run_dir / "postgres.json"


def _password_file(settings: Settings) -> Path:
    return settings.home / "postgres" / "password"


def _create(programs: Path, settings: Settings, home: Path, account: pwd.struct_passwd | None) -> None:
    shutil.rmtree(home, ignore_errors=True)  # One that was cut short.
    home.mkdir(parents=True)
    password = _password_file(settings)
    replace_file(password, secrets.token_urlsafe(24), private=True)
    if account:
        for path in (home, password):
            os.chown(path, account.pw_uid, account.pw_gid)
    command = [*_as_account(account), str(programs / "initdb"), "-D", str(home / "data"), "-U", USER]
    command += [f"--pwfile={password}", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=home)
    if result.returncode:
        raise ServiceError(
            "postgres",
            f"PostgreSQL's folder {home} could not be made: {(result.stderr or result.stdout).strip()[-300:]}",
            remedy="It runs under another account when you are root: name a folder in FRESHDATA_HOME that every "
            "account can enter, or start the platform as another user.",
        )


def _account() -> pwd.struct_passwd | None:
    """The account to run it under: it refuses to run as root."""
    if os.getuid() != 0:
        return None
    accounts = {account.pw_name: account for account in pwd.getpwall()}
    return accounts.get("postgres") or accounts["nobody"]


def _as_account(account: pwd.struct_passwd | None) -> tuple[str, ...]:
    if account is None:
        return ()
    who = (f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups")
    # A change of account clears the signal by which a child ends with its parent.
    return ("setpriv", *who, "--pdeathsig", "keep")


def _answers(programs: Path, port: int) -> bool:
    command = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    return subprocess.run(command, check=False).returncode == 0
