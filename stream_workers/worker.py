"""The consume loop: Quix Streams owns the consumer and its group, the table owns the offsets."""

import logging
import time
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, KafkaException, TopicPartition
from quixstreams import Application
from quixstreams.kafka import ConnectionConfig

from freshdata.contracts import Contract, load_contracts
from freshdata.errors import ContractError, FencedError
from freshdata.lake.catalog import open_catalog
from freshdata.services.kafka import client_config, cluster_id, ensure_topics
from freshdata.settings import Settings
from stream_workers.batch import BEGINNING_OF_TIME, Batch, PartitionState
from stream_workers.bronze import BronzeWriter
from stream_workers.faults import reach

MESSAGES_PER_POLL = 20_000
POLL_SECONDS = 0.2
COMMIT_ROWS = 250_000
COMMIT_SECONDS = 2.0
CONSUMER_CONFIG = {
    "partition.assignment.strategy": "cooperative-sticky",
    "queued.max.messages.kbytes": 65_536,
    "fetch.message.max.bytes": 8_388_608,
    "isolation.level": "read_committed",
    # The offsets are fenced in the table, so a partition may change hands early: 10 s of silence instead of Kafka's 45.
    "session.timeout.ms": 10_000,
    "heartbeat.interval.ms": 2_000,
}

logger = logging.getLogger(__name__)


class Worker:
    """Consumes one stream until told to stop."""

    def __init__(self, settings: Settings, stream: str) -> None:
        contracts = load_contracts(settings.contracts_dir)
        self.contract = _stream(contracts, stream)
        ensure_topics(settings, [self.contract])
        self.topic = self.contract.rules.topic
        self.writer = BronzeWriter(open_catalog(settings), self.contract, contracts, cluster_id(settings))
        self.states: dict[int, PartitionState] = {}
        self.batch = Batch()
        self.opened = 0.0
        self.stopping = False
        member = {"group.instance.id": settings.worker_id} if settings.worker_id else {}
        application = Application(
            broker_address=ConnectionConfig.from_librdkafka_dict(client_config(settings), ignore_extras=True),
            consumer_group=f"freshdata-{self.topic}",
            auto_offset_reset="earliest",
            auto_create_topics=False,
            consumer_extra_config=client_config(settings) | CONSUMER_CONFIG | member,
            loglevel=None,
        )
        self.consumer = application.get_consumer(auto_commit_enable=False)

    def stop(self) -> None:
        """Ask the loop to commit what it holds and end."""
        self.stopping = True

    def run(self) -> None:
        """Consume until :meth:`stop`."""
        self.consumer.subscribe(
            [self.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        with self.consumer:
            while not self.stopping:
                self._poll()
            self._commit()

    def _poll(self) -> None:
        messages = [
            message
            for message in self.consumer.consume(MESSAGES_PER_POLL, POLL_SECONDS)
            # A message of a partition that was just fenced or revoked may still be in flight.
            if self._usable(message)
        ]
        if messages:
            if not self.batch.done:
                self.opened = time.monotonic()
            self.writer.processor(messages, self.states, self.batch)
        rows = sum(table.num_rows for table in self.batch.rows)
        if self.batch.done and (rows >= COMMIT_ROWS or time.monotonic() - self.opened >= COMMIT_SECONDS):
            self._commit()

    def _usable(self, message: Any) -> bool:
        if error := message.error():
            if error.fatal():
                raise KafkaException(error)
            logger.warning("consumer error=%s", error)
            return False
        state = self.states.get(message.partition())
        return state is not None and message.offset() >= state.offset

    def _commit(self) -> None:
        if not self.batch.done:
            return
        reach("before-write")
        batch, self.batch = self.batch, Batch()
        try:
            self.writer.commit(batch)
        except FencedError as error:
            logger.warning("fenced stream=%s partition=%d, restoring", self.contract.name, error.partition)
            self._seek(list(self.states))
            return
        # Only lag tools read the group's offsets; a failure to store them is no failure of the batch.
        offsets = [TopicPartition(self.topic, number, done.offset) for number, done in batch.done.items()]
        try:
            self.consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            logger.warning("group offsets not stored: %s", error)

    def _restored(self, partition: int) -> TopicPartition:
        state = self.writer.restore(partition)
        self.states[partition] = state or PartitionState(0, BEGINNING_OF_TIME, self.writer.empty_index())
        return TopicPartition(self.topic, partition, state.offset if state else OFFSET_BEGINNING)

    def _seek(self, partitions: list[int]) -> None:
        for partition in partitions:
            self.consumer.seek(self._restored(partition))

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        logger.info("assigned stream=%s partitions=%s", self.contract.name, [p.partition for p in partitions])
        consumer.incremental_assign([self._restored(partition.partition) for partition in partitions])
        reach("during-rebalance")

    def _on_revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._commit()
        self._forget(partitions)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        # The partitions have another owner already: what this worker holds of them would be fenced.
        self.batch = Batch()
        self._forget(partitions)
        consumer.incremental_unassign(partitions)
        for partition in self.states:
            self.consumer.seek(self._restored(partition))

    def _forget(self, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            self.states.pop(partition.partition, None)


def _stream(contracts: dict[str, Contract], name: str) -> Contract:
    contract = contracts.get(name)
    if contract is None or contract.kind != "stream":
        streams = ", ".join(c.name for c in contracts.values() if c.kind == "stream")
        raise ContractError(name, "there is no stream contract of this name.", remedy=f"Choose one of: {streams}.")
    return contract
