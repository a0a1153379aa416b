"""The engines that models run on: DuckDB in this process, Spark or Trino elsewhere; one setting chooses.

Everywhere tables are created by PyIceberg, so that they are alike, and replaced days are committed by PyIceberg, in one
snapshot that carries the cursor. An engine computes, writes data files and merges.
"""

from importlib import import_module
from typing import Any

from freshdata.errors import PrerequisiteError
from freshdata.settings import Settings


def connection(settings: Settings) -> Any:
    """SQLMesh's connection to the instance's engine.

    Raises:
        PrerequisiteError: the engine's Python package is not installed.
    """
    try:
        module = import_module(f"freshdata.transform.engines.{settings.engine}")
    except ModuleNotFoundError as error:
        raise PrerequisiteError(
            settings.engine,
            f"FRESHDATA_ENGINE is {settings.engine}, but {error.name} is not installed.",
            remedy=f"Install it: `pip install 'freshdata[{settings.engine}]'`.",
        ) from error
    return module.connection(settings)
