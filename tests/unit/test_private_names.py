"""Names of other libraries that are not theirs to keep: an upgrade that moves one is told here, by name."""

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator
from dagster._daemon import sensor
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.manifest import ManifestWriterV2
from pyiceberg.table import Table
from sqlmesh.core.config.connection import BaseDuckDBConnectionConfig, SparkConnectionConfig, TrinoConnectionConfig
from sqlmesh.core.engine_adapter.base import EngineAdapter
from sqlmesh.core.engine_adapter.duckdb import DuckDBEngineAdapter
from sqlmesh.core.loader import SqlMeshLoader
from sqlmesh.core.model.meta import ModelMeta
from sqlmesh.core.snapshot.evaluator import CustomMaterialization, SnapshotEvaluator

from freshdata.settings import PROJECT

PACKAGES = ("freshdata", "freshdata_assets", "stream_workers", "serving_api")
# What is called, or overridden: the owner, the name, and the parameters that are relied on.
METHODS: list[tuple[type, str, set[str]]] = [
    (ArrowScan, "_record_batches_from_scan_tasks_and_deletes", {"tasks", "deletes_per_file"}),
    (Table, "_do_commit", {"updates", "requirements"}),
    (EngineAdapter, "_merge", {"target_table", "query", "on", "whens"}),
    (EngineAdapter, "_to_sql", {"expression", "quote"}),
    (EngineAdapter, "_create_table", {"table_name_or_schema", "expression", "exists", "replace"}),
    (EngineAdapter, "_create_table_comment", {"table_name", "table_comment", "table_kind"}),
    (EngineAdapter, "_create_column_comments", {"table_name", "column_comments"}),
    (EngineAdapter, "_insert_overwrite_by_condition", {"table_name", "source_queries", "where"}),
    (EngineAdapter, "_order_projections_and_filter", {"query", "target_columns_to_types", "where"}),
    (EngineAdapter, "_get_source_queries_and_columns_to_types", {"target_table", "source_columns"}),
    (DuckDBEngineAdapter, "_get_data_objects", {"schema_name", "object_names"}),
    (SqlMeshLoader, "_load_external_models", {"audits", "cache", "gateway"}),
    (SqlMeshLoader, "_track_file", {"path"}),
    (SnapshotEvaluator, "_audit", {"audit", "audit_args", "snapshot", "snapshots", "start", "end", "execution_time"}),
    (CustomMaterialization, "_get_target_and_source_columns", {"model", "table_name", "render_kwargs"}),
]
ATTRIBUTES: list[tuple[Any, str]] = [
    (sensor, "MIN_INTERVAL_LOOP_TIME"),
    (QueuedRunCoordinator, "dequeue_interval_seconds"),
    (ManifestWriterV2, "_meta"),
    (ModelMeta, "_path"),
    *((config, name) for config in (BaseDuckDBConnectionConfig, SparkConnectionConfig, TrinoConnectionConfig)
      for name in ("_engine_adapter", "_static_connection_kwargs", "_extra_engine_config")),
    (BaseDuckDBConnectionConfig, "_cursor_init"),
]  # fmt: skip


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((PROJECT / package).rglob("*.py"))]


def imported() -> Iterator[tuple[str, str]]:
    """What the packages import that begins with an underscore, or lies in a module that does: module and name."""
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] not in PACKAGES:
                for name in (alias.name for alias in node.names):
                    if node.module != "__future__" and any(part[0] == "_" for part in (*node.module.split("."), name)):
                        yield node.module, name


@pytest.mark.parametrize(("module", "name"), sorted(set(imported())))
def test_a_private_import_is_where_it_was(module: str, name: str) -> None:
    found = import_module(module)
    assert hasattr(found, name), f"{module} has no {name} any more: look for what took its place"


@pytest.mark.parametrize(("owner", "name", "parameters"), METHODS)
def test_a_private_method_takes_what_it_took(owner: type, name: str, parameters: set[str]) -> None:
    method: Callable[..., Any] | None = getattr(owner, name, None)
    assert method is not None, f"{owner.__name__} has no {name} any more: look for what took its place"
    known = inspect.signature(method).parameters
    assert parameters <= known.keys(), f"{owner.__name__}.{name} has other parameters: {', '.join(known)}"


@pytest.mark.parametrize(("owner", "name"), ATTRIBUTES)
def test_a_private_attribute_is_where_it_was(owner: Any, name: str) -> None:
    there = hasattr(owner, name) or name in getattr(owner, "__private_attributes__", {})
    assert there, f"{owner.__name__} has no {name} any more: look for what took its place"


def test_what_the_linter_lets_pass_is_listed_here() -> None:
    lines = (line for path in sources() for line in path.read_text().splitlines() if "SLF001" in line)
    used = {name for line in lines for name in re.findall(r"(?<!self)\.(_[a-z]\w*)", line.partition("#")[0])}
    assert used <= {name for _, name, *_ in (*METHODS, *ATTRIBUTES)}
