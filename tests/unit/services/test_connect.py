"""Kafka Connect reaches a cluster with the same settings as librdkafka's clients."""

from freshdata.services.connect import client_properties


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
