"""Write batches to a stream's Bronze and quarantine tables, and restore a partition's state from them."""

import logging
import time
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from freshdata.contracts import Contract
from freshdata.contracts.enrichments import check_enrichments
from freshdata.contracts.named import Schemas
from freshdata.errors import ForgottenError
from freshdata.forgotten import FORGOTTEN_PROPERTY, read_forgotten
from freshdata.lake.catalog import ensure_stream_tables
from freshdata.lake.commits import check_cluster, commit_batch
from freshdata.lake.files import write_data_files
from freshdata.lake.progress import PartitionProgress, Progress, read_progress
from freshdata.lake.publication import ID_PROPERTY, followed_contract, renamed_columns
from freshdata.privacy import Secret, keep_secret, protector
from stream_workers.batch import BEGINNING_OF_TIME, MICROSECOND, Batch, PartitionState, Processor, conform
from stream_workers.dedupe import DedupeIndex
from stream_workers.enrich import Enricher
from stream_workers.faults import reach
from stream_workers.watermark import WATERMARK_PROPERTY, StreamWatermark, recorded_watermark

logger = logging.getLogger(__name__)


class BronzeWriter:
    """Commits a stream's batches, exactly once.

    The two tables cannot be committed as one, so the quarantine goes first under an offset map of its own. After a
    crash between the two, the batch is read again, and rejected records that the quarantine has already are left out.

    Attributes:
        contract: The contract it goes by: the published one.
        rules: Its stream rules.
        bronze: The Bronze table, as of the last commit or restore.
        quarantine: The quarantine table.
        watermark: The stream's watermark.
        attempts: How often the last commit was tried.
    """

    def __init__(
        self,
        catalog: Catalog,
        contract: Contract,
        contracts: dict[str, Contract],
        cluster_id: str,
        schemas: Schemas | None = None,
        *,
        secret: Secret | None = None,
    ) -> None:
        protector(contract, secret)  # Without its secret no table is made, either.
        self._secret = secret
        self.cluster_id = cluster_id
        self._schemas = schemas
        self._catalog = catalog
        self._contracts = contracts
        self.bronze, self.quarantine = ensure_stream_tables(catalog, contract, contracts)
        check_cluster(self.bronze, cluster_id)
        check_cluster(self.quarantine, cluster_id)
        self._go_by(followed_contract(self.bronze, contract))
        if self.contract.version != contract.version:
            logger.warning(
                "contract stream=%s goes by version %s, which is published; its file has the older %s",
                contract.name,
                self.contract.version,
                contract.version,
            )
        self.watermark = StreamWatermark(self.rules, time.monotonic())
        self.attempts = 0

    def follow(self, *, refresh: bool = False) -> bool:
        """Go by the contract that is published by now; offsets, seen keys and an open batch stay as they are.

        Args:
            refresh: Whether to look at the catalog, or only at the table as of the last commit or restore.

        Returns:
            Whether there was another contract.

        Raises:
            ContractError: it takes columns from a lookup that was not there, or not so, when this process started.
        """
        if refresh:
            self.bronze.refresh()
        if self._state() == self._followed:
            return False
        before = self.contract.version
        self._go_by(followed_contract(self.bronze, self.contract))
        self.watermark.rules = self.rules
        logger.info("contract stream=%s version=%s before=%s", self.contract.name, self.contract.version, before)
        return True

    def _go_by(self, contract: Contract) -> None:
        check_enrichments(self._contracts | {contract.name: contract})
        enricher = Enricher(self._catalog, contract, self._contracts)
        enricher.refresh()
        self.contract = contract
        self.rules = contract.rules
        self.enricher = enricher
        if (protects := protector(contract, self._secret)) is not None:
            keep_secret(self.bronze, protects.secret)
        forgotten = read_forgotten(self._catalog, contract, self.bronze, self._secret, self._schemas)
        schema = self.bronze.schema().as_arrow()
        self.processor = Processor(contract, schema, enricher, self._schemas, protector=protects, forgotten=forgotten)
        self._followed = self._state()

    def _state(self) -> tuple[str | None, str | None]:
        """The contract that is published by now, and who was forgotten."""
        properties = self.bronze.properties
        return properties.get(ID_PROPERTY), properties.get(FORGOTTEN_PROPERTY)

    def _refuse_forgotten(self, table: Table) -> None:
        if table.properties.get(FORGOTTEN_PROPERTY) != self._followed[1]:
            raise ForgottenError(".".join(table.name()))

    def restore(self, partition: int) -> PartitionState | None:
        """The state of a partition as the table has it, or None when the table has never seen the partition."""
        self.bronze.refresh()
        progress = read_progress(self.bronze)
        done = progress.partitions.get(partition) if progress else None
        if done is None:
            return None
        reach("during-index-rebuild")
        newest = BEGINNING_OF_TIME if done.max_event_time is None else done.max_event_time
        state = PartitionState(done.offset, newest, self.empty_index(), self._refused_from(partition, done.offset))
        if done.max_event_time is not None:
            self._rebuild(state.index, partition, newest)
        return state

    def new_state(self, partition: int, first: int = 0) -> PartitionState:
        """The state of a partition that the table has never seen, from its first offset on."""
        return PartitionState(first, BEGINNING_OF_TIME, self.empty_index(), self._refused_from(partition, first))

    def _refused_from(self, partition: int, offset: int) -> frozenset[int]:
        """The offsets that the quarantine holds although Bronze has not come to them yet."""
        self.quarantine.refresh()
        progress = read_progress(self.quarantine)
        done = progress.partitions.get(partition) if progress else None
        if done is None or done.offset <= offset:
            return frozenset()
        # Our own numbers: nothing here comes from an event.
        scan = self.quarantine.scan(f"partition = {partition} and offset >= {offset}", selected_fields=("offset",))
        return frozenset(scan.to_arrow()["offset"].to_pylist())

    def empty_index(self) -> DedupeIndex:
        """An index that has seen nothing, over the contract's window."""
        return DedupeIndex(self.rules.dedupe_window // MICROSECOND)

    def _rebuild(self, index: DedupeIndex, partition: int, newest: int) -> None:
        oldest = datetime.fromtimestamp((newest - index.window) / 1_000_000, UTC)
        time_field = self.rules.event_time_field
        columns = [*self.rules.dedupe_key, time_field, *filter(None, [self.rules.version_field])]
        scan = self.bronze.scan(
            # Our own number and timestamp, and a contract's validated identifier: nothing here comes from an event.
            f"_kafka_partition = {partition} and {time_field} >= '{oldest.isoformat()}'",
            selected_fields=tuple(columns),
        )
        for rows in scan.to_arrow_batch_reader():
            table = pa.Table.from_batches([rows])
            index.add(self.processor.stored_hashes(table), table[time_field].cast(pa.int64()).to_numpy())

    def commit(self, batch: Batch) -> None:
        """Write and commit a batch; after a failure it may be committed again.

        Raises:
            FencedError: another worker owns one of the batch's partitions by now.
            ForgottenError: somebody is to be forgotten who may be in the batch.
        """
        self.attempts = 0
        self._commit_rejected(batch)
        written_at = time.time()
        files = self._write(batch)
        reach("after-data-files")
        done = Progress(self.cluster_id, self.rules.topic, batch.done)
        commit_batch(
            self.bronze,
            files,
            batch.begin,
            done,
            properties=self._watermark,
            written_at=written_at,
            before_commit=self._before_commit,
        )
        reach("after-commit")
        self.enricher.refresh()

    def accepted(self, batch: Batch) -> pa.Table:
        """The batch's rows that are no duplicates, with Bronze's columns."""
        schema = self.bronze.schema().as_arrow()
        if not batch.rows:
            return schema.empty_table()
        renamed = renamed_columns(self.bronze)
        return pa.concat_tables(
            conform(rows, schema, renamed).filter(pa.array(keep))
            for rows, keep in zip(batch.rows, batch.admitted, strict=True)
        )

    def _commit_rejected(self, batch: Batch) -> None:
        if not batch.rejected:
            return
        self.quarantine.refresh()
        progress = read_progress(self.quarantine) or Progress(self.cluster_id, self.rules.topic)
        rejected = pa.concat_tables(batch.rejected)
        stored = {number: done.offset for number, done in progress.partitions.items()}
        known = np.array([stored.get(number, 0) for number in rejected["partition"].to_pylist()], dtype=np.int64)
        rejected = rejected.filter(pc.greater_equal(rejected["offset"], pa.array(known)))
        counts = {item["values"]: item["counts"] for item in pc.value_counts(rejected["partition"]).to_pylist()}
        if not counts:
            return
        # The quarantine's own progress runs ahead of nobody: a partition without rejected records stays where it was.
        done = {
            number: PartitionProgress(batch.done[number].offset, consumed=count, rejected=count)
            for number, count in counts.items()
        }
        # A partition without rejected records so far is fenced too, at 0: two owners may both see its first one.
        begin = {number: stored.get(number, 0) for number in counts}
        written_at = time.time()
        files = write_data_files(self.quarantine, rejected)
        progress = Progress(self.cluster_id, self.rules.topic, done)
        commit_batch(
            self.quarantine,
            files,
            begin,
            progress,
            written_at=written_at,
            before_commit=self._before_quarantine_commit,
        )
        reach("after-quarantine-commit")

    def _write(self, batch: Batch) -> list[DataFile]:
        if not batch.rows:
            return []
        schema = self.bronze.schema().as_arrow()
        rows = pa.concat_tables(conform(rows, schema, renamed_columns(self.bronze)) for rows in batch.rows)
        return write_data_files(self.bronze, rows, only=np.concatenate(batch.admitted))

    def _watermark(self, merged: Progress) -> dict[str, str]:
        # Asked for after each refresh: another worker may have moved it on.
        watermark = self.watermark.advance(merged, recorded_watermark(self.bronze), time.monotonic())
        return {WATERMARK_PROPERTY: watermark.isoformat()} if watermark else {}

    def _before_commit(self) -> None:
        self.attempts += 1
        self._refuse_forgotten(self.bronze)
        reach("before-commit")

    def _before_quarantine_commit(self) -> None:
        self._refuse_forgotten(self.quarantine)
        reach("before-quarantine-commit")
