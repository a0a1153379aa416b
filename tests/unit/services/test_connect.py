"""Kafka Connect reaches a cluster with the same settings as librdkafka's clients."""

from pathlib import Path

import pytest

from freshdata.services import connect
from freshdata.services.connect import client_properties, connect_program
from freshdata.settings import Settings


def test_a_cluster_with_passwords():
    config = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "SCRAM-SHA-512",
        "sasl.username": "me",
        "sasl.password": 'a"b\\c',
        "ssl.ca.location": "/ca.pem",
        "socket.keepalive.enable": "true",
    }
    lines = client_properties(config).splitlines()
    assert "producer.security.protocol=SASL_SSL" in lines
    assert "sasl.mechanism=SCRAM-SHA-512" in lines
    module = "org.apache.kafka.common.security.scram.ScramLoginModule"
    # A properties file takes one backslash of two, JAAS then one more.
    assert f'admin.sasl.jaas.config={module} required username="me" password="a\\\\"b\\\\\\\\c";' in lines
    assert {"ssl.truststore.type=PEM", "ssl.truststore.location=/ca.pem"} <= set(lines)
    assert not any("keepalive" in line for line in lines)


def test_a_local_broker_needs_nothing():
    assert client_properties({}) == ""


def test_the_password_of_a_cluster_is_its_owner_s_whoever_could_read_the_file_before(
    instance: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connect, "prepare_connect", lambda _: ("java", Path("jars")))
    config = {"sasl.mechanism": "PLAIN", "sasl.username": "me", "sasl.password": "s3cret"}
    settings = instance.model_copy(update={"kafka_bootstrap": "127.0.0.1:9", "kafka_config": config})
    worker = settings.home / "connect" / "worker.properties"
    worker.parent.mkdir(parents=True)
    worker.write_text("before")
    worker.chmod(0o644)
    connect_program(settings)
    assert "s3cret" in worker.read_text()
    assert worker.stat().st_mode & 0o777 == 0o600
