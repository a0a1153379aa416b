"""A project over the changes of one table of a database, and changes as a worker would store them."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from freshdata.contracts import load_contracts
from freshdata.contracts.changes import ChangeDecoder
from freshdata.lake.catalog import ensure_stream_tables, open_catalog
from freshdata.lake.commits import commit_batch
from freshdata.lake.files import write_data_files
from freshdata.lake.progress import PartitionProgress, Progress, read_progress
from freshdata.settings import Settings

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
CONTRACT = """
apiVersion: v3.2.0
kind: DataContract
id: urn:test:shop:NAME
name: NAME
version: 1.0.0
status: active
schema:
  - name: NAME
    description: Rows of public.NAME, and every change of them.
    customProperties:
      - {property: changeCapture, value: {source: shop, table: public.NAME, deletes: MODE}}
    properties:
      - {name: id, logicalType: integer, physicalType: bigint, required: true, primaryKey: true}
COLUMNS
team: {name: shop}
slaProperties:
  - {property: freshness, value: 1, unit: d}
"""
COLUMNS = """
      - {name: city, physicalName: City, logicalType: string, physicalType: string}
      - {name: note, logicalType: string, physicalType: string}
      - {name: credit, logicalType: number, physicalType: "decimal(10,2)"}
      - {name: born, logicalType: date, physicalType: date}
      - {name: opens, logicalType: string, physicalType: time}
      - {name: seen, logicalType: timestamp, physicalType: timestamp_ntz}
      - {name: joined, logicalType: timestamp, physicalType: timestamptz}
      - {name: tags, logicalType: array, physicalType: array<string>}
      - {name: picture, logicalType: string, physicalType: binary}
      - {name: visits, logicalType: integer, physicalType: int}
"""
UNTOLD = "__debezium_unavailable_value"
MODEL = """
MODEL (
  name NAME,
  kind CUSTOM (
    materialization 'current_rows',
    materialization_properties (unique_key = id, delete_mode = HOW)
  ),
  grain (id),
  audits (unique_values(columns := (id)))
);
SELECT id, city, note, credit, visits, _op, _lsn, _offset, _changed_at
FROM bronze.customers
"""
DIMENSION = """
MODEL (
  name gold.dim_customer,
  kind CUSTOM (
    materialization 'scd2',
    materialization_properties (
      unique_key = id, valid_from = valid_from, version = _offset, deleted = (_op IN ('d', 't')),
      compared = (city, note), changes = true
    )
  ),
  grain (id, valid_from),
  audits (unique_values(columns := (id), condition := is_current))
);
SELECT id, city, note, _op, _lsn, _offset, _changed_at AS valid_from
FROM bronze.customers
"""
TEST = """
test_TABLE:
  model: NAME
  inputs:
    bronze.customers:
      rows:
        - {id: 1, city: Rome, _op: c, _lsn: 1, _offset: 0}
  outputs:
    query:
      partial: true
      rows:
        - {id: 1, city: Rome}
"""
HARD, SOFT, HISTORY = "silver.customers", "silver.customers_kept", "gold.dim_customer"


def captured_contract(name: str = "customers", columns: str = COLUMNS, *, deletes: str = "hard") -> str:
    """The contract of the changes of a table, whose key is the column ``id``.

    Args:
        name: The table's name.
        columns: The other columns, a line each.
        deletes: What becomes of deleted rows.
    """
    return CONTRACT.replace("NAME", name).replace("MODE", deletes).replace("COLUMNS", columns.strip("\n"))


def captured_project(folder: Path, models: dict[str, tuple[str, str]], *, deletes: str = "hard") -> Settings:
    """A project with the change stream ``customers`` and some models, and an instance of it.

    Args:
        folder: Where to put it.
        models: Model to its definition and its unit test.
        deletes: The contract's.
    """
    for part in ("contracts", "sqlmesh_models/models", "sqlmesh_models/tests"):
        (folder / part).mkdir(parents=True)
    (folder / "contracts" / "customers.odcs.yaml").write_text(captured_contract(deletes=deletes))
    for name, (text, test) in models.items():
        (folder / "sqlmesh_models" / "models" / f"{name}.sql").write_text(text)
        (folder / "sqlmesh_models" / "tests" / f"test_{name}.yaml").write_text(test)
    return Settings().model_copy(update={"project": folder, "home_override": folder / "home"})


def customers_project(folder: Path) -> Settings:
    """The same with three models: the present rows without and with the deleted ones, and their history."""
    models = {
        HARD: MODEL.replace("NAME", HARD).replace("HOW", "@customers_delete_mode"),
        SOFT: MODEL.replace("NAME", SOFT).replace("HOW", "soft"),
        HISTORY: DIMENSION,
    }
    tests = {name: TEST.replace("TABLE", name.replace(".", "_")).replace("NAME", name) for name in models}
    return captured_project(folder, {name: (text, tests[name]) for name, text in models.items()})


def change(operation: str, lsn: int, key: int | None = None, **values: Any) -> bytes:
    """A change as Debezium writes it, without a schema; ``before`` is the old row of a delete."""
    row = None if key is None else {"id": key} | values
    images = {"before": row, "after": None} if operation == "d" else {"before": None, "after": row}
    at = BEGIN + timedelta(seconds=lsn)
    source = {"ts_us": int(at.timestamp() * 1_000_000), "lsn": lsn, "txId": lsn, "snapshot": str(operation == "r")}
    return json.dumps(images | {"source": source, "op": operation, "transaction": None}).encode()


def land(settings: Settings, messages: Iterable[bytes]) -> None:
    """Make changes visible in Bronze, in one snapshot, as the worker does."""
    contracts = load_contracts(settings.contracts_dir)
    contract, values = contracts["customers"], list(messages)
    decoded = ChangeDecoder(contract)(values, None, np.zeros(len(values), np.int64))
    assert decoded.rejected == []
    bronze, _ = ensure_stream_tables(open_catalog(settings), contract, contracts)
    recorded = read_progress(bronze)
    offset, count = recorded.partitions[0].offset if recorded else 0, len(values)
    columns = {
        "_changed_on": decoded.rows["_changed_at"].cast(pa.date32()),
        "_kafka_partition": pa.array([0] * count, pa.int32()),
        "_offset": pa.array(range(offset, offset + count), pa.int64()),
        "_ingested_at": decoded.rows["_changed_at"],
        "_late": pa.array([False] * count),
        "ingestion_date": pa.array([BEGIN.date()] * count),
    }
    rows = decoded.rows
    for name, values_of_it in columns.items():
        rows = rows.append_column(name, values_of_it)
    done = Progress("cluster", contract.rules.topic, {0: PartitionProgress(offset + count, None, count, count)})
    commit_batch(bronze, write_data_files(bronze, rows), {0: offset} if recorded else {}, done)
