"""``python -m benchmarks.ingest.floor BOOTSTRAP TOPIC COUNT``: consume and drop; nothing that reads Kafka is faster."""

import json
import resource
import sys
import time
import uuid

from confluent_kafka import Consumer

CONFIG = {
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
    "queued.max.messages.kbytes": 65_536,
    "fetch.message.max.bytes": 8_388_608,
}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main(bootstrap: str, topic: str, count: int) -> None:
    """Consume a number of records, and print how long it took from the first one on."""
    consumer = Consumer({**CONFIG, "bootstrap.servers": bootstrap, "group.id": f"floor-{uuid.uuid4().hex}"})
    consumer.subscribe([topic])
    while not (first := consumer.consume(20_000, 0.2)):
        pass
    started, before, done = time.perf_counter(), _cpu(), 0
    while done < count - len(first):
        done += len(consumer.consume(20_000, 0.2))
    result = {"events": done, "seconds": time.perf_counter() - started, "cpu": _cpu() - before}
    sys.stdout.write(json.dumps(result) + "\n")
    consumer.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
