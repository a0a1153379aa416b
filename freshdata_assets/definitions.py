"""The Dagster code location: everything under ``defs/``, generated from contracts and the model manifest."""

from functools import lru_cache
from pathlib import Path

import dagster as dg

from freshdata_assets.platform import Platform, current_platform


@dg.definitions
def defs() -> dg.Definitions:
    """The code location; made once a process, though Dagster asks for it twice in every run."""
    return _load(current_platform())


@lru_cache(maxsize=1)
def _load(_platform: Platform) -> dg.Definitions:
    loaded = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    # One process a run: SQLMesh takes seconds to import, and every step of a run uses it.
    return dg.Definitions.merge(loaded, dg.Definitions(executor=dg.in_process_executor))
