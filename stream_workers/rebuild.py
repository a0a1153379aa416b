"""Rebuild a stream's Bronze and quarantine from Kafka beside the live tables, check them, and swap.

The rebuilt tables are filled by the worker's own code, under offset maps of their own, so a replay that was killed
continues where it stopped. The live worker is never told: the swap puts the rebuilt offsets into the live table too.
Its next commit is then fenced like any other that lost a race, and it goes on from there. The swap waits until the
rebuilt tables are ahead of the worker, so that no reader sees a row go away that will come back; only a worker that
stays ahead for rounds on end is set back by the few seconds that it is ahead.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from freshdata.contracts import load_contracts, stream_contract
from freshdata.contracts.loader import IDENTIFIER
from freshdata.errors import ContractError, LakeError
from freshdata.forgotten import FORGOTTEN_PROPERTY
from freshdata.lake.catalog import ensure_stream_tables, open_catalog
from freshdata.lake.files import write_data_files
from freshdata.lake.progress import PROGRESS_PROPERTY, PartitionProgress, Progress, read_progress
from freshdata.lake.publication import ID_PROPERTY, followed_contract
from freshdata.lake.replace import fork_table, take_over
from freshdata.privacy import SECRET_PROPERTY, load_secret
from freshdata.registry import schema_source
from freshdata.replay import carried_properties, fits, missing_keys, only_one, recorded_progress
from freshdata.replay_topic import TopicReader
from freshdata.services.kafka import cluster_id
from freshdata.settings import Settings
from freshdata.verify.ingest import verify_ingest
from stream_workers.batch import Batch, PartitionState
from stream_workers.bronze import BronzeWriter
from stream_workers.faults import reach
from stream_workers.watermark import WATERMARK_PROPERTY

# Table property of a rebuilt table that says what it is a replay of.
REPLAY_PROPERTY = "freshdata.replay"
SUFFIX = "__replay"
COMMIT_RECORDS = 500_000
COMMIT_BYTES = 256 * 1024 * 1024
# A round reads what came in during the one before. A worker that commits faster than a swap takes is ahead in them all.
ROUNDS = 5

Tell = Callable[[str], None]
Advance = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        stream: Name of the stream contract.
        from_offset: Offset at which each Kafka partition is read from.
        to_table: Name under which the result is left, or None to swap it in.
        allow_missing: Whether rows of the live table may be missing from the rebuilt one.
    """

    stream: str
    from_offset: int = 0
    to_table: str | None = None
    allow_missing: bool = False


class _BehindError(Exception):
    """The live worker is ahead of the rebuilt table."""


class Replay:
    """One replay of one stream.

    Args:
        settings: The instance.
        request: What is asked for.
        tell: Called with a line for the user at each step.
        advance: Called with what is being done, and how much of how much of it is.
    """

    def __init__(
        self, settings: Settings, request: Request, *, tell: Tell = lambda _: None, advance: Advance = lambda *_: None
    ) -> None:
        self.settings = settings
        self.request = request
        self.tell = tell
        self.advance = advance
        self.contracts = load_contracts(settings.contracts_dir)
        self.contract = stream_contract(self.contracts, request.stream)
        self.catalog: Catalog = open_catalog(settings)
        self.cluster_id = cluster_id(settings)
        self.bronze, self.quarantine = ensure_stream_tables(self.catalog, self.contract, self.contracts)
        self.contract = followed_contract(self.bronze, self.contract)
        self.rebuilt = replace(self.contract, name=self._name())
        self.states: dict[int, PartitionState] = {}

    def run(self) -> None:
        """Rebuild, check, and swap.

        Raises:
            LakeError: the rebuilt table would lack rows, or it is not what the topic holds. The live tables are as
                they were.
            AlreadyRunningError: the stream is being replayed already.
            ServiceError: Kafka does not deliver.
        """
        topic = self.contract.rules.topic
        with only_one(self.settings, self.rebuilt.name), TopicReader(self.settings, topic) as reader:
            bounds = reader.bounds()
            begin = self._begin(bounds)
            comparable = self._comparable(bounds)
            self.writer = self._open(begin)
            self.states = {partition: self._state(partition, first) for partition, first in begin.items()}
            reader.start({partition: state.offset for partition, state in self.states.items()})
            self._fill(reader, "Reading")
            self._check(whole=all(first <= bounds[partition][0] for partition, first in begin.items()))
            if self.request.to_table:
                self.tell(f"It is {self.rebuilt.table}; what was rejected is in {self.rebuilt.quarantine_table}.")
                return
            self._refuse_missing(comparable=comparable)
            before = self.bronze.current_snapshot()
            snapshot = self._swap_when_ahead(reader, comparable=comparable)
        reach("after-swap")
        if made_with := self.writer.bronze.properties.get(SECRET_PROPERTY):
            with self.bronze.transaction() as transaction:
                transaction.set_properties({SECRET_PROPERTY: made_with})
        # The files are the live tables' by now; what else is left in their folders their maintenance removes.
        for name in (self.rebuilt.table, self.rebuilt.quarantine_table):
            self.catalog.drop_table(name)
        self.tell(f"{self.contract.table} has these rows from snapshot {snapshot.snapshot_id} on.")
        if before is not None:
            self.tell(f"Until snapshot {before.snapshot_id} is expired, a roll back to it undoes this.")

    def _name(self) -> str:
        name = self.request.to_table
        if name is None:
            return f"{self.contract.name}{SUFFIX}"
        if not IDENTIFIER.fullmatch(name) or name in self.contracts:
            raise ContractError(
                self.contract.name,
                f"{name!r} cannot be the name of a rebuilt table.",
                remedy="Use lower case letters, digits and underscores, and no contract's name.",
            )
        return name

    def _begin(self, bounds: dict[int, tuple[int, int]]) -> dict[int, int]:
        """The first offset to read of each partition; refused when the result would lack records."""
        asked, table = self.request.from_offset, self.contract.table
        gone = {partition: first for partition, (first, _) in bounds.items() if first > asked}
        if gone and not self.request.allow_missing:
            raise LakeError(
                table,
                f"Kafka does not hold the records before {listed(gone)} any more; a table rebuilt from the rest would "
                "lack them.",
                remedy="To have it all the same, add --allow-missing; --to-table NAME leaves the live table alone.",
            )
        if asked > min(first for first, _ in bounds.values()) and not self.request.to_table:
            raise LakeError(
                table,
                f"rebuilt from offset {asked} it would lack the records before.",
                remedy="Use --from-offset 0, or look at the result beside it with --to-table NAME.",
            )
        return {partition: min(max(asked, first), end) for partition, (first, end) in bounds.items()}

    def _comparable(self, bounds: dict[int, tuple[int, int]]) -> bool:
        """Whether the live table's offsets are offsets of this log, as far as can be told."""
        live = recorded_progress(self.bronze)
        return live is not None and live.cluster_id == self.cluster_id and fits(live, bounds)

    def _open(self, begin: dict[int, int]) -> BronzeWriter:
        """A writer on the rebuilt tables: those of an interrupted replay of the same, else new ones."""
        forgotten = self.bronze.properties.get(FORGOTTEN_PROPERTY)
        secret = load_secret(self.settings)
        # Rows made anew are made with the secret of now.
        made_with = {SECRET_PROPERTY: secret.fingerprint} if secret and self.contract.protected else {}
        wanted = json.dumps([self.cluster_id, begin, self.bronze.properties[ID_PROPERTY], forgotten, made_with])
        pairs = ((self.rebuilt.quarantine_table, self.quarantine), (self.rebuilt.table, self.bronze))
        found = {name: self.catalog.load_table(name) for name, _ in pairs if self.catalog.table_exists(name)}
        for name, table in found.items():
            if REPLAY_PROPERTY not in table.properties:
                raise LakeError(name, "exists, and no replay made it.", remedy="Name another one with --to-table.")
        if [table.properties[REPLAY_PROPERTY] for table in found.values()] == [wanted] * len(pairs):
            self.tell("Continuing the replay that was interrupted.")
        else:
            for name, live in pairs:
                if name in found:
                    self.catalog.drop_table(name)
                properties = {REPLAY_PROPERTY: wanted} | made_with
                fork_table(self.catalog, live, name, properties, within=self.request.to_table is None)
        schemas = schema_source(self.settings)
        return BronzeWriter(self.catalog, self.rebuilt, self.contracts, self.cluster_id, schemas, secret=secret)

    def _state(self, partition: int, first: int) -> PartitionState:
        return self.writer.restore(partition) or self.writer.new_state(partition, first)

    def _fill(self, reader: TopicReader, what: str) -> None:
        """Bring the rebuilt tables to the end that the log has now."""
        ends = {partition: end for partition, (_, end) in reader.bounds().items()}
        total = sum(max(0, end - self.states[partition].offset) for partition, end in ends.items())
        batch, size, read = Batch(), 0, 0
        for messages in reader.read_to(ends):
            self.writer.processor(messages, self.states, batch)
            read += len(messages)
            size += sum(len(message) for message in messages)
            if batch.consumed >= COMMIT_RECORDS or size >= COMMIT_BYTES:
                self.writer.commit(batch)
                batch, size = Batch(), 0
            self.advance(what, read, max(total, read))
        if batch.done:
            self.writer.commit(batch)

    def _check(self, *, whole: bool) -> None:
        """Compare the rebuilt tables with the topic, row by row.

        Args:
            whole: Whether they were read from the log's first record on; a part is only counted.
        """
        done = self._done()
        total = done.total()
        self._count(done)
        self.tell(
            f"Read {total.consumed:,} records: {total.accepted:,} rows, {total.duplicates:,} duplicates, "
            f"{total.rejected:,} rejected, {total.late:,} of the rows late."
        )
        if not whole:
            return
        self.advance("Checking", 0, 0)
        findings, _ = verify_ingest(self.settings, self.catalog, self.rebuilt)
        for finding in findings:
            if not finding.ok:
                raise LakeError(
                    finding.table,
                    f"the rebuilt table is not what the topic holds: {finding.check}: {finding.differences} "
                    f"differences, first {finding.examples}. The live table is as it was.",
                    remedy="Please report this as a bug; the topic still holds the events.",
                )
        self.tell(f"Compared with the topic, row by row: {len(findings)} comparisons, no difference.")

    def _count(self, done: Progress) -> None:
        total = done.total()
        for table, expected in ((self.writer.bronze, total.accepted), (self.writer.quarantine, total.rejected)):
            table.refresh()
            found = sum(task.file.record_count for task in table.scan().plan_files())
            if found != expected:
                raise LakeError(
                    ".".join(table.name()),
                    f"it has {found} rows, but {expected} were written.",
                    remedy="Please report this as a bug; the live table is as it was.",
                )

    def _refuse_missing(self, *, comparable: bool) -> None:
        self.advance("Comparing with the live table", 0, 0)
        until = {partition: state.offset for partition, state in self.states.items()} if comparable else None
        self.bronze.refresh()
        count, examples = missing_keys(self.bronze, self.writer.bronze, self.contract.rules.identity, until)
        if count and not self.request.allow_missing:
            raise LakeError(
                self.contract.table,
                f"{count:,} of its keys are not in the rebuilt table, first {', '.join(examples)}: Kafka does not hold "
                "them any more, or the contract refuses them by now. Nothing was swapped.",
                remedy="To give them up, run the command again with --allow-missing.",
            )
        if count:
            self.tell(f"{count:,} keys of the live table are given up.")

    def _swap_when_ahead(self, reader: TopicReader, *, comparable: bool) -> Snapshot:
        for _ in range(ROUNDS):
            self._fill(reader, "Catching up")
            try:
                return self._swap(comparable=comparable, ahead=True)
            except _BehindError:
                continue
        # Nothing is lost by it: the worker is fenced, and reads again what the rebuilt table does not have yet. If its
        # topic has just fallen silent, nothing fences it: then the last round brings the rest.
        snapshot = self._swap(comparable=comparable, ahead=False)
        self._fill(reader, "Catching up")
        with suppress(_BehindError):
            snapshot = self._swap(comparable=comparable, ahead=True)
        return snapshot

    def _swap(self, *, comparable: bool, ahead: bool) -> Snapshot:
        done = self._done()
        self._count(done)

        def refuse_behind() -> None:
            self._refuse_forgotten()
            if comparable and ahead and _ahead(self.bronze, done):
                raise _BehindError

        # The two tables cannot be swapped as one. The quarantine goes first, complete up to the offsets that Bronze is
        # about to get or the live worker has reached: then the worker recognises what it reads again, whatever happens.
        self.bronze.refresh()
        self._refuse_forgotten()
        take_over(self.quarantine, self.writer.quarantine, {}, kept=lambda: self._kept(done, comparable=comparable))
        reach("between-swaps")
        properties = carried_properties(self.writer.bronze) | {PROGRESS_PROPERTY: done.to_json()}
        if comparable:
            properties |= _later_watermark(self.bronze, properties)
        return take_over(self.bronze, self.writer.bronze, properties, admit=refuse_behind)

    def _refuse_forgotten(self) -> None:
        if self.bronze.properties.get(FORGOTTEN_PROPERTY) != self.writer.bronze.properties.get(FORGOTTEN_PROPERTY):
            raise LakeError(
                self.contract.table,
                "somebody was forgotten while it was rebuilt, and may be in the rebuilt rows. Nothing was swapped.",
                remedy="Run the command again: it starts over.",
            )

    def _kept(self, done: Progress, *, comparable: bool) -> tuple[list[DataFile], dict[str, str]]:
        """What the live quarantine has beyond the rebuilt one, and the progress of the two together."""
        live = recorded_progress(self.quarantine) if comparable else None
        rebuilt = read_progress(self.writer.quarantine) or Progress(self.cluster_id, done.topic)
        partitions, tails = {}, []
        for partition in done.partitions.keys() | (live.partitions.keys() if live else set()):
            none = PartitionProgress(0)
            until = done.partitions.get(partition, none).offset
            reached = live.partitions.get(partition, none).offset if live else 0
            own = replace(rebuilt.partitions.get(partition, none), offset=until)
            if reached > until:
                tail = self.quarantine.scan(f"partition = {partition} and offset >= {until}").to_arrow()
                own = own.after(PartitionProgress(reached, consumed=tail.num_rows, rejected=tail.num_rows))
                tails.append(tail)
            partitions[partition] = own
        rows = pa.concat_tables(tails) if tails else None
        files = write_data_files(self.quarantine, rows) if rows is not None and rows.num_rows else []
        return files, {PROGRESS_PROPERTY: replace(done, partitions=partitions).to_json()}

    def _done(self) -> Progress:
        self.writer.bronze.refresh()
        return read_progress(self.writer.bronze) or Progress(self.cluster_id, self.contract.rules.topic)


def _ahead(live: Table, done: Progress) -> bool:
    recorded = recorded_progress(live)
    return recorded is not None and any(
        partition not in done.partitions or of_live.offset > done.partitions[partition].offset
        for partition, of_live in recorded.partitions.items()
    )


def _later_watermark(live: Table, properties: dict[str, str]) -> dict[str, str]:
    """The live table's watermark, if it is beyond the rebuilt one's: idle partitions held only the replay back."""
    found = [carried_properties(live).get(WATERMARK_PROPERTY), properties.get(WATERMARK_PROPERTY)]
    latest = max((datetime.fromisoformat(text) for text in found if text), default=None)
    return {WATERMARK_PROPERTY: latest.isoformat()} if latest else {}


def listed(offsets: dict[int, int]) -> str:
    """Offsets by partition, in words."""
    return ", ".join(f"offset {offset} of partition {partition}" for partition, offset in offsets.items())
