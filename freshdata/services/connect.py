"""One local Kafka Connect worker with Debezium as a child process: loopback only, its state in Kafka."""

import uuid
from pathlib import Path

from freshdata.files import replace_file
from freshdata.services.broker import JVM
from freshdata.services.kafka import bootstrap
from freshdata.services.prerequisites import CDC, find_java, resolve_jars
from freshdata.services.processes import (
    Program,
    answers,
    free_port,
    last_port,
    listening,
    remembering,
    running_state,
)
from freshdata.settings import Settings

# A short session: a worker that comes back after a kill -9 gets no connectors before the group has given up the old
# one. Offsets are flushed each second, not each minute: what was sent since the last flush is sent again after a kill,
# and PostgreSQL keeps the log of it.
WORKER = """\
bootstrap.servers={bootstrap}
group.id=freshdata-connect-{instance}
listeners=http://127.0.0.1:{port}
rest.advertised.host.name=127.0.0.1
config.storage.topic=freshdata.connect-{instance}.configs
offset.storage.topic=freshdata.connect-{instance}.offsets
status.storage.topic=freshdata.connect-{instance}.status
config.storage.replication.factor=-1
offset.storage.replication.factor=-1
status.storage.replication.factor=-1
offset.storage.partitions=1
status.storage.partitions=1
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
key.converter.schemas.enable=false
value.converter.schemas.enable=false
offset.flush.interval.ms=1000
session.timeout.ms=6000
heartbeat.interval.ms=1500
scheduled.rebalance.max.delay.ms=0
plugin.discovery=service_load
config.providers=file
config.providers.file.class=org.apache.kafka.common.config.provider.FileConfigProvider
config.providers.file.param.allowed.paths={secrets}
"""
SNAPSHOTS = "snapshots.log"
NOTED = "Initial Snapshot', type='STARTED|Incremental Snapshot', type='TABLE_SCAN_COMPLETED"
# A snapshot whose beginning cannot be noted down does not begin.
LOG4J = f"""\
<Configuration status="warn">
  <Appenders>
    <Console name="out"><PatternLayout pattern="%d %p %c{{1}} %m%n"/></Console>
    <File name="snapshots" fileName="{SNAPSHOTS}" ignoreExceptions="false">
      <RegexFilter regex=".*aggregateType='({NOTED})'.*"/>
      <PatternLayout pattern="%d %m%n"/>
    </File>
  </Appenders>
  <Loggers>
    <Root level="warn"><AppenderRef ref="out"/></Root>
    <Logger name="io.debezium" level="info"/>
    <Logger name="io.debezium.pipeline.notification" level="info" additivity="false">
      <AppenderRef ref="snapshots"/>
    </Logger>
  </Loggers>
</Configuration>
"""


def prepare_connect(settings: Settings) -> tuple[str, Path]:
    """What the worker runs with: Java, and the folder of its jars.

    Raises:
        PrerequisiteError: Java or the jars are missing.
    """
    return find_java(), resolve_jars(settings, CDC)


def secrets_folder(settings: Settings) -> Path:
    """Folder of the files with what connectors must not have in their configuration; only its owner can enter it."""
    folder = settings.home / "connect" / "secrets"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def snapshots_file(settings: Settings) -> Path:
    """File in which Connect notes down each first snapshot's beginning, and each table's end in an incremental one."""
    return settings.home / "connect" / SNAPSHOTS


def running_connect(settings: Settings) -> str | None:
    """Address of the REST API of the instance's own worker; None when it does not run."""
    state = running_state(_address_file(settings))
    return f"http://127.0.0.1:{state['port']}" if state else None


def connect_program(settings: Settings) -> Program:
    """How to run the worker against the cluster in use.

    Raises:
        PrerequisiteError: Java or the jars are missing.
        ServiceError: there is no Kafka cluster.
    """
    java, jars = prepare_connect(settings)
    home = settings.home / "connect"
    home.mkdir(parents=True, exist_ok=True)
    port = free_port(last_port(_address_file(settings)))
    worker = home / "worker.properties"
    lines = WORKER.format(
        bootstrap=bootstrap(settings), instance=_instance(home), port=port, secrets=secrets_folder(settings)
    )
    # A cluster's own settings may hold a password.
    replace_file(worker, lines + client_properties(settings.kafka_config), private=True)
    (home / "log4j2.xml").write_text(LOG4J)

    return Program(
        command=(
            *(java, "-Xms64m", "-Xmx384m", *JVM, f"-Dlog4j2.configurationFile={home / 'log4j2.xml'}"),
            *("-cp", f"{jars}/*", "org.apache.kafka.connect.cli.ConnectDistributed", str(worker)),
        ),
        cwd=home,
        port=port,
        # It listens before it has joined its group.
        ready=lambda: listening(port) and answers(f"http://127.0.0.1:{port}/connectors"),
        on_ready=remembering(_address_file(settings), port=port),
        attempts=4,
    )


def client_properties(config: dict[str, str]) -> str:
    """Librdkafka's settings of a cluster (TLS, SASL) in the form of Java's clients, for the worker and its connectors.

    Args:
        config: The settings; what Java calls the same is taken over, what it lacks is left out.
    """
    found: dict[str, str] = {name: config[name] for name in ("security.protocol", "client.id") if name in config}
    mechanism = config.get("sasl.mechanism") or config.get("sasl.mechanisms")
    if mechanism:
        found["sasl.mechanism"] = mechanism
    if "sasl.username" in config:
        module = "plain.PlainLoginModule" if mechanism == "PLAIN" else "scram.ScramLoginModule"
        who = " ".join(
            f'{ours}="{_quoted(config.get(theirs, ""))}"'
            for ours, theirs in (("username", "sasl.username"), ("password", "sasl.password"))
        )
        found["sasl.jaas.config"] = f"org.apache.kafka.common.security.{module} required {who};"
    if "ssl.ca.location" in config:
        found |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": config["ssl.ca.location"]}
    prefixes = ("", "producer.", "consumer.", "admin.")
    return "".join(f"{prefix}{name}={value}\n" for name, value in found.items() for prefix in prefixes)


def _quoted(text: str) -> str:
    """A text within quotes of JAAS, in a properties file: both take backslashes."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\\", "\\\\")


def _instance(home: Path) -> str:
    """What tells this worker's group and topics from those of other instances on the same cluster."""
    path = home / "id"
    if not path.is_file():
        path.write_text(uuid.uuid4().hex[:8])
    return path.read_text()


def _address_file(settings: Settings) -> Path:
    return settings.run_dir / "connect.json"
