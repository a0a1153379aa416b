"""Silver made by hand: what freshness looks at, with the cursor of a live run."""

from typing import Any

import pyarrow as pa
from pyiceberg.transforms import IdentityTransform

from freshdata.lake.catalog import ensure_table, open_catalog
from freshdata.lake.cursors import Cursor, upstream_heads
from freshdata.settings import Settings

SCHEMA = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("tenant_id", pa.string(), nullable=False),
        pa.field("event_time", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("flight_date", pa.date32(), nullable=False),
    ]
)


def take_in(settings: Settings, rows: list[dict[str, Any]]) -> None:
    """Append flights to Silver as a run does that has seen all of Bronze."""
    catalog = open_catalog(settings)
    table = ensure_table(catalog, "silver.flight_events", SCHEMA, partition_by={"flight_date": IdentityTransform()})
    seen = Cursor.at(upstream_heads(catalog, ["bronze.flight_events"]), "v1")
    chosen = [{name: row[name] for name in SCHEMA.names} for row in rows]
    table.append(pa.Table.from_pylist(chosen, schema=SCHEMA), snapshot_properties=seen.properties())
