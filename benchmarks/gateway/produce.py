"""``python -m benchmarks.gateway.produce BOOTSTRAP TOPIC SECONDS``: write events, and await them."""

import json
import resource
import sys
import time

from confluent_kafka import Producer

from serving_api.gateway.kafka import DEFAULTS, PROMISED

EVENT = (
    '{"event_id":"%032x","tenant_id":"tenant-000","event_type":"order","event_time":"2026-01-05T12:00:00.000Z",'
    '"user_id":"u000017","product_id":"p0042","quantity":3,"price":19.90,"currency":"EUR","country":"DE",'
    '"session":"session-00017"}'
)


def main(bootstrap: str, topic: str, seconds: float) -> None:
    """Write for some seconds, wait for the acknowledgements, and print how many there were."""
    producer = Producer({**DEFAULTS, **PROMISED, "bootstrap.servers": bootstrap})
    producer.list_topics(topic, 10)
    acknowledged = 0

    def delivered(error: object, _message: object) -> None:
        nonlocal acknowledged
        acknowledged += error is None

    before = resource.getrusage(resource.RUSAGE_SELF)
    began, number = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(500):
            number += 1
            value = EVENT % number
            try:
                producer.produce(topic, value, value[13:45], on_delivery=delivered)
            except BufferError:
                producer.poll(0.01)
        producer.poll(0)
    producer.flush()
    elapsed, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    sys.stdout.write(json.dumps({"events": acknowledged, "seconds": elapsed, "cpu": cpu}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
