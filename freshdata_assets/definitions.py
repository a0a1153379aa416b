"""The Dagster code location: everything under ``defs/``, generated from contracts and the model manifest."""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """Load the code location."""
    loaded = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    # One process a run: SQLMesh takes seconds to import, and every step of a run uses it.
    return dg.Definitions.merge(loaded, dg.Definitions(executor=dg.in_process_executor))
