"""The Kafka cluster in use: its address, its topics, its offsets."""

import time
from collections.abc import Iterable

from confluent_kafka import OFFSET_END, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from freshdata.contracts import Contract
from freshdata.errors import ServiceError
from freshdata.services.broker import local_broker, running_broker
from freshdata.settings import Settings

__all__ = ["bootstrap", "client_config", "cluster_id", "end_offsets", "ensure_topics", "local_broker"]
TIMEOUT = 30.0  # seconds
# A broker that has come back answers before it leads its partitions again.
NO_LEADER_YET = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
)
NO_LEADER_PAUSE = 0.1  # seconds
TOPIC_CONFIG = {
    # A replay's record timestamps lie years back: under any time limit Kafka deletes them at its next round.
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "cleanup.policy": "delete",
    "message.timestamp.type": "CreateTime",
    # What a topic refuses is lost at its producer, where nobody sees it. Kafka's 1 MB is too little: up to this size a
    # message is kept, in quarantine if it is no event. A broker takes requests of at most 100 MB.
    "max.message.bytes": str(16 * 1024 * 1024),
}


def bootstrap(settings: Settings) -> str:
    """``host:port`` list of the cluster: the configured one, else the running local broker.

    Raises:
        ServiceError: neither is there.
    """
    if address := settings.kafka_bootstrap or running_broker(settings):
        return address
    raise ServiceError(
        "kafka",
        f"No Kafka broker runs for {settings.home}.",
        remedy="Start the platform with `freshdata up`, or set FRESHDATA_KAFKA_BOOTSTRAP.",
    )


def client_config(settings: Settings) -> dict[str, str]:
    """What every librdkafka client of this instance is configured with."""
    return {"bootstrap.servers": bootstrap(settings), **settings.kafka_config}


def ensure_topics(settings: Settings, contracts: Iterable[Contract]) -> None:
    """Create the topics that the stream contracts name.

    Raises:
        ServiceError: Kafka does not answer or refuses, or a topic exists with another number of partitions.
    """
    wanted = {contract.rules.topic: contract.rules for contract in contracts if contract.stream}
    if not wanted:
        return
    admin = _admin(settings)
    new = [NewTopic(name, rules.topic_partitions, -1, config=TOPIC_CONFIG) for name, rules in wanted.items()]
    for name, future in admin.create_topics(new, request_timeout=TIMEOUT).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise _refused(f"topic {name} could not be created", error) from error
            found = len(_partitions(admin, name))
            if found != wanted[name].topic_partitions:
                raise ServiceError(
                    "kafka",
                    f"Topic {name} has {found} partitions, its contract says {wanted[name].topic_partitions}.",
                    # Equal keys must share a partition for ever, or the per-partition deduplication misses repeats.
                    remedy="Set topicPartitions to what the topic has, or name a new topic in the contract.",
                ) from error


def cluster_id(settings: Settings) -> str:
    """The cluster's id.

    Raises:
        ServiceError: Kafka does not answer.
    """
    admin = _admin(settings)  # Held by a name: a client that is collected while its answer is under way cancels it.
    try:
        return str(admin.describe_cluster(request_timeout=TIMEOUT).result().cluster_id)
    except KafkaException as error:
        raise _refused("it did not describe itself", error) from error


def end_offsets(settings: Settings, topic: str, *, timeout: float = TIMEOUT) -> dict[int, int]:
    """The offset after the last record of each partition.

    Args:
        settings: The instance.
        topic: The topic.
        timeout: How long each answer may take, in seconds.

    Raises:
        ServiceError: Kafka does not answer, or has no such topic.
    """
    admin = _admin(settings)
    parts = [TopicPartition(topic, number, OFFSET_END) for number in _partitions(admin, topic, timeout)]
    deadline = time.monotonic() + timeout
    while True:
        try:
            answers = admin.list_offsets({part: OffsetSpec.latest() for part in parts}, request_timeout=timeout)
            return {part.partition: int(future.result().offset) for part, future in sorted(answers.items())}
        except KafkaException as error:
            if error.args[0].code() not in NO_LEADER_YET or time.monotonic() > deadline:
                raise _refused(f"topic {topic}'s offsets are not known", error) from error
            time.sleep(NO_LEADER_PAUSE)


def _admin(settings: Settings) -> AdminClient:
    return AdminClient({**client_config(settings), "log_level": "0"})


def _partitions(admin: AdminClient, topic: str, timeout: float = TIMEOUT) -> list[int]:
    try:
        metadata = admin.list_topics(topic, timeout=timeout).topics[topic]
    except KafkaException as error:
        raise _refused(f"topic {topic} could not be looked up", error) from error
    if metadata.error is not None:
        raise ServiceError(
            "kafka", f"Topic {topic} cannot be read: {metadata.error.str()}.", remedy="Start the platform once."
        )
    return sorted(metadata.partitions)


def _refused(what: str, error: KafkaException) -> ServiceError:
    return ServiceError(
        "kafka", f"Kafka: {what}: {error.args[0].str()}.", remedy="Look at `freshdata status` and at Kafka's log."
    )
