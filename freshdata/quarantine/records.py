"""Which rejected events were sent again, kept in a small table beside the quarantine.

The quarantine itself is the worker's: its rows and its offsets are a function of the topic. A rebuild swaps them, and
what was sent again stays known, for an event is named by partition, offset and record timestamp. The timestamp belongs
to it because offsets begin anew when a topic is re-created.
"""

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError

from freshdata.contracts import Contract
from freshdata.lake.catalog import UTC_TIMESTAMP, ensure_table
from freshdata.lake.replace import append_rows

IDENTITY = ("partition", "offset", "ingested_at")
REPLAYS_SCHEMA = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("ingested_at", UTC_TIMESTAMP, nullable=False),
        pa.field("replayed_at", UTC_TIMESTAMP, nullable=False),
        pa.field("to_partition", pa.int32(), nullable=False),
        pa.field("to_offset", pa.int64(), nullable=False),
        pa.field("corrected", pa.bool_(), nullable=False),
    ]
)


def replays_table(contract: Contract) -> str:
    """Identifier of the table beside a stream's quarantine that says what was sent again."""
    return f"{contract.quarantine_table}__replays"


def read_replays(catalog: Catalog, contract: Contract) -> pa.Table:
    """The last time that each rejected event was sent again: one row for each event of which that is true."""
    try:
        rows = catalog.load_table(replays_table(contract)).scan().to_arrow().select(REPLAYS_SCHEMA.names)
    except NoSuchTableError:
        rows = REPLAYS_SCHEMA.empty_table()
    others = [name for name in REPLAYS_SCHEMA.names if name not in IDENTITY]
    # In one thread: "last" has a meaning only there.
    newest = rows.sort_by("replayed_at").group_by(list(IDENTITY), use_threads=False)
    last = newest.aggregate([(name, "last") for name in others])
    return last.rename_columns({f"{name}_last": name for name in others})


def record_replays(catalog: Catalog, contract: Contract, rows: pa.Table) -> None:
    """Note that rejected events were sent again.

    Args:
        catalog: The catalog.
        contract: The stream's contract.
        rows: Rows of :data:`REPLAYS_SCHEMA`.

    Raises:
        LakeError: the catalog kept refusing.
    """
    if rows.num_rows:
        append_rows(ensure_table(catalog, replays_table(contract), REPLAYS_SCHEMA), rows)
