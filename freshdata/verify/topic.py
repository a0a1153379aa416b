"""Read back what a topic holds, decoded by its contract."""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from freshdata.contracts import Contract
from freshdata.contracts.changes import decoder_of
from freshdata.contracts.decode import Decoded, record_timestamps
from freshdata.errors import ServiceError
from freshdata.forgotten import read_forgotten
from freshdata.lake.catalog import open_catalog
from freshdata.privacy import load_secret, protector
from freshdata.registry import schema_source
from freshdata.services.kafka import client_config
from freshdata.settings import Settings

MESSAGES_PER_READ = 50_000
READ_SECONDS = 0.5  # consume() waits this long for a full list, so it is short
PATIENCE_SECONDS = 30.0
REJECTED_SCHEMA = pa.schema(
    [pa.field("offset", pa.int64()), pa.field("key", pa.binary()), pa.field("payload", pa.binary())]
)


@dataclass(frozen=True)
class PartitionContent:
    """What one Kafka partition holds.

    Attributes:
        records: Number of records.
        valid: The contract's columns and ``_offset`` of every record that keeps the contract.
        rejected: Offset, key and payload of every record that breaks it; tombstones of changes are neither.
    """

    records: int
    valid: pa.Table
    rejected: pa.Table


class Earlier:
    """Versions of a contract that took what a later one refuses, as its mode let it: their records are right still.

    Args:
        settings: The instance's settings.
        contract: The contract.
        versions: The versions, the newest first.
        kept_out: Offsets of records that were refused when they came.
    """

    def __init__(
        self, settings: Settings, contract: Contract, versions: Sequence[Contract], kept_out: Collection[int]
    ) -> None:
        self._contract = contract
        self._decoders = [(version, decoder_of(version, schema_source(settings))) for version in versions]
        self._kept_out = frozenset(kept_out)

    def __call__(
        self,
        decoded: Decoded,
        values: list[bytes | None],
        keys: list[bytes | None],
        times: npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int64],
    ) -> Decoded:
        """What was decoded, with what an earlier version takes of the rest."""
        for version, decode in self._decoders:
            left = [place for place, _ in decoded.rejected if offsets[place] not in self._kept_out]
            if not left:
                break
            again = decode([values[at] for at in left], [keys[at] for at in left], times[left])
            taken = np.array(left, dtype=np.int64)[again.positions]
            positions = np.concatenate([decoded.positions, taken])
            order = np.argsort(positions)
            rows = pa.concat_tables(
                [
                    _by_columns_of(self._contract, self._contract, decoded.rows),
                    _by_columns_of(self._contract, version, again.rows),
                ]
            ).take(order)
            rest = [(place, reason) for place, reason in decoded.rejected if place not in set(taken.tolist())]
            decoded = Decoded(rows, positions[order], rest)
        return decoded


def _by_columns_of(contract: Contract, version: Contract, rows: pa.Table) -> pa.Table:
    """Rows of an earlier version with the contract's columns; what that version lacks is null."""
    former = {column.id: column.name for column in version.columns}
    names = {column.name: former.get(column.id, "") for column in contract.columns}
    columns = []
    for field in contract.arrow_schema:
        name = names.get(field.name, field.name)
        known = name in rows.column_names
        columns.append(rows[name].cast(field.type) if known else pa.nulls(len(rows), field.type))
    # Required by now, and null in what came before: the schema's own word is not for these.
    return pa.table(columns, contract.arrow_schema.names)


def read_partition(
    settings: Settings,
    contract: Contract,
    partition: int,
    end: int,
    *,
    refused: Collection[int] = (),
    earlier: Earlier | None = None,
) -> PartitionContent:
    """Read a partition from its first record to an offset.

    Args:
        settings: The instance's settings.
        contract: The stream's contract.
        partition: Kafka partition.
        end: Offset to stop before.
        refused: Offsets of records that break the contract whatever they hold.
        earlier: Who takes what the contract refuses by now, if anybody.

    Raises:
        ServiceError: the broker does not deliver, or the registry does not tell an unknown schema.
    """
    secret = load_secret(settings)
    decoder, protects = decoder_of(contract, schema_source(settings)), protector(contract, secret)
    catalog = open_catalog(settings)
    forgotten = read_forgotten(catalog, contract, catalog.load_table(contract.table), secret)
    records = 0
    schema = pa.schema([field.with_nullable(True) for field in contract.stored_schema])  # noqa: FBT003
    schema = schema.append(pa.field("_offset", pa.int64()))
    valid, rejected = [schema.empty_table()], [REJECTED_SCHEMA.empty_table()]
    for messages in read_messages(settings, contract.rules.topic, partition, end):
        values = [message.value() for message in messages]
        keys = [message.key() for message in messages]
        offsets = np.fromiter((message.offset() for message in messages), np.int64, len(messages))
        times = record_timestamps((message.timestamp()[1] for message in messages), len(messages))
        decoded = decoder(values, keys, times)
        if earlier:
            decoded = earlier(decoded, values, keys, times, offsets)
        again = np.isin(offsets[decoded.positions], list(refused))
        keeps = ~again & ~forgotten.mask(decoded.rows) if forgotten else ~again
        rows = forgotten.cleared(decoded.rows) if forgotten else decoded.rows
        rows = protects.rows(rows) if protects else rows
        good = decoded.positions[keeps]
        valid.append(rows.filter(pa.array(keeps)).append_column("_offset", pa.array(offsets[good])).cast(schema))
        refused_now = [*decoded.positions[again].tolist(), *(position for position, _ in decoded.rejected)]
        bad = np.array(sorted(refused_now), dtype=np.int64)
        gone = {position for position in bad.tolist() if forgotten and forgotten.named_in(values[position])}
        raw = tuple([None if position in gone else data[position] for position in bad] for data in (keys, values))
        columns = [offsets[bad], *(map(protects.sealed, raw) if protects else raw)]
        rejected.append(pa.table(columns, schema=REJECTED_SCHEMA))
        records += len(messages)
    return PartitionContent(records, pa.concat_tables(valid), pa.concat_tables(rejected))


def read_messages(settings: Settings, topic: str, partition: int, end: int) -> Iterator[list[Message]]:
    """The partition's messages in lists; transactions that were aborted, and their markers, are not among them."""
    consumer = Consumer(
        client_config(settings)
        | {
            "group.id": "freshdata-verify",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    at = TopicPartition(topic, partition, OFFSET_BEGINNING)
    try:
        if end <= consumer.get_watermark_offsets(at, timeout=PATIENCE_SECONDS)[0]:
            return
        consumer.assign([at])
        finished, last_answer = False, time.monotonic()
        while not finished:
            messages = consumer.consume(MESSAGES_PER_READ, READ_SECONDS)
            if messages:
                last_answer = time.monotonic()
            elif time.monotonic() - last_answer > PATIENCE_SECONDS:
                raise ServiceError(
                    "kafka",
                    f"Partition {partition} of {topic} stopped answering.",
                    remedy="Check that the broker runs: freshdata status.",
                )
            finished = any(message.error() or message.offset() >= end - 1 for message in messages)
            if good := [message for message in messages if not message.error() and message.offset() < end]:
                yield good
    except KafkaException as error:
        raise ServiceError(
            "kafka", f"Topic {topic} cannot be read: {error}.", remedy="Check that the broker runs: freshdata status."
        ) from error
    finally:
        consumer.close()
