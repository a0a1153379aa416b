"""Who holds a late tenant's events up, with a real broker: the producer, the worker, or Silver."""

from datetime import UTC, date, datetime

import pytest
from confluent_kafka import Producer

from freshdata.contracts import load_contracts
from freshdata.freshness import describe, stream_freshness
from freshdata.lake.catalog import open_catalog
from freshdata.services.kafka import bootstrap, ensure_topics
from freshdata.settings import Settings
from tests.lakes import departures, ingest
from tests.silver import take_in

pytestmark = pytest.mark.integration

NOW = datetime(2013, 1, 6, tzinfo=UTC)


def send(settings: Settings, topic: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": bootstrap(settings), "log_level": "0"})
    for _ in range(count):
        producer.produce(topic, b"{}", partition=0)
    assert producer.flush(30) == 0


def test_kafka_tells_a_silent_producer_from_a_slow_worker(streaming: Settings) -> None:
    contracts = load_contracts(streaming.contracts_dir)
    flights = contracts["flight_events"]
    ensure_topics(streaming, [flights])
    rows = departures(date(2013, 1, 3))
    send(streaming, flights.rules.topic, len(rows))
    ingest(streaming, "flight_events", rows)
    take_in(streaming, rows)

    def told() -> str:
        return describe(stream_freshness(streaming, open_catalog(streaming), flights, NOW))

    assert told().startswith("0 fresh, 2 late, 0 idle; UA, AA late since 2013-01-05 17:02 UTC: the producer is silent")
    send(streaming, flights.rules.topic, 3)
    assert "the worker is behind, 3 records of the topic are unread" in told()
    # What the worker has read since is for Silver to take in.
    ingest(streaming, "flight_events", departures(date(2013, 1, 5), 3, event_id="again"))
    assert "Silver is behind Bronze" in told()
