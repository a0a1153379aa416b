"""The local broker: starts, restarts on its data whatever happened to it, and is shared."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from freshdata.errors import ServiceError
from freshdata.services.broker import address_file
from freshdata.services.kafka import bootstrap, client_config, cluster_id, end_offsets, ensure_topics, local_broker

pytestmark = pytest.mark.integration
TOPIC = "flights.weather.v1"


def state(instance):
    return json.loads(address_file(instance).read_text())


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def put(instance, *values):
    producer = Producer(client_config(instance) | {"log_level": "0"})
    for value in values:
        producer.produce(TOPIC, value, b"key", partition=0)
    assert producer.flush(60) == 0


def read(instance, count):
    consumer = Consumer(client_config(instance) | {"group.id": "test", "log_level": "0"})
    consumer.assign([TopicPartition(TOPIC, 0, 0)])
    values = [message.value() for message in consumer.consume(count, timeout=30)]
    consumer.close()
    return values


def test_life_of_a_broker(instance, contracts):
    with pytest.raises(ServiceError, match="No Kafka broker runs") as raised:
        bootstrap(instance)
    assert "freshdata up" in raised.value.remedy
    with local_broker(instance) as address:
        assert bootstrap(instance) == address
        ensure_topics(instance, contracts.values())
        ensure_topics(instance, contracts.values())
        assert end_offsets(instance, TOPIC) == {0: 0, 1: 0}
        put(instance, b"one")
        cluster, first = cluster_id(instance), state(instance)
        with local_broker(instance) as inner:
            assert inner == address
        assert bootstrap(instance) == address  # The inner block did not stop the outer one's broker.

        # Killed, it comes back by itself at the same address with its data: clients find it again.
        os.kill(first["pid"], signal.SIGKILL)
        until(lambda: state(instance)["pid"] != first["pid"])
        assert bootstrap(instance) == address
        put(instance, b"two")
        assert end_offsets(instance, TOPIC) == {0: 2, 1: 0}
    assert not psutil.pid_exists(state(instance)["pid"])
    with pytest.raises(ServiceError):
        bootstrap(instance)

    # Both its ports are taken in the meantime: it moves, and its data stays.
    with socket.socket() as client, socket.socket() as controller:
        for taken, port in ((client, first["port"]), (controller, first["controller"])):
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", port))
            taken.listen()
        with local_broker(instance) as moved:
            assert moved != address
            assert cluster_id(instance) == cluster
            assert read(instance, 2) == [b"one", b"two"]


def test_a_topic_with_another_number_of_partitions_is_refused(streaming):
    from dataclasses import replace

    from freshdata.contracts import load_contracts

    contract = load_contracts(streaming.contracts_dir)["weather"]
    ensure_topics(streaming, [contract])
    other = replace(contract, stream=replace(contract.rules, topic_partitions=5))
    with pytest.raises(ServiceError, match="has 2 partitions, its contract says 5"):
        ensure_topics(streaming, [other])


def test_a_topic_that_does_not_exist_is_a_clear_error(streaming):
    with pytest.raises(ServiceError, match=r"no\.such\.topic"):
        end_offsets(streaming, "no.such.topic")


def test_no_broker_outlives_its_killed_owner_and_the_next_start_works(instance, contracts, environment):
    script = (
        "import time\nfrom freshdata.settings import load_settings\nfrom freshdata.services.kafka import local_broker\n"
        "with local_broker(load_settings()) as address:\n    print(address, flush=True)\n    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(instance)) as owner:
        address = owner.stdout.readline().strip()
        ensure_topics(instance, contracts.values())
        put(instance, b"kept")
        pid = state(instance)["pid"]
        owner.kill()
    with local_broker(instance) as again:  # At once: the old one may still be dying.
        assert again == address
        assert read(instance, 1) == [b"kept"]
    until(lambda: not psutil.pid_exists(pid))
