"""The contenders in Python: the floor, this project's worker, and Quix Streams row by row."""

import sys
from functools import partial

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from benchmarks.ingest.events import STREAM
from benchmarks.ingest.measure import Contender, Job, Setup
from benchmarks.ingest.tables import Summary, sql_head
from freshdata.lake.progress import PROGRESS_PROPERTY, Progress
from freshdata.services.kafka import client_config
from freshdata.services.processes import Program

QUIX_CONSUMED = "benchmark.consumed"


def _environment(setup: Setup) -> dict[str, str]:
    return {
        "FRESHDATA_PROJECT": str(setup.settings.project),
        "FRESHDATA_HOME": str(setup.settings.home),
        "FRESHDATA_KAFKA_BOOTSTRAP": setup.bootstrap,
    }


def _floor(setup: Setup) -> Job:
    arguments = (setup.bootstrap, setup.topic.name, str(setup.target))
    program = Program((sys.executable, "-m", "benchmarks.ingest.floor", *arguments))
    return Job({"floor": program}, lambda: None, lambda _: None)


def worker_consumed(summary: Summary) -> int | None:
    """Records that a snapshot of Bronze accounts for."""
    text = summary.get(PROGRESS_PROPERTY)
    return Progress.from_json(text).total().consumed if text else None


def _workers(count: int, setup: Setup) -> Job:
    program = Program((sys.executable, "-m", "stream_workers", STREAM), env=_environment(setup))
    admin = AdminClient(client_config(setup.settings))
    group_name = f"freshdata-{setup.topic.name}"

    def settled() -> bool:
        if count == 1:
            return True
        try:
            [answer] = admin.describe_consumer_groups([group_name]).values()
            return sum(bool(member.assignment.topic_partitions) for member in answer.result(10).members) == count
        except KafkaException:  # The group is not there yet, or the broker is busy: asked again at the next commit.
            return False

    return Job(
        {f"worker-{number}": program for number in range(count)},
        sql_head(setup.settings.home / "catalog.db", "bronze", STREAM),
        worker_consumed,
        settled,
    )


def _quix_consumed(summary: Summary) -> int | None:
    return int(summary[QUIX_CONSUMED]) if QUIX_CONSUMED in summary else None


def _quix(setup: Setup) -> Job:
    program = Program(
        (sys.executable, "-m", "benchmarks.ingest.quix", setup.topic.name, str(setup.folder)), env=_environment(setup)
    )
    head = sql_head(setup.settings.home / "catalog.db", "bronze", STREAM)
    return Job({"quix": program}, head, _quix_consumed)


WORK = "validate, watermark, dedupe, enrich, partition, sort, zstd"
FLOOR = Contender("floor", "librdkafka floor", "consume, drop", 1.0, dedupes=False, start=_floor, paced=False)
WORKER = Contender("worker", "FreshData, 1 process", WORK, 1.0, dedupes=True, start=partial(_workers, 1))
CONTENDERS = [
    FLOOR,
    WORKER,
    Contender("worker2", "FreshData, 2 processes", WORK, 1.0, dedupes=True, start=partial(_workers, 2), paced=False),
    Contender(
        "quix",
        "Quix StreamingDataFrame",
        "decode, validate, dedupe (RocksDB), enrich, partition, zstd",
        0.05,
        dedupes=True,
        start=_quix,
    ),
]
