"""A project of many streams, each with a Silver and a Gold model, and a lake with a little in each Bronze table."""

import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from pyiceberg.catalog import Catalog

from freshdata.clock import instance_clock
from freshdata.contracts import load_contracts
from freshdata.lake.catalog import ensure_stream_tables, open_catalog
from freshdata.settings import PROJECT, Settings

LIKE = "weather"
GOLD = """
MODEL (
  name gold.{name}_day,
  description 'Observations of {name} on each day.',
  owner 'weather-desk',
  kind CUSTOM (
    materialization 'overwrite_changed_partitions',
    materialization_properties (date_column = weather_date)
  ),
  partitioned_by (weather_date),
  grain (weather_date, tenant_id),
  audits (not_null(columns := (weather_date, tenant_id)))
);

SELECT
  weather_date, -- Day.
  tenant_id, -- Airport.
  COUNT(*)::BIGINT AS observations -- Observations.
FROM silver.{name}
WHERE
  weather_date BETWEEN @start_date AND @end_date
GROUP BY
  weather_date,
  tenant_id
"""


def make_project(folder: Path, streams: int, partitions: int) -> Settings:
    """Write the project, and set its instance's clock so that there are that many daily partitions.

    Args:
        folder: An empty folder.
        streams: Number of streams.
        partitions: Number of days.
    """
    models, contracts = folder / "sqlmesh_models", folder / "contracts"
    for path in (contracts, models / "models" / "silver", models / "models" / "gold"):
        path.mkdir(parents=True)
    shutil.copytree(PROJECT / "sqlmesh_models" / "audits", models / "audits")
    shutil.copyfile(PROJECT / "sqlmesh_models" / "config.py", models / "config.py")
    contract = (PROJECT / "contracts" / f"{LIKE}.odcs.yaml").read_text()
    silver = (PROJECT / "sqlmesh_models" / "models" / "silver" / f"{LIKE}.sql").read_text()
    for number in range(streams):
        name = f"stream_{number:04d}"
        named = contract.replace(f"name: {LIKE}\n", f"name: {name}\n").replace(f"flights:{LIKE}", f"flights:{name}")
        named = named.replace(f"physicalName: {LIKE}\n", f"physicalName: {name}\n")
        (contracts / f"{name}.odcs.yaml").write_text(named.replace(f"flights.{LIKE}.v1", f"flights.{name}.v1"))
        made = silver.replace(f"silver.{LIKE}", f"silver.{name}").replace(f"bronze.{LIKE}", f"bronze.{name}")
        (models / "models" / "silver" / f"{name}.sql").write_text(made)
        (models / "models" / "gold" / f"{name}_day.sql").write_text(GOLD.format(name=name))
    settings = Settings().model_copy(update={"project": folder, "home_override": folder / "home"})
    today = datetime.now(UTC).date()
    instance_clock(settings.home).set(start=today - timedelta(days=partitions - 1), now=None)
    return settings


def fill_lake(settings: Settings, days: list[date]) -> Catalog:
    """Append an observation of each of some days to every stream's Bronze table."""
    catalog, contracts = open_catalog(settings), load_contracts(settings.contracts_dir)
    for contract in contracts.values():
        ensure_stream_tables(catalog, contract, contracts)
        observe(catalog, contract.name, days)
    return catalog


def observe(catalog: Catalog, stream: str, days: list[date]) -> None:
    """Append an observation of each of some days to a stream's Bronze table."""
    import pyarrow as pa

    table = catalog.load_table(f"bronze.{stream}")
    rows = []
    for day in days:
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        key = {"observation_id": f"JFK-{day}", "tenant_id": "JFK", "weather_date": day, "event_time": noon}
        place = {"_kafka_partition": 0, "_offset": 0, "_ingested_at": noon, "_late": False, "ingestion_date": day}
        rows.append(key | place)
    table.append(pa.Table.from_pylist(rows, schema=table.schema().as_arrow()))
