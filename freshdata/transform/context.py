"""Open the SQLMesh project over an instance, waiting while another process transforms."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from freshdata.errors import TransformError
from freshdata.settings import Settings

if TYPE_CHECKING:
    from sqlmesh import Context

LONGEST_WAIT_SECONDS = 180.0
FIRST_DELAY_SECONDS = 0.05
LONGEST_DELAY_SECONDS = 1.0


@contextmanager
def open_context(settings: Settings, *, longest_wait: float = LONGEST_WAIT_SECONDS) -> Iterator["Context"]:
    """A SQLMesh context on the instance; the instance's state is held for this process while it is open.

    Args:
        settings: The instance.
        longest_wait: How many seconds to wait while another process holds the state.

    Raises:
        TransformError: the project cannot be loaded, or another process kept the state for too long.
    """
    _silence()
    from sqlmesh import Context
    from sqlmesh.utils.errors import SQLMeshError

    from freshdata.transform.project import project_config

    config = project_config(settings)
    _wait_for_state(settings, longest_wait)
    try:
        context = Context(paths=[str(settings.models_dir)], config=config)
    except SQLMeshError as error:
        raise TransformError(
            "of this project", f"cannot be loaded: {error}.", remedy="Correct the file it names."
        ) from error
    try:
        yield context
    finally:
        context.close()


def _silence() -> None:
    # SQLMesh asks and reports on a console, and forks to load models; a library inside Dagster may do neither.
    os.environ.setdefault("MAX_FORK_WORKERS", "1")
    from sqlmesh.core.console import NoopConsole, set_console

    set_console(NoopConsole())
    # Its two warnings at every start are decisions taken here: plans fill no table, and the state is a DuckDB file.
    logging.getLogger("sqlmesh.core.console").setLevel(logging.ERROR)


def refuse_lint_errors(context: "Context") -> None:
    """Name what the linter objects to; a plan would only say that it does.

    Raises:
        TransformError: a model breaks a rule.
    """
    found = [item for item in context.lint_models(raise_on_error=False) if item.violation_type == "error"]
    if found:
        complaints = "; ".join(f"{item.model.name} breaks {item.rule.name}: {item.violation_msg}" for item in found)
        raise TransformError("of this project", f"cannot be deployed: {complaints}", remedy="Correct the models named.")


def _wait_for_state(settings: Settings, longest_wait: float) -> None:
    import duckdb

    path = settings.home / "sqlmesh" / "state.duckdb"
    deadline, delay = time.monotonic() + longest_wait, FIRST_DELAY_SECONDS
    while True:
        try:
            duckdb.connect(str(path)).close()
        except duckdb.IOException as error:
            # DuckDB's own message names the process that holds the file.
            if time.monotonic() > deadline:
                raise TransformError(
                    "of this instance",
                    f"another process still transforms after {longest_wait:.0f} s: {error}.",
                    remedy="Wait for it to end, or stop it.",
                ) from error
        else:
            return
        time.sleep(delay)
        delay = min(delay * 2, LONGEST_DELAY_SECONDS)
