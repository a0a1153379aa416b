"""What each snapshot of a Silver or Gold table says about the run that made it, so that any row's code can be found."""

import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date

from pyiceberg.table import Table

from freshdata.lake.catalog import load_table
from freshdata.lake.cursors import (
    COMMIT_PROPERTY,
    CURSOR_PROPERTY,
    INTERVAL_PROPERTY,
    MODE_PROPERTY,
    MODEL_PROPERTY,
    RUN_PROPERTY,
    Cursor,
)
from freshdata.lake.progress import ancestors, summary_property
from freshdata.lake.rest_catalog import CatalogFace
from freshdata.lake.transaction import LakeTransaction
from freshdata.settings import Settings
from freshdata.transform.manifest import ModelInfo
from freshdata.transform.results import Mode
from freshdata.transform.retry import retry
from freshdata.transform.versions import kept_commit

GIT_SECONDS = 10.0


class Stamps:
    """Stamps the snapshots that runs make.

    Args:
        face: The REST face of the catalog that the tables live in.
        properties: Summary properties of every snapshot: who runs.
    """

    def __init__(self, face: CatalogFace, properties: dict[str, str]) -> None:
        self._face = face
        self._properties = properties

    @contextmanager
    def stamped(
        self,
        info: ModelInfo,
        mode: Mode,
        cursor: Callable[[Table], Cursor | None],
        ranges: tuple[tuple[date, date], ...] | None,
    ) -> Iterator[str]:
        """Within the context, the table's snapshots carry the cursor and say which run made them; yields its id.

        Args:
            info: The model.
            mode: How it is run.
            cursor: What a table will have seen with the run's rows, given the table as it is before; what it raises
                keeps them out.
            ranges: The days or hours it recomputes, each range's first and last; None for all.
        """
        run = uuid.uuid4().hex
        interval = (
            "all" if ranges is None else ",".join(f"{first.isoformat()}/{last.isoformat()}" for first, last in ranges)
        )
        properties = {MODEL_PROPERTY: info.name, MODE_PROPERTY: mode, RUN_PROPERTY: run, INTERVAL_PROPERTY: interval}
        properties |= self._properties

        def stamp(table: Table) -> dict[str, str]:
            seen = cursor(table)
            return properties | (seen.properties() if seen else {})

        with self._face.stamp(info.name, stamp):
            yield run

    def of(self, table: Table) -> dict[str, str]:
        """What a table's next snapshot must say, for writers that do not come through the face."""
        return self._face.stamped(table)

    def carry_cursor(self, info: ModelInfo, run: str) -> None:
        """Make sure that the run's cursor is in the table, by an empty snapshot if the run changed no row.

        Without it the table would count as behind for ever, and in the end its cursor would name an expired snapshot.
        An engine that cannot stamp its commits gets its cursor here: a crash before repeats the run, which changes
        nothing.
        """

        def commit() -> None:
            table = load_table(self._face.catalog, info.name)
            for snapshot in ancestors(table):
                if summary_property(snapshot, RUN_PROPERTY) == run and summary_property(snapshot, CURSOR_PROPERTY):
                    return
            properties = self.of(table)
            if CURSOR_PROPERTY not in properties:
                return
            with LakeTransaction(table) as change, change.update_snapshot(snapshot_properties=properties).fast_append():
                pass

        retry(commit, info.name)


def code_properties(settings: Settings) -> dict[str, str]:
    """The git commit of an instance's models, as a snapshot property; none outside a repository, or without git."""
    if (kept := kept_commit(settings.models_dir)) is not None:
        return {COMMIT_PROPERTY: kept} if kept else {}
    command = ["git", "-C", str(settings.project), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=GIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {COMMIT_PROPERTY: told.stdout.strip()} if told.returncode == 0 else {}
