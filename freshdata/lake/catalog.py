"""Open the Iceberg catalog, and create the tables that a contract asks for."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlparse

import pyarrow as pa
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.exceptions import (
    NoSuchNamespaceError,
    NoSuchTableError,
    NotInstalledError,
    TableAlreadyExistsError,
)
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.table import Table
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import BucketTransform, IdentityTransform, Transform
from pyiceberg.typedef import Identifier
from sqlalchemy import select
from sqlalchemy.exc import DatabaseError, IntegrityError
from sqlalchemy.orm import Session

from freshdata.contracts import Contract
from freshdata.errors import LakeError, PrerequisiteError
from freshdata.lake.publication import add_columns, iceberg_schema, publish
from freshdata.settings import Settings

# Spark and Trino find the tables under this name too: in a JDBC catalog it is part of a table's identity.
CATALOG_NAME = "lake"
TABLE_PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    # A blind retry lets a fenced worker's rows land behind its successor's: PyIceberg's default of 4 does.
    "commit.retry.num-retries": "0",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "10",
}
UTC_TIMESTAMP = pa.timestamp("us", "UTC")
QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("payload", pa.binary()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("contract_version", pa.string(), nullable=False),
        pa.field("ingested_at", UTC_TIMESTAMP, nullable=False),
        pa.field("ingestion_date", pa.date32(), nullable=False),
    ]
)


def open_catalog(settings: Settings) -> Catalog:
    """Open the instance's catalog: SQLite in its home folder, or the one that ``FRESHDATA_CATALOG_*`` names.

    Raises:
        PrerequisiteError: the database's driver is not installed.
    """
    properties = catalog_properties(settings)
    if properties["uri"].startswith("sqlite:///"):
        settings.home.mkdir(parents=True, exist_ok=True)
    try:
        return load_catalog(CATALOG_NAME, **properties)
    except DatabaseError:
        # Two workers that start at once both create the catalog's own tables; the one that comes second finds them.
        return load_catalog(CATALOG_NAME, **properties)
    except NotInstalledError as error:
        driver = getattr(error.__cause__, "name", None) or "a driver"
        raise PrerequisiteError(
            driver,
            f"The catalog that FRESHDATA_CATALOG_URI names needs {driver}, which is not installed.",
            remedy="Install it; PostgreSQL's with `pip install 'freshdata[postgres]'`.",
        ) from error


def catalog_properties(settings: Settings) -> dict[str, str]:
    """PyIceberg's properties of the instance's catalog."""
    uri = settings.catalog_uri or f"sqlite:///{settings.home}/catalog.db?timeout=60"
    warehouse = settings.catalog_warehouse or f"file://{settings.home}/warehouse"
    kind = "rest" if urlparse(uri).scheme in ("http", "https") else "sql"
    return {"type": kind, "uri": uri, "warehouse": warehouse} | settings.catalog_properties


def load_table(catalog: Catalog, name: str) -> Table:
    """Load a table.

    Raises:
        LakeError: there is no such table.
    """
    try:
        return catalog.load_table(name)
    except NoSuchTableError as error:
        raise LakeError(name, "does not exist.", remedy="Ingest its stream or materialize its model first.") from error


def bronze_schema(contract: Contract, lookups: dict[str, Contract]) -> pa.Schema:
    """The Bronze columns of a stream: the contract's, the enrichments', and where and when each row came in.

    Args:
        contract: The stream's contract.
        lookups: All contracts by name; enrichments take their column types from them.
    """
    rules = contract.rules
    fields = list(contract.stored_schema)
    if rules.derives_event_date:
        fields.append(pa.field(rules.event_date_field, pa.date32(), nullable=False))
    for enrichment in rules.enrichments:
        source = lookups[enrichment.lookup].arrow_schema
        fields += [pa.field(name, source.field(column).type) for column, name in enrichment.columns.items()]
    fields += [
        # Not `_partition`: Iceberg's Java library keeps that name, and Spark refuses to read a table that has it.
        pa.field("_kafka_partition", pa.int32(), nullable=False),
        pa.field("_offset", pa.int64(), nullable=False),
        pa.field("_ingested_at", UTC_TIMESTAMP, nullable=False),
        pa.field("_late", pa.bool_(), nullable=False),
        pa.field("ingestion_date", pa.date32(), nullable=False),
    ]
    if rules.granularity == "hour":
        fields.append(pa.field("ingestion_hour", UTC_TIMESTAMP, nullable=False))
    return pa.schema(fields)


def ensure_stream_tables(catalog: Catalog, contract: Contract, lookups: dict[str, Contract]) -> tuple[Table, Table]:
    """Create a stream's Bronze and quarantine tables, or bring them up to the contract, and publish it.

    Columns that the contract has gained are added as optional ones; old files are not touched. A table that goes by a
    newer version stays as it is.

    Returns:
        The Bronze and the quarantine table.

    Raises:
        EvolutionError: the contract would break what is stored or sent.
    """
    rules = contract.rules
    by_tenant: Transform[Any, Any] = (
        BucketTransform(rules.tenant_buckets) if rules.tenant_buckets else IdentityTransform()
    )
    time_column = "ingestion_hour" if rules.granularity == "hour" else "ingestion_date"
    schema = bronze_schema(contract, lookups)
    bronze = _create_table(
        catalog,
        contract.table,
        schema,
        partition_by={time_column: IdentityTransform(), rules.tenant_field: by_tenant},
        sort_by=(*rules.clustering, rules.event_time_field),
    )
    publish(bronze, contract, schema)
    quarantine = ensure_table(
        catalog, contract.quarantine_table, QUARANTINE_SCHEMA, partition_by={"ingestion_date": IdentityTransform()}
    )
    return bronze, quarantine


def list_tables(catalog: Catalog) -> Iterator[Identifier]:
    """The tables of all namespaces; those of a namespace that is dropped meanwhile are left out."""
    for namespace in catalog.list_namespaces():
        with suppress(NoSuchNamespaceError):
            yield from catalog.list_tables(namespace)


def metadata_locations(catalog: Catalog) -> dict[str, str]:
    """Each table's metadata file, which another takes the place of at every commit.

    Empty unless the catalog is a database: others would have to be asked for each table.
    """
    if not isinstance(catalog, SqlCatalog):
        return {}
    named = (IcebergTables.table_namespace, IcebergTables.table_name, IcebergTables.metadata_location)
    query = select(*named).where(IcebergTables.catalog_name == catalog.name)
    with Session(catalog.engine) as session:
        return {f"{namespace}.{name}": str(location) for namespace, name, location in session.execute(query)}


def ensure_table(
    catalog: Catalog,
    name: str,
    schema: pa.Schema,
    *,
    partition_by: dict[str, Transform[Any, Any]] | None = None,
    sort_by: tuple[str, ...] = (),
) -> Table:
    """Create a table, or add the columns it lacks.

    Args:
        catalog: The catalog.
        name: Table identifier, ``namespace.table``.
        schema: Arrow schema of the table.
        partition_by: Source column to its partition transform.
        sort_by: Columns of the sort order.
    """
    table = _create_table(catalog, name, schema, partition_by=partition_by, sort_by=sort_by)
    add_columns(table, schema)
    return table


def _create_table(
    catalog: Catalog,
    name: str,
    schema: pa.Schema,
    *,
    partition_by: dict[str, Transform[Any, Any]] | None = None,
    sort_by: tuple[str, ...] = (),
) -> Table:
    """Create a table, or load the one there is."""
    ensure_namespace(catalog, name.rpartition(".")[0])
    iceberg = iceberg_schema(schema)
    try:
        return catalog.create_table(
            name,
            iceberg,
            partition_spec=PartitionSpec(
                *(
                    PartitionField(
                        iceberg.find_field(column).field_id, 1000 + number, transform, _part(column, transform)
                    )
                    for number, (column, transform) in enumerate((partition_by or {}).items())
                )
            ),
            sort_order=SortOrder(*(SortField(iceberg.find_field(c).field_id, IdentityTransform()) for c in sort_by)),
            properties=TABLE_PROPERTIES,
        )
    except TableAlreadyExistsError:
        return catalog.load_table(name)


def ensure_namespace(catalog: Catalog, namespace: str) -> None:
    """Create a namespace unless it exists."""
    try:
        catalog.create_namespace_if_not_exists(namespace)
    except IntegrityError:
        # Two workers that start at once: the check and the insertion are two statements.
        if not catalog.namespace_exists(namespace):
            raise


def _part(column: str, transform: Transform[Any, Any]) -> str:
    # An Iceberg partition field may share its source column's name only under the identity transform.
    return column if isinstance(transform, IdentityTransform) else f"{column}_bucket"
