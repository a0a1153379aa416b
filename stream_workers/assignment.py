"""The partitions a worker owns: taken over from the table, held back while the lake is down, handed on.

Kafka's client knows only where it fetches; where a partition stands is in the table. So each partition that is assigned
is restored first: its offset, its newest event time and its dedupe index. What takes long or fails there waits for the
loop, as a rebalance callback that does either would hold up the group or end the worker.
"""

import logging
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaException, TopicPartition

from freshdata.errors import ClusterMismatchError, OffsetLostError
from freshdata.replay import check_position
from stream_workers.batch import PartitionState
from stream_workers.bronze import BronzeWriter
from stream_workers.clean import CleanPublisher
from stream_workers.policy import LAKE_DOWN, Retry
from stream_workers.report import CommitReporter

RESTORE_SECONDS = 30.0  # Then Kafka is polled again, or a worker of many partitions is thrown out while it restores.
BROKER_SECONDS = 10.0

logger = logging.getLogger(__name__)


class Assignment:
    """A worker's partitions of one topic.

    Attributes:
        states: State of each restored partition.
        pending: Partitions whose state is still to be restored; paused.
        stopped: Restored partitions that Kafka's client is still to be sent to the offset of; paused.
        assigned: Whether the group has assigned anything so far, if only an empty set.
        refused: The lake's refusals to give a state.
    """

    def __init__(
        self, consumer: Any, topic: str, writer: BronzeWriter, clean: CleanPublisher | None, reporter: CommitReporter
    ) -> None:
        self.states: dict[int, PartitionState] = {}
        self.pending: set[int] = set()
        self.stopped: set[int] = set()
        self.assigned = False
        self.refused = Retry()
        self._consumer = consumer
        self._topic = topic
        self._writer = writer
        self._clean = clean
        self._reporter = reporter
        # Kafka's client keeps a partition paused over a rebalance that takes it away and gives it back.
        self._paused: set[int] = set()

    @property
    def running(self) -> dict[int, PartitionState]:
        """The partitions whose messages count.

        A message of one that was just fenced, paused or revoked may still be in flight: it is left out.
        """
        return {number: state for number, state in self.states.items() if number not in self.stopped}

    @property
    def waiting(self) -> list[int]:
        """The partitions from which nothing is processed yet."""
        return sorted(self.pending | self.stopped)

    def take(self, consumer: Any, numbers: list[int], *, restore: bool = True) -> None:
        """Take up partitions in the rebalance callback.

        A partition that begins at its place need not be sent there, which can block the client.

        Args:
            consumer: The callback's consumer.
            numbers: The partitions.
            restore: Whether to restore them now, as far as time allows; otherwise the loop does.
        """
        self.forget(numbers)
        started = time.monotonic()
        places = []
        for number in numbers:
            if restore and time.monotonic() - started < RESTORE_SECONDS and not self.refused.problem:
                try:
                    self._restore(number)
                except (*LAKE_DOWN, KafkaException) as error:
                    self._reporter.refused("restore", self.refused, error)
            offset = (self.states[number].offset or OFFSET_BEGINNING) if number in self.states else OFFSET_END
            places.append(TopicPartition(self._topic, number, offset))
        self._publish_from(self.states.keys() & set(numbers))
        consumer.incremental_assign(places)
        self.assigned = True
        self.pending |= set(numbers) - self.states.keys()
        self.stopped |= self._paused & self.states.keys() & set(numbers)
        self._pause(set(numbers) & self.pending)

    def forget(self, numbers: Iterable[int]) -> None:
        """Let go of partitions."""
        for number in numbers:
            if self._clean:
                self._clean.revoke([number])
            self.states.pop(number, None)
            self.pending.discard(number)
            self.stopped.discard(number)
        if not self.pending:
            self.refused.succeeded()

    def restart(self) -> None:
        """Forget what is known of all partitions and restore them from the table."""
        again = set(self.states)
        self.forget(again)
        self.pending |= again
        self._pause(again)

    def hold(self, numbers: Collection[int] | None = None) -> None:
        """Fetch nothing of some partitions, or of all, until :meth:`proceed`, and keep the states."""
        held = self.states.keys() if numbers is None else self.states.keys() & set(numbers)
        self._pause(held)
        self.stopped.update(held)

    def restore_pending(self) -> None:
        """Restore what is pending, as far as time and the lake allow.

        Raises:
            ClusterMismatchError: the table's offsets belong to another Kafka cluster.
            OffsetLostError: the topic's log does not hold the table's offset.
        """
        if self.pending and self.refused.may_try(time.monotonic()):
            pending = set(self.pending)
            try:
                self._restore_some()
            finally:
                self._publish_from(pending - self.pending)

    def proceed(self, without: Collection[int] = ()) -> None:
        """Send Kafka's client to the place of each stopped partition, and fetch.

        Args:
            without: Partitions that stay stopped.
        """
        for number in sorted(self.stopped - set(without)):
            place = TopicPartition(self._topic, number, self.states[number].offset or OFFSET_BEGINNING)
            try:
                # Also after a mere pause: where Kafka's client thinks it is counts for nothing.
                self._consumer.seek(place)
            except KafkaException as error:
                # A partition can be sought only once the client has taken it up, shortly after its assignment.
                logger.debug("seek topic=%s partition=%d: %s", self._topic, number, error)
                continue
            self._consumer.resume([place])
            self._paused.discard(number)
            self.stopped.remove(number)

    def check_positions(self) -> None:
        """Check that the topic still holds the offsets: it may be created anew under a worker that runs, too.

        Raises:
            OffsetLostError: it does not.
        """
        with suppress(KafkaException):
            for number, state in self.running.items():
                if state.offset:  # Nothing read yet: it begins wherever the log does.
                    self._check_position(number, state.offset)

    def lag(self) -> dict[int, int]:
        """Records between each partition's state and the end of its log, as far as that is known."""
        lag = {}
        for number, state in self.states.items():
            _, end = self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), cached=True)
            if end >= 0:  # Negative: not known before the first fetch.
                lag[number] = max(end - state.offset, 0)
        return lag

    def _restore_some(self) -> None:
        started = time.monotonic()
        for number in sorted(self.pending):
            try:
                self._restore(number)
            except (ClusterMismatchError, OffsetLostError):
                raise
            except (*LAKE_DOWN, KafkaException) as error:
                self._reporter.refused("restore", self.refused, error)
                return
            self.pending.remove(number)
            self.stopped.add(number)
            if time.monotonic() - started > RESTORE_SECONDS:
                break
        self.refused.succeeded()

    def _restore(self, number: int) -> None:
        state = self._writer.restore(number)
        if state is not None:
            self._check_position(number, state.offset)
        self.states[number] = state or self._writer.new_state(number)

    def _publish_from(self, numbers: Collection[int]) -> None:
        # All at once: a broker that hangs is waited for by all together.
        if self._clean and numbers:
            self._clean.assign(numbers)

    def _check_position(self, number: int, offset: int) -> None:
        # Beyond the log's end the client would wait for ever, or start over: in silence either way.
        place = TopicPartition(self._topic, number)
        first, end = self._consumer.get_watermark_offsets(place, timeout=BROKER_SECONDS)
        check_position(self._writer.contract.table, number, offset, first, end)

    def _pause(self, numbers: Collection[int]) -> None:
        self._paused.update(numbers)
        self._consumer.pause([TopicPartition(self._topic, number) for number in numbers])
