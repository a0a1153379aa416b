"""``python -m benchmarks.ingest.quix TOPIC FOLDER``: the worker's work, row by row in a Quix StreamingDataFrame.

Kept as fast as this style allows: one typed decode validates, the rows of all partitions are appended as one commit.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pyarrow as pa
from msgspec import Meta
from pyiceberg.table import Table
from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch

from benchmarks.ingest.events import PRODUCTS, STREAM, product
from benchmarks.ingest.python_side import QUIX_CONSUMED
from freshdata.contracts import load_contracts
from freshdata.lake.catalog import ensure_stream_tables, open_catalog
from freshdata.settings import load_settings

LATENESS = 300.0  # seconds, as in the contract
COMMIT_SECONDS = 2.0


class Event(msgspec.Struct, forbid_unknown_fields=True):
    """An event under the contract's rules."""

    event_id: Annotated[str, Meta(min_length=32, max_length=32)]
    tenant_id: Annotated[str, Meta(pattern="^tenant-[0-9]{3}$")]
    event_type: Literal["order", "click", "view", "pay"]
    event_time: Annotated[datetime, Meta(tz=True)]
    user_id: str
    product_id: str
    quantity: Annotated[int, Meta(ge=0, le=1000)]
    price: Annotated[float, Meta(ge=0)]
    currency: str
    country: str | None = None
    session: str | None = None


class IcebergSink(BatchingSink):  # type: ignore[misc]  # Quix is not followed by the type checker.
    """Appends what has come since the last checkpoint, of all partitions, as one Iceberg commit."""

    def __init__(self, table: Table) -> None:
        super().__init__()
        self.table = table
        self.schema = table.schema().as_arrow()
        self.consumed = 0
        self._rows: list[dict[str, Any]] = []

    def write(self, batch: SinkBatch) -> None:
        """Collect a partition's rows."""
        for item in batch:
            at = datetime.fromtimestamp(item.timestamp / 1000, UTC)
            self._rows.append(
                item.value
                | {
                    "_kafka_partition": batch.partition,
                    "_offset": item.offset,
                    "_ingested_at": at,
                    "ingestion_date": at.date(),
                    "event_date": item.value["event_time"].date(),
                }
            )

    def flush(self) -> None:
        """Append the rows."""
        super().flush()
        rows, self._rows = self._rows, []
        if rows:
            table = pa.Table.from_pylist(rows, schema=self.schema)
            self.table.append(table, snapshot_properties={QUIX_CONSUMED: str(self.consumed)})


def main(topic: str, folder: str) -> None:
    """Run until SIGTERM."""
    settings = load_settings()
    contracts = load_contracts(settings.contracts_dir)
    table, _ = ensure_stream_tables(open_catalog(settings), contracts[STREAM], contracts)
    sink = IcebergSink(table)
    decode = msgspec.json.Decoder(Event).decode
    categories = dict(map(product, range(PRODUCTS)))
    newest = 0.0

    def validated(value: bytes) -> dict[str, Any]:
        nonlocal newest
        sink.consumed += 1
        row = msgspec.structs.asdict(decode(value))
        time = row["event_time"].timestamp()
        row["_late"] = time < newest - LATENESS
        newest = max(newest, time)
        row["category"] = categories.get(row["product_id"])
        return row

    def is_new(row: dict[str, Any], state: Any) -> bool:
        if state.exists(row["event_id"]):
            return False
        state.set(row["event_id"], 1)
        return True

    application = Application(
        broker_address=settings.kafka_bootstrap,
        consumer_group="-".join(Path(folder).parts[-2:]),
        auto_offset_reset="earliest",
        commit_interval=COMMIT_SECONDS,
        state_dir=f"{folder}/state",
        loglevel="WARNING",
    )
    source = application.topic(topic, key_deserializer="bytes", value_deserializer="bytes")
    application.dataframe(source).apply(validated).filter(is_new, stateful=True).sink(sink)
    application.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
