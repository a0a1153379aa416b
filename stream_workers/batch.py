"""Turn consumed messages into Bronze rows, quarantine rows and the progress that accounts for every one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from operator import itemgetter
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from freshdata.contracts import Contract
from freshdata.contracts.changes import decoder_of
from freshdata.contracts.decode import Decoded, key_bytes, record_timestamps
from freshdata.contracts.named import Schemas
from freshdata.errors import RegistryDownError, SchemasUnknownError
from freshdata.forgotten import Forgotten
from freshdata.lake.catalog import QUARANTINE_SCHEMA, UTC_TIMESTAMP
from freshdata.lake.progress import PartitionProgress
from freshdata.privacy import Protector
from stream_workers.dedupe import DedupeIndex, key_hashes
from stream_workers.enrich import Enricher

# No event is older: what the newest event time of a partition is before its first event.
BEGINNING_OF_TIME = -(2**62)
MICROSECOND = timedelta(microseconds=1)


class Message(Protocol):
    """What the worker reads of a Kafka message."""

    def key(self) -> bytes | None:
        """Message key."""

    def value(self) -> bytes | None:
        """Message value."""

    def partition(self) -> int:
        """Kafka partition."""

    def offset(self) -> int:
        """Offset in the partition."""

    def timestamp(self) -> tuple[int, int]:
        """Timestamp type, and milliseconds since the epoch."""


@dataclass(frozen=True)
class Records:
    """Where messages came from, column-wise and aligned.

    Attributes:
        partitions: Kafka partitions.
        offsets: Offsets.
        timestamps: Record timestamps, in milliseconds.
    """

    partitions: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    timestamps: npt.NDArray[np.int64]

    @classmethod
    def of(cls, messages: Sequence[Message]) -> "Records":
        """The origin of messages, at least one."""
        # The type's functions, mapped: a third of the time of calling a method of each message in a Python loop.
        kind = type(messages[0])
        return cls(
            np.fromiter(map(kind.partition, messages), np.int32, len(messages)),
            np.fromiter(map(kind.offset, messages), np.int64, len(messages)),
            record_timestamps(map(itemgetter(1), map(kind.timestamp, messages)), len(messages)),
        )

    def at(self, positions: npt.NDArray[np.int64]) -> "Records":
        """The records at some positions."""
        return Records(self.partitions[positions], self.offsets[positions], self.timestamps[positions])

    @property
    def ingested_at(self) -> pa.Array:
        """Ingestion time: the record's timestamp, not this process's clock, so that a replay writes the same rows."""
        return pa.array(self.timestamps * 1000).cast(UTC_TIMESTAMP)


@dataclass
class PartitionState:
    """What the worker knows of a partition it owns.

    Attributes:
        offset: Next offset to process.
        max_event_time: Newest valid event time, in microseconds.
        index: Recently seen keys.
        refused: Offsets from ``offset`` on that are in the quarantine already, by a worker that ended between the
            commits of the two tables. They stay there, though another version of the contract may take them by now.
    """

    offset: int
    max_event_time: int
    index: DedupeIndex
    refused: frozenset[int] = frozenset()


@dataclass
class Batch:
    """What has been consumed since the last commit.

    Attributes:
        rows: Tables of Bronze rows, duplicates included.
        admitted: Which rows of each table are no duplicates: they are left out when the files are written, as leaving
            them out here would copy every row once more.
        rejected: Tables of quarantine rows.
        begin: Kafka partition to the offset at which the batch began.
        done: Kafka partition to what the batch consumed of it.
    """

    rows: list[pa.Table] = field(default_factory=list)
    admitted: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    rejected: list[pa.Table] = field(default_factory=list)
    begin: dict[int, int] = field(default_factory=dict)
    done: dict[int, PartitionProgress] = field(default_factory=dict)

    @property
    def consumed(self) -> int:
        """Number of records consumed."""
        return sum(done.consumed for done in self.done.values())

    def add(self, partition: int, done: PartitionProgress, state: PartitionState) -> None:
        """Account for records of a partition, and advance its state past them."""
        self.begin.setdefault(partition, state.offset)
        state.offset = done.offset
        newest = None if state.max_event_time == BEGINNING_OF_TIME else state.max_event_time
        done = replace(done, max_event_time=newest)
        self.done[partition] = self.done.get(partition, PartitionProgress(0)).after(done)


class SchemasWaitError(RegistryDownError):
    """Partitions wait for schemas that the registry does not tell now.

    Attributes:
        partitions: The partitions.
    """

    def __init__(self, down: RegistryDownError, partitions: frozenset[int]) -> None:
        super().__init__(down.url, down.why)
        self.partitions = partitions


class Processor:
    """Decodes, validates, deduplicates, flags late events and enriches, column-wise."""

    def __init__(
        self,
        contract: Contract,
        bronze_schema: pa.Schema,
        enricher: Enricher,
        schemas: Schemas | None = None,
        *,
        protector: Protector | None = None,
        forgotten: Forgotten | None = None,
    ) -> None:
        self.contract = contract
        self.rules = contract.rules
        self.schema = bronze_schema
        self.decoder = decoder_of(contract, schemas)
        self.enricher = enricher
        self.protector = protector
        self.forgotten = forgotten
        self.lateness = self.rules.allowed_lateness // MICROSECOND

    def __call__(self, messages: Sequence[Message], states: dict[int, PartitionState], batch: Batch) -> None:
        """Process messages and add the outcome to a batch.

        Args:
            messages: Messages without errors, in offset order within each partition. Those of partitions without a
                state, or behind it, are left out: after a rebalance or a fence some are still in flight.
            states: State of each owned partition; advanced.
            batch: The open batch; added to.

        Raises:
            SchemasWaitError: some messages name schemas that nobody tells now. They, and what follows them in their
                partitions, are left out; everything before them is in the batch.
        """
        records = Records.of(messages)
        messages, records = _only(_usable(records, states), messages, records)
        try:
            self._process(messages, records, states, batch)
        except SchemasUnknownError as error:
            waiting = records.at(np.array(error.positions))
            first: dict[int, int] = {}
            for partition, offset in zip(waiting.partitions.tolist(), waiting.offsets.tolist(), strict=True):
                first.setdefault(partition, offset)
            ready = np.ones(len(messages), dtype=np.bool_)
            for partition, offset in first.items():
                ready &= (records.partitions != partition) | (records.offsets < offset)
            self._process(*_only(ready, messages, records), states, batch)
            raise SchemasWaitError(error, frozenset(first)) from error

    def _process(
        self, messages: Sequence[Message], records: Records, states: dict[int, PartitionState], batch: Batch
    ) -> None:
        if not messages:
            return
        kind = type(messages[0])
        values, keys = list(map(kind.value, messages)), list(map(kind.key, messages))
        decoded = _without_refused(self.decoder(values, keys, records.timestamps), records, states)
        forgotten = None
        if self.forgotten:
            forgotten = self.forgotten.mask(decoded.rows)
            decoded = replace(decoded, rows=self.forgotten.cleared(decoded.rows))
        if self.protector:
            decoded = replace(decoded, rows=self.protector.rows(decoded.rows))
        valid = records.at(decoded.positions)
        admitted, late = self._admit(decoded.rows, valid.partitions, states)
        if forgotten is not None:
            admitted &= ~forgotten
        refused = records.at(np.array([position for position, _ in decoded.rejected], dtype=np.int64))
        if decoded.rows.num_rows:
            rows = self.enricher(self._with_origin(decoded.rows, valid).append_column("_late", pa.array(late)))
            batch.rows.append(conform(rows, self.schema))
            batch.admitted.append(admitted)
        if decoded.rejected:
            batch.rejected.append(self._quarantined(decoded.rejected, values, keys, records))
        for partition in np.unique(records.partitions):
            mine, of_valid = records.partitions == partition, valid.partitions == partition
            accepted = of_valid & admitted
            rejected = int((refused.partitions == partition).sum())
            done = PartitionProgress(
                offset=int(records.offsets[mine][-1]) + 1,
                consumed=int(mine.sum()),
                accepted=int(accepted.sum()),
                # A tombstone says once more what the delete before it has said.
                duplicates=int(mine.sum() - accepted.sum()) - rejected,
                rejected=rejected,
                late=int((accepted & late).sum()),
            )
            batch.add(int(partition), done, states[int(partition)])

    def _with_origin(self, rows: pa.Table, records: Records) -> pa.Table:
        ingested_at = records.ingested_at
        rows = rows.append_column("_kafka_partition", pa.array(records.partitions))
        rows = rows.append_column("_offset", pa.array(records.offsets))
        rows = rows.append_column("_ingested_at", ingested_at)
        rows = rows.append_column("ingestion_date", ingested_at.cast(pa.date32()))
        if self.rules.granularity == "hour":
            rows = rows.append_column("ingestion_hour", pc.floor_temporal(ingested_at, unit="hour"))
        if self.rules.derives_event_date:
            rows = rows.append_column(self.rules.event_date_field, rows[self.rules.event_time_field].cast(pa.date32()))
        return rows

    def _admit(
        self, rows: pa.Table, partitions: npt.NDArray[np.int32], states: dict[int, PartitionState]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Which rows are no duplicates, and which came behind their partition's watermark."""
        event_times = rows[self.rules.event_time_field].cast(pa.int64()).to_numpy()
        hashes = self.stored_hashes(rows)
        admitted = np.ones(rows.num_rows, dtype=np.bool_)
        late = np.zeros(rows.num_rows, dtype=np.bool_)
        for partition in np.unique(partitions):
            state = states[int(partition)]
            mine = np.flatnonzero(partitions == partition)
            times = event_times[mine]
            newest = np.maximum.accumulate(np.concatenate(([state.max_event_time], times)))
            admitted[mine] = state.index.admit(hashes[mine], times, newest[:-1])
            late[mine] = times < newest[:-1] - self.lateness
            state.max_event_time = int(newest[-1])
        return admitted, late

    def stored_hashes(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        """The dedupe hash of each stored row."""
        parts = [key_bytes(rows[name]) for name in self.rules.dedupe_key]
        if len(parts) == 1:
            return self._hashes(rows, parts[0].to_pylist())
        # With their lengths, so that no two keys read the same. Of a truncated table's change the primary key is null.
        lengths = [pc.binary_length(part).cast(pa.string()).cast(pa.binary()) for part in parts]
        pieces = [piece for pair in zip(lengths, parts, strict=True) for piece in pair]
        joined = pc.binary_join_element_wise(*pieces, b":", null_handling="replace")
        return self._hashes(rows, joined.to_pylist())

    def _hashes(self, rows: pa.Table, keys: Sequence[bytes | None]) -> npt.NDArray[np.int64]:
        version = self.rules.version_field
        return key_hashes(keys, rows[version].to_pylist() if version else None)

    def _quarantined(
        self,
        rejected: list[tuple[int, str]],
        values: list[bytes | None],
        keys: list[bytes | None],
        records: Records,
    ) -> pa.Table:
        positions = [position for position, _ in rejected]
        of = records.at(np.array(positions))
        if self.forgotten:
            gone = {position for position in positions if self.forgotten.named_in(values[position])}
            values = [None if position in gone else value for position, value in enumerate(values)]
            keys = [None if position in gone else key for position, key in enumerate(keys)]
        columns = {
            "topic": [self.rules.topic] * len(positions),
            "partition": of.partitions,
            "offset": of.offsets,
            "key": self._sealed([keys[position] for position in positions]),
            "payload": self._sealed([values[position] for position in positions]),
            "reason": [self.protector.reason(reason) if self.protector else reason for _, reason in rejected],
            "contract_version": [self.contract.version] * len(positions),
            "ingested_at": of.ingested_at,
            "ingestion_date": of.ingested_at.cast(pa.date32()),
        }
        return pa.table(columns, schema=QUARANTINE_SCHEMA)

    def _sealed(self, data: list[bytes | None]) -> list[bytes | None]:
        return self.protector.sealed(data) if self.protector else data


def _without_refused(decoded: Decoded, records: Records, states: dict[int, PartitionState]) -> Decoded:
    """Leave out rows that were refused before."""
    refused = np.zeros(len(decoded.positions), dtype=np.bool_)
    of = records.at(decoded.positions)
    for partition, state in states.items():
        if state.refused:
            refused |= (of.partitions == partition) & np.isin(of.offsets, list(state.refused))
    if not refused.any():
        return decoded
    again = [(int(position), "refused before") for position in decoded.positions[refused]]
    rows = decoded.rows.filter(pa.array(~refused))
    return Decoded(rows, decoded.positions[~refused], sorted(decoded.rejected + again))


def conform(rows: pa.Table, schema: pa.Schema, renamed: Mapping[str, str] = MappingProxyType({})) -> pa.Table:
    """Rows with a table's columns: one that they lack, as they were decoded under an older contract, is null.

    Args:
        rows: The rows.
        schema: The table's columns.
        renamed: Former names of its columns, and what each is called now.
    """
    if rows.schema.equals(schema):
        return rows
    rows = rows.rename_columns([renamed.get(name, name) for name in rows.column_names])
    known = set(rows.column_names)
    columns = [rows[field.name] if field.name in known else pa.nulls(len(rows), field.type) for field in schema]
    return pa.table(columns, schema.names).cast(schema)


def _only(
    wanted: npt.NDArray[np.bool_], messages: Sequence[Message], records: Records
) -> tuple[Sequence[Message], Records]:
    if wanted.all():
        return messages, records
    kept = np.flatnonzero(wanted)
    return [messages[position] for position in kept.tolist()], records.at(kept)


def _usable(records: Records, states: dict[int, PartitionState]) -> npt.NDArray[np.bool_]:
    usable = np.zeros(len(records.offsets), dtype=np.bool_)
    for partition, state in states.items():
        usable |= (records.partitions == partition) & (records.offsets >= state.offset)
    return usable
