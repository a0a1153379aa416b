"""The consume loop: Quix Streams owns the consumer and its group, the table owns the offsets.

The loop stays alive whatever the lake does. What it refuses, a commit or a partition's state, is tried again with a
bounded back-off; until then the partitions are paused, so that memory does not grow, and polled on, so that the worker
stays a member of its group. ``/readyz`` and the log say why.
"""

import logging
import os
import threading
import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from quixstreams import Application
from quixstreams.kafka import ConnectionConfig

from freshdata.clock import instance_clock
from freshdata.contracts import load_contracts, stream_contract
from freshdata.errors import ClusterMismatchError, FencedError, ForgottenError
from freshdata.lake.catalog import open_catalog
from freshdata.privacy import load_secret
from freshdata.registry import schema_source
from freshdata.services.kafka import client_config, cluster_id, ensure_topics
from freshdata.settings import Settings
from stream_workers.assignment import Assignment
from stream_workers.batch import Batch, SchemasWaitError
from stream_workers.bronze import BronzeWriter
from stream_workers.clean import CleanPublisher
from stream_workers.faults import reach
from stream_workers.group_watch import GroupWatch
from stream_workers.maintainer import Maintainer
from stream_workers.metrics import Health, Metrics, MetricsServer
from stream_workers.policy import LAKE_DOWN, CommitTrigger, Retry
from stream_workers.report import CommitReporter
from stream_workers.tuning import tune_process

MESSAGES_PER_POLL = 8192  # As many as the decoder parses at once.
BYTES_PER_POLL = 64 * 1024 * 1024
POLL_SECONDS = 0.2
OBSERVE_SECONDS = 1.0
CHECK_SECONDS = 30.0
FOLLOW_SECONDS = 5.0  # A worker without events looks for a new contract this often; one with events, at each commit.
CLOSE_SECONDS = 7.0
CONSUMER_CONFIG = {
    "partition.assignment.strategy": "cooperative-sticky",
    "queued.max.messages.kbytes": 16_384,  # Half a second of work. 64 MB took 200 MB more, and were slower.
    "fetch.message.max.bytes": 8_388_608,
    "isolation.level": "read_committed",
    # The offsets are fenced in the table, so a partition may change hands early: 10 s of silence instead of Kafka's 45.
    "session.timeout.ms": 10_000,
    "heartbeat.interval.ms": 2_000,
    "max.poll.interval.ms": 300_000,
}

logger = logging.getLogger(__name__)


class Worker:
    """Consumes one stream until told to stop."""

    def __init__(self, settings: Settings, stream: str) -> None:
        contracts = load_contracts(settings.contracts_dir)
        self.settings = settings
        own = stream_contract(contracts, stream)
        self.writer = BronzeWriter(
            open_catalog(settings),
            own,
            contracts,
            cluster_id(settings),
            schema_source(settings),
            secret=load_secret(settings),
        )
        self.contract = self.writer.contract
        ensure_topics(settings, [self.contract])
        self.topic = self.contract.rules.topic
        self.batch, self.attempted = Batch(), False
        self.trigger = CommitTrigger(self.contract.rules)
        self.maintainer = Maintainer(settings)
        clean = self.contract.rules.publish_clean
        self.clean = CleanPublisher(settings, self.contract, self.writer.bronze) if clean else None
        self.clock = instance_clock(settings.home)
        self.metrics = Metrics(stream)
        self.reporter = CommitReporter(self.contract, self.metrics, self.clock)
        self.refused_commit, self.refused_schema = Retry(), Retry()
        self.without_schema: set[int] = set()  # Partitions whose next record names a schema that is not known.
        self.stopping = False
        self.poll_size = MESSAGES_PER_POLL
        self.observed = self.checked = self.followed = 0.0
        member = {"group.instance.id": settings.worker_id} if settings.worker_id else {}
        config: dict[str, Any] = CONSUMER_CONFIG | client_config(settings) | member
        longest = int(config["max.poll.interval.ms"])
        # A loop that has not polled for longer has lost its partitions. Quix calculates with it: a text it cannot.
        self.health, config["max.poll.interval.ms"] = Health(longest / 1000), longest
        group = f"freshdata-{self.topic}"
        strategy = str(config["partition.assignment.strategy"])
        self.watch = GroupWatch(settings, group, self.topic, strategy) if settings.worker_id else None
        application = Application(
            broker_address=ConnectionConfig.from_librdkafka_dict(client_config(settings), ignore_extras=True),
            consumer_group=group,
            auto_offset_reset="earliest",
            auto_create_topics=False,
            consumer_extra_config=config,
            loglevel=None,
        )
        self.consumer = application.get_consumer(auto_commit_enable=False)
        self.owned = Assignment(self.consumer, self.topic, self.writer, self.clean, self.reporter)

    def stop(self) -> None:
        """Ask the loop to commit what it holds and end."""
        self.stopping = True

    def run(self) -> None:
        """Consume until :meth:`stop`.

        Raises:
            ClusterMismatchError: the table's offsets belong to another Kafka cluster.
            OffsetLostError: the topic's log does not hold the table's offset: it was created anew, or lost records.
            ServiceError: the port for the metrics is taken.
        """
        server = MetricsServer(self.settings, self.contract.name, self.metrics, self.health)
        logger.info("serving stream=%s metrics=http://127.0.0.1:%d/metrics", self.contract.name, server.port)
        tune_process()
        leave = threading.Timer(CLOSE_SECONDS, os._exit, [0])
        leave.daemon = True
        try:
            self.consumer.subscribe(
                [self.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            if self.watch:
                self.watch.start()
            with self.consumer:
                try:
                    while not self.stopping:
                        self._poll()
                except BaseException:
                    # What failed half-way may have taken rows without their offsets, and closing commits.
                    self._drop()
                    raise
                self._commit_or_drop("stop")
                # Closing waits for the broker, for minutes if that is gone. What counts is in the table by now.
                leave.start()
        finally:
            if self.watch:
                self.watch.close()
            if self.clean:
                self.clean.close()
            self.maintainer.close()
            server.close()
            leave.cancel()

    def _poll(self) -> None:
        self.health.polled()
        self.owned.restore_pending()
        if not self.refused_commit.problem:
            waits = not self.refused_schema.may_try(time.monotonic())
            self.owned.proceed(self.without_schema if waits else ())
        asked = self.poll_size
        taken = self.consumer.consume(asked, POLL_SECONDS)
        if self.clean:
            self.clean.settle()
        messages = _intact(taken)
        if messages:
            self._process(messages)
        now = time.monotonic()
        behind = len(taken) == asked and self.trigger.is_backlog(messages, self.clock.now())
        reason = self.trigger.due(now, behind=behind)
        if reason and self.refused_commit.may_try(now):
            self._commit(reason)
        self._observe()

    def _process(self, messages: list[Any]) -> None:
        started = time.perf_counter()
        self._read(messages)
        if not self.batch.done:
            return
        self.metrics.processed(time.perf_counter() - started)
        decoded = self.trigger.taken(self.batch, time.monotonic())
        # Of what is decoded and of what came: large events may decode to little, an unknown field being left out.
        size = max(decoded, sum(map(len, messages))) // len(messages)
        # Of large events fewer are taken at a time: what is in memory is bounded in bytes.
        self.poll_size = min(max(BYTES_PER_POLL // max(size, 1), 10), MESSAGES_PER_POLL)

    def _read(self, messages: list[Message]) -> None:
        """Add messages to the open batch; a partition whose next one names an unknown schema waits for the registry."""
        running = self.owned.running
        try:
            self.writer.processor(messages, running, self.batch)
        except SchemasWaitError as error:
            self.without_schema |= error.partitions
            self.reporter.unread(self.refused_schema, error)
            self.owned.hold(error.partitions)
        else:
            if self.without_schema:
                self.without_schema -= running.keys() & set(map(Message.partition, messages))
        self.without_schema &= self.owned.states.keys()
        if not self.without_schema:
            self.refused_schema.succeeded()

    def _commit(self, reason: str) -> None:
        """Commit the open batch; when the lake refuses, keep it and pause, when another worker was first, drop it."""
        if not self.batch.done:
            return
        reach("before-write")
        started = time.perf_counter()
        for outage in (self.refused_commit, self.refused_schema):
            if outage.problem:
                # No partition becomes idle by an outage of the lake or the registry.
                now = time.monotonic()
                self.writer.watermark.skip(now - outage.since)
                outage.since = now
        try:
            if self._superseded():
                return
            self.attempted = True
            self.writer.commit(self.batch)
        except FencedError as error:
            logger.warning("fenced stream=%s partition=%d, restoring", self.contract.name, error.partition)
            self.metrics.conflicted()
            self._drop()
            self.owned.restart()
            return
        except ForgottenError:
            logger.info("forgetting stream=%s: the open batch is read again", self.contract.name)
            self._drop()
            self.owned.restart()
            self._go_by_published(refresh=True)
            return
        except ClusterMismatchError:
            raise
        except LAKE_DOWN as error:
            self.reporter.refused("commit", self.refused_commit, error)
            self.owned.hold()
            return
        self.reporter.committed(
            self.batch,
            self.trigger,
            self.writer.bronze.current_snapshot(),
            reason=reason,
            seconds=time.perf_counter() - started,
            retries=self.refused_commit.failures + self.writer.attempts - 1,
            watermark=self.writer.watermark.current,
            misses=self.writer.enricher.misses(self.batch.rows, self.batch.admitted),
        )
        self.refused_commit.succeeded()
        self._store_group_offsets()
        batch, self.batch, self.attempted = self.batch, Batch(), False
        self.trigger.committed(time.monotonic())
        self._follow(batch)

    def _follow(self, batch: Batch) -> None:
        """What comes after a commit: the clean topic, and the tables' maintenance."""
        reach("between-commits")
        if self.clean:
            ends = {number: done.offset for number, done in batch.done.items()}
            self.clean.publish(self.writer.accepted(batch), batch.begin, ends)
        if 0 in self.owned.states:
            self.maintainer.committed(self.writer.bronze)
            self.maintainer.committed(self.writer.quarantine)
        self._go_by_published()

    def _superseded(self) -> bool:
        """Whether a contract is published that may take what the open batch leaves out: then it is read again.

        So nothing that was sent after a publication goes to quarantine by the contract before it.
        """
        leaves_out = self.batch.rejected or self.contract.rules.unknown_fields != "quarantine"
        # What was refused a commit may be in the quarantine already.
        if not leaves_out or self.attempted:
            return False
        self.writer.bronze.refresh()
        if not self._go_by_published():
            return False
        self._drop()
        self.owned.restart()
        return True

    def _go_by_published(self, *, refresh: bool = False) -> bool:
        """Go by the contract that is published by now; says whether there was another."""
        window = self.contract.rules.dedupe_window
        try:
            if not self.writer.follow(refresh=refresh):
                return False
        except LAKE_DOWN as error:  # It is looked at again soon.
            logger.warning("contract stream=%s not taken up: %s", self.contract.name, error)
            return False
        self.contract = self.reporter.contract = self.writer.contract
        self.trigger = CommitTrigger(self.contract.rules)
        if self.contract.rules.dedupe_window != window:
            self.owned.restart()
        return True

    def _store_group_offsets(self) -> None:
        # Only lag tools read the group's offsets; a failure to store them is no failure of the batch.
        offsets = [TopicPartition(self.topic, number, done.offset) for number, done in self.batch.done.items()]
        try:
            self.consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            logger.warning("group offsets not stored: %s", error)

    def _commit_or_drop(self, reason: str) -> None:
        """Commit while this worker still may; what the lake refuses now is read again by the partitions' next owner."""
        if not self.refused_commit.problem:
            self._commit(reason)
        if self.batch.done:
            logger.warning("dropped stream=%s records=%d: they are read again", self.contract.name, self.batch.consumed)
            self._drop()
            self.owned.restart()

    def _drop(self) -> None:
        self.batch, self.attempted = Batch(), False
        self.writer.enricher.dropped()
        self.trigger.dropped()
        self.refused_commit.succeeded()

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        numbers = [partition.partition for partition in partitions]
        logger.info("assigned stream=%s partitions=%s", self.contract.name, numbers)
        # Closing the consumer serves this callback too: what is assigned then goes back at once.
        self.owned.take(consumer, numbers, restore=not self.stopping)
        if self.refused_commit.problem:
            self.owned.hold()
        reach("during-rebalance")

    def _on_revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._commit_or_drop("revoked")
        self.owned.forget(partition.partition for partition in partitions)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        # The partitions have another owner already: what this worker holds of them would be fenced.
        self.owned.forget(partition.partition for partition in partitions)
        consumer.incremental_unassign(partitions)
        if self.batch.done:
            self._drop()
            self.owned.restart()

    def _observe(self) -> None:
        self.health.not_ready = self._not_ready()
        now = time.monotonic()
        if now - self.observed < OBSERVE_SECONDS:
            return
        self.observed = now
        if now - self.checked >= CHECK_SECONDS:
            self.checked = now
            self.owned.check_positions()
        if now - self.followed >= FOLLOW_SECONDS and not self.batch.done:
            self.followed = now
            self._go_by_published(refresh=True)
        self.metrics.ready(ready=not self.health.not_ready)
        self.metrics.observed(
            assigned=len(self.owned.states),
            lag=self.owned.lag(),
            index=sum(len(state.index) for state in self.owned.states.values()),
            open_partitions=len(self.trigger.partitions),
            open_rows=self.trigger.rows,
        )
        if watermark := self.writer.watermark.current:
            self.metrics.watermark_delay((self.clock.now() - watermark).total_seconds())
        self.metrics.unpublished(self.clean.behind() if self.clean else {})

    def _not_ready(self) -> str:
        for what, retry in (("takes no commits", self.refused_commit), ("gives no state", self.owned.refused)):
            if retry.problem:
                return f"the lake {what}: {retry.problem}"
        if self.refused_schema.problem:
            return f"partitions {sorted(self.without_schema)} wait for the registry: {self.refused_schema.problem}"
        if not self.owned.assigned:
            return "no partitions assigned yet"
        return f"restoring partitions {self.owned.waiting}" if self.owned.waiting else ""


def _intact(messages: list[Message]) -> list[Message]:
    """The messages without those that tell of an error.

    Raises:
        KafkaException: of an error that ends the consumer.
    """
    errors = list(map(Message.error, messages))
    if not any(errors):
        return messages
    for error in filter(None, errors):
        # A worker that Kafka has fenced for its successor gets an error that is fatal, but does not say so.
        if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001 - confluent's name of a public code.
            raise KafkaException(error)
        logger.warning("consumer error=%s", error)
    return [message for message, error in zip(messages, errors, strict=True) if error is None]
