"""Find partitions that nobody owns although the group is at rest, and have the group assign them.

Kafka moves a partition in two steps: its owner gives it up and joins the group again; then it gets a new owner. If the
owner is killed between the two and its successor takes over its name (static membership), the broker sees no reason for
the second step: the successor gets what was left to the one before, and nobody has the rest until the group changes.
So somebody looks. A member without a name that comes, and goes, makes the group assign everything anew.
"""

import logging
import threading
import time
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient

from freshdata.services.kafka import client_config
from freshdata.settings import Settings

LOOK_SECONDS = 15.0  # Longer than a rebalance between two healthy workers takes.
ANSWER_SECONDS = 10.0
VISIT_SECONDS = 30.0

logger = logging.getLogger(__name__)


class GroupWatch(threading.Thread):
    """Watches the group of a worker that keeps its name, until it is closed.

    Of several such workers the one whose name comes first acts.

    Args:
        settings: The instance.
        group: The consumer group.
        topic: Its topic.
        strategy: The group's assignment strategy.
    """

    def __init__(self, settings: Settings, group: str, topic: str, strategy: str) -> None:
        super().__init__(name="group-watch", daemon=True)
        self._name = settings.worker_id
        self._group, self._topic = group, topic
        self._client: dict[str, Any] = {**client_config(settings), "log_level": 0}
        self._strategy = strategy
        self._closed = threading.Event()

    def run(self) -> None:
        """Look now and then; what was unowned twice in a row has been forgotten, and is not just on its way."""
        admin = AdminClient(self._client)
        before: set[int] = set()
        while not self._closed.wait(LOOK_SECONDS):
            try:
                unowned = self._unowned(admin)
                if forgotten := unowned & before:
                    logger.warning("group=%s partitions=%s have no owner: assigning anew", self._group, forgotten)
                    self._visit()
                before = unowned
            except KafkaException as error:  # The broker is busy or gone: there is another look.
                logger.debug("group=%s not looked at: %s", self._group, error)

    def close(self) -> None:
        """Stop looking; nothing here waits for a broker that is gone."""
        self._closed.set()

    def _unowned(self, admin: AdminClient) -> set[int]:
        """The topic's partitions that no member of a group at rest has; none where another worker is to act."""
        [answer] = admin.describe_consumer_groups([self._group], request_timeout=ANSWER_SECONDS).values()
        group = answer.result(ANSWER_SECONDS)
        names = sorted(member.group_instance_id for member in group.members if member.group_instance_id)
        if group.state != ConsumerGroupState.STABLE or names[:1] != [self._name]:
            return set()
        owned = {part.partition for member in group.members for part in member.assignment.topic_partitions}
        return set(admin.list_topics(self._topic, timeout=ANSWER_SECONDS).topics[self._topic].partitions) - owned

    def _visit(self) -> None:
        config = {"group.id": self._group, "partition.assignment.strategy": self._strategy, "enable.auto.commit": False}
        visitor, assigned = Consumer({**self._client, **config}), threading.Event()
        try:
            visitor.subscribe([self._topic], on_assign=lambda *_: assigned.set())
            deadline = time.monotonic() + VISIT_SECONDS
            # What it gets to read meanwhile is nobody's loss: it commits nothing, and its partitions go to the others.
            while not assigned.is_set() and time.monotonic() < deadline and not self._closed.is_set():
                visitor.poll(0.2)
        finally:
            visitor.close()
