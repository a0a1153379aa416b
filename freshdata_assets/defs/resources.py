"""Resources of the code location."""

import gc
import time
from contextlib import ExitStack, suppress

import dagster as dg
from pydantic import PrivateAttr

from freshdata.errors import TransformError
from freshdata.lake.cursors import DAGSTER_RUN_PROPERTY
from freshdata.quality.library import great_expectations
from freshdata.transform.context import LoadedProject, load_project
from freshdata.transform.runner import Runner, open_runner
from freshdata_assets.platform import current_platform

# One run at a time makes Silver and Gold, from its first step to its last: between a run's check of Silver and its
# Gold, no other may put rows into Silver that nothing has checked. A pool on each step would not keep them together.
TURN = "transform"
POLL = 0.1  # seconds
# For what passes by itself (a catalog that is down, a store that is overloaded): two and a half minutes in all. What
# needs somebody to mend it says so, and is not tried again.
RETRIES = dg.RetryPolicy(max_retries=5, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


class Transform(dg.ConfigurableResource["Transform"]):
    """The SQLMesh runner of a run that has its turn, opened by the first step that needs it and kept until the last.

    A run that must wait loads its libraries meanwhile, so that it is quick once the one before has ended.
    """

    _stack: ExitStack = PrivateAttr(default_factory=ExitStack)
    _runner: Runner | None = PrivateAttr(default=None)
    _loaded: LoadedProject | None = PrivateAttr(default=None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Wait for the run's turn."""
        if context.run is None or context.instance is None:
            return
        log = context.instance.event_log_storage
        if not log.supports_global_concurrency_limits:
            return
        if TURN not in log.get_concurrency_keys():
            log.set_concurrency_slots(TURN, 1)
        if log.claim_concurrency_slot(TURN, context.run.run_id, TURN).is_claimed:
            return
        try:
            self._load()
            while not log.claim_concurrency_slot(TURN, context.run.run_id, TURN).is_claimed:
                time.sleep(POLL)
        except BaseException:  # It was terminated while it waited: nobody may wait for it.
            self.teardown_after_execution(context)
            raise

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the runner and end the run's turn."""
        self.close()
        if context.run is not None and context.instance is not None:
            context.instance.event_log_storage.free_concurrency_slot_for_step(context.run.run_id, TURN)

    def _load(self) -> None:
        """Load what the steps will need and takes long."""
        great_expectations()
        with suppress(TransformError):  # The steps will say it.
            self._loaded = load_project(current_platform().settings)

    def close(self) -> None:
        """Close the runner; the next step, or the next attempt, opens another."""
        self._runner = self._loaded = None
        self._stack.close()

    def runner(self, run_id: str) -> Runner:
        """The runner of this process's instance.

        Args:
            run_id: The Dagster run that the snapshots it makes will name.

        Raises:
            TransformError: another process holds SQLMesh's state for too long, or the project cannot be loaded.
        """
        if self._runner is None:
            opened = open_runner(current_platform().settings, {DAGSTER_RUN_PROPERTY: run_id}, self._loaded)
            self._runner = self._stack.enter_context(opened)
            # The collector would go through half a million objects of libraries again and again: 0.2 s each time.
            gc.freeze()
        return self._runner


@dg.definitions
def defs() -> dg.Definitions:
    """The resources."""
    return dg.Definitions(resources={"transform": Transform()})
