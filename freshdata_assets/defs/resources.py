"""Resources of the code location."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import dagster as dg
from pydantic import PrivateAttr

from freshdata.transform.runner import Runner
from freshdata_assets.platform import current_platform


class Transform(dg.ConfigurableResource[Runner]):
    """The SQLMesh runner, opened when a step first needs it and shared by all steps of a run."""

    _stack: ExitStack | None = PrivateAttr(default=None)
    _runner: Runner | None = PrivateAttr(default=None)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["Transform"]:  # noqa: ARG002 - Dagster's.
        """Close the runner at the end of the run."""
        with ExitStack() as stack:
            self._stack = stack
            yield self
        self._stack = self._runner = None

    @property
    def runner(self) -> Runner:
        """The runner of this run.

        Raises:
            TransformError: another process holds SQLMesh's state.
        """
        if self._runner is None:
            self._runner = self._open()
        return self._runner

    def _open(self) -> Runner:
        from freshdata.transform.runner import open_runner  # Imports SQLMesh: seconds, paid by runs only.

        if self._stack is None:
            raise RuntimeError("the runner is open during a run only")
        return self._stack.enter_context(open_runner(current_platform().settings))


@dg.definitions
def defs() -> dg.Definitions:
    """The resources."""
    return dg.Definitions(resources={"transform": Transform()})
