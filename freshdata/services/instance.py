"""An instance's data folder: which one is meant, who owns it now, and whether this version can read it."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from freshdata.errors import AlreadyRunningError, ConfigError
from freshdata.services.processes import alive, read_json, write_json
from freshdata.settings import Settings

LAYOUT = 1
Tell = Callable[[str], None]


def choose_instance(settings: Settings, name: str) -> Settings:
    """The settings of a named instance (``live``, ``demo``), which later commands then mean when they name none.

    ``FRESHDATA_HOME`` overrules the name.

    Raises:
        ConfigError: the project's data folder cannot be written.
    """
    if settings.home_override:
        return settings
    home = settings.root / name
    try:
        home.mkdir(parents=True, exist_ok=True)
        (settings.root / "current").write_text(name)
    except OSError as error:
        raise ConfigError(
            f"The data folder {home} cannot be written: {error}.",
            remedy="Make it writable, or name another folder by FRESHDATA_HOME.",
        ) from error
    return settings.for_home(home)


@contextmanager
def own_home(settings: Settings, *, keep_old: bool, fresh: bool = False, tell: Tell = lambda _: None) -> Iterator[None]:
    """Be the only one who runs this instance, over a folder of this version's layout.

    Args:
        settings: The instance.
        keep_old: Move the folder of another layout aside, instead of emptying it.
        fresh: Empty the folder even when its layout is right (a historical replay starts from nothing).
        tell: Called with a line for the user when something was moved or removed.

    Raises:
        AlreadyRunningError: another process runs it.
    """
    lock = _lock(settings)
    try:
        found = read_json(settings.home / "layout.json").get("layout")
        # Keys may be made before the first start.
        has_data = any(path.name not in ("run", "logs", "gateway") for path in settings.home.iterdir())
        if has_data and found != LAYOUT and keep_old:
            moved = _aside(settings.home)
            settings.home.rename(moved)
            tell(f"{settings.home.name} was made by another version of FreshData: moved to {moved}.")
            lock.close()
            lock = _lock(settings)
        elif has_data and (found != LAYOUT or fresh):
            _empty(settings.home)
        write_json(settings.home / "layout.json", {"layout": LAYOUT})
        yield
    finally:
        lock.close()


def platform_file(settings: Settings) -> Path:
    """File in which the running platform describes itself."""
    return settings.run_dir / "platform.json"


def platform_state(settings: Settings) -> dict[str, Any] | None:
    """What the running platform says of itself, or None when none runs (a killed one's file is ignored)."""
    state = read_json(platform_file(settings))
    return state if alive(state.get("pid"), state.get("created")) else None


def running_instances(settings: Settings) -> list[tuple[Settings, int]]:
    """The instances that run, with their pids: the one that FRESHDATA_HOME names, else all of the project."""
    homes = [settings.home] if settings.home_override else sorted(path.parent for path in settings.root.glob("*/run"))
    found = ((settings.for_home(home), platform_state(settings.for_home(home))) for home in homes)
    return [(instance, int(state["pid"])) for instance, state in found if state]


def _lock(settings: Settings) -> IO[str]:
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    lock = (settings.run_dir / "lock").open("a+")
    for _ in range(20):  # A platform that was just killed may need a moment to be gone.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            return lock
    lock.seek(0)
    holder = lock.read().strip()
    lock.close()
    raise AlreadyRunningError(
        f"FreshData in {settings.home}",
        int(holder) if holder.isdigit() else None,
        remedy="Look at it with `freshdata status`, or stop it with `freshdata down`.",
    )


def _aside(home: Path) -> Path:
    number = 1
    while (moved := home.with_name(f"{home.name}.old-{number}")).exists():
        number += 1
    return moved


def _empty(home: Path) -> None:
    run = home / "run"
    for path in [*home.iterdir(), *(run.iterdir() if run.is_dir() else ())]:
        if path in (run, run / "lock"):  # It is held.
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
