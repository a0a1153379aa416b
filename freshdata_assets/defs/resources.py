"""Resources of the code location."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from freshdata.lake.cursors import DAGSTER_RUN_PROPERTY
from freshdata.transform.runner import Runner
from freshdata_assets.platform import current_platform


class Transform(dg.ConfigurableResource["Transform"]):
    """Opens the SQLMesh runner.

    A step opens it for itself and closes it at its end: a run that kept it between its steps would hold SQLMesh's state
    while it waits for its place in the pool, and the run that has the place would wait for the state.
    """

    @contextmanager
    def open(self, run_id: str) -> Iterator[Runner]:
        """The runner of this process's instance.

        Args:
            run_id: The Dagster run that the snapshots it makes will name.

        Raises:
            TransformError: another process holds SQLMesh's state for too long, or the project cannot be loaded.
        """
        from freshdata.transform.runner import open_runner  # Imports SQLMesh: seconds, paid by runs only.

        with open_runner(current_platform().settings, {DAGSTER_RUN_PROPERTY: run_id}) as runner:
            yield runner


@dg.definitions
def defs() -> dg.Definitions:
    """The resources."""
    return dg.Definitions(resources={"transform": Transform()})
