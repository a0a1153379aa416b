"""Open the SQLMesh project over an instance, waiting while another process transforms."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from freshdata.errors import TransformError
from freshdata.settings import Settings
from freshdata.transform.manifest import project_fingerprint
from freshdata.transform.state import LONGEST_WAIT_SECONDS, state_held, state_to_alter

if TYPE_CHECKING:
    from sqlmesh import Context


@dataclass(frozen=True)
class LoadedProject:
    """A SQLMesh project that has been read from its files; the state is not touched yet.

    Attributes:
        context: SQLMesh's context.
        fingerprint: The project's, before it was read.
    """

    context: "Context"
    fingerprint: str


def load_project(settings: Settings) -> LoadedProject:
    """Read the project of an instance; other processes may transform meanwhile.

    Raises:
        TransformError: it cannot be loaded.
    """
    _silence()
    from sqlmesh import Context
    from sqlmesh.utils.errors import SQLMeshError

    from freshdata.transform.project import project_config

    fingerprint = project_fingerprint(settings)
    try:
        context = Context(paths=[str(settings.models_dir)], config=project_config(settings))
    except SQLMeshError as error:
        raise TransformError(
            "of this project", f"cannot be loaded: {error}.", remedy="Correct the file it names."
        ) from error
    return LoadedProject(context, fingerprint)


@contextmanager
def open_context(
    settings: Settings, loaded: LoadedProject | None = None, *, longest_wait: float = LONGEST_WAIT_SECONDS
) -> Iterator["Context"]:
    """A SQLMesh context on the instance; a state in a file is held for this process while it is open.

    Args:
        settings: The instance.
        loaded: Its project, if it has been loaded before; it is loaded anew if its files have changed since.
        longest_wait: How many seconds to wait while another process holds the state.

    Raises:
        TransformError: the project cannot be loaded, or another process kept the state for too long.
    """
    with state_held(settings, longest_wait), ExitStack() as stack:
        with state_to_alter(settings):
            # Not before the wait: the process waited for may have promoted other models.
            if loaded is None or loaded.fingerprint != project_fingerprint(settings):
                loaded = load_project(settings)
            stack.callback(loaded.context.close)
            _ = loaded.context.state_sync  # Set up at its first use.
        yield loaded.context


def _silence() -> None:
    # SQLMesh asks and reports on a console, and forks to load models; a library inside Dagster may do neither.
    # Said to the module, as the environment is too late where something else imported it before: a process forked off
    # one with threads may wait for a lock that nobody holds, and the run with it, for ever.
    from sqlmesh.core import constants
    from sqlmesh.core.console import NoopConsole, set_console

    constants.MAX_FORK_WORKERS = 1

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
