"""Column schemas as Dagster shows them."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import dagster as dg
import pyarrow as pa

from freshdata.contracts import Contract
from freshdata.transform.manifest import ModelInfo
from freshdata_assets.platform import asset_key

INGESTION_COLUMNS = {
    "_kafka_partition": "Kafka partition the event came from.",
    "_offset": "Its offset there.",
    "_ingested_at": "Timestamp of its Kafka record.",
    "_late": "Whether it came behind the watermark.",
    "ingestion_date": "UTC date of its Kafka record.",
    "ingestion_hour": "UTC hour of its Kafka record.",
}


def arrow_columns(schema: pa.Schema, contract: Contract | None = None) -> dg.TableSchema:
    """The columns of an Arrow schema, described by the contract where it knows them."""
    described = {column.name: column.description for column in contract.columns} if contract else {}
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=field.name,
                type=str(field.type),
                description=described.get(field.name) or INGESTION_COLUMNS.get(field.name),
                constraints=dg.TableColumnConstraints(nullable=field.nullable),
            )
            for field in schema
        ]
    )


def records(
    columns: Iterable[str], rows: Iterable[dict[str, Any]], *, numbers: Collection[str] = ()
) -> dg.TableMetadataValue:
    """A table of metadata, which may be empty: Dagster then cannot tell its columns from its rows.

    Args:
        columns: Names of the columns.
        rows: Rows, by column.
        numbers: Those of the columns that are whole numbers; the others are text.
    """
    schema = dg.TableSchema([dg.TableColumn(name, "int" if name in numbers else "string") for name in columns])
    return dg.MetadataValue.table([dg.TableRecord(row) for row in rows], schema)


def model_columns(model: ModelInfo) -> dg.TableSchema:
    """The columns of a model."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name=name, type=kind, description=model.column_descriptions.get(name))
            for name, kind in model.columns.items()
        ]
    )


def column_lineage(lineage: Mapping[str, tuple[tuple[str, str], ...]]) -> dg.TableColumnLineage:
    """Which upstream columns each column is made from."""
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(asset_key=asset_key(table), column_name=name) for table, name in sources]
            for column, sources in lineage.items()
        }
    )
