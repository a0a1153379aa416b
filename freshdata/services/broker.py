"""One local Kafka broker as a child process: KRaft, loopback only, its data in the instance's folder."""

import base64
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from freshdata.errors import ServiceError
from freshdata.services.prerequisites import find_java, resolve_jars
from freshdata.services.processes import (
    Program,
    Supervisor,
    bound_command,
    free_port,
    last_port,
    listening,
    remembering,
    running_state,
)
from freshdata.settings import Settings

JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
# Static voters, not a dynamic quorum: that one keeps the controller's port in the metadata log, so a broker whose old
# port has been taken in the meantime could never start again. A short session: after a kill -9 the controller refuses
# the restarted broker for that long, as it still believes in the old one (9 s by default).
SERVER = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=2
log.cleaner.dedupe.buffer.size=8388608
"""
LOG4J = """\
<Configuration status="warn">
  <Appenders><Console name="out"><PatternLayout pattern="%d %p %c{1} %m%n"/></Console></Appenders>
  <Loggers>
    <Root level="warn"><AppenderRef ref="out"/></Root>
    <Logger name="kafka.server.KafkaRaftServer" level="info"/>
  </Loggers>
</Configuration>
"""


def address_file(settings: Settings) -> Path:
    """File that says where the instance's broker is, or was: its ports are preferred at the next start."""
    return settings.run_dir / "kafka.json"


def running_broker(settings: Settings) -> str | None:
    """``host:port`` of the instance's own broker, or None when it does not run."""
    state = running_state(address_file(settings))
    return f"127.0.0.1:{state['port']}" if state else None


def broker_program(settings: Settings) -> Program:
    """How to run the broker: its folder is formatted once, its configuration is written for ports that are free now.

    Raises:
        PrerequisiteError: Java or the jars are missing.
        ServiceError: the folder cannot be formatted.
    """
    java, jars = find_java(), resolve_jars(settings)
    home = settings.home / "kafka"
    home.mkdir(parents=True, exist_ok=True)
    ports = address_file(settings)
    port, controller = free_port(last_port(ports)), free_port(last_port(ports, "controller"))
    (home / "server.properties").write_text(
        SERVER.format(port=port, controller=controller, data=str(home / "data").replace("\\", "\\\\"))
    )
    (home / "log4j2.xml").write_text(LOG4J)
    run = (java, *JVM, f"-Dlog4j2.configurationFile={home / 'log4j2.xml'}", "-cp", f"{jars}/*")
    _format(home, run)

    return Program(
        command=(java, "-Xms128m", "-Xmx384m", *run[1:], "kafka.Kafka", str(home / "server.properties")),
        cwd=home,
        port=port,
        ready=lambda: listening(port) and _answers(f"127.0.0.1:{port}"),
        on_ready=remembering(ports, port=port, controller=controller),
        attempts=4,
    )


@contextmanager
def local_broker(settings: Settings) -> Iterator[str]:
    """A broker for the time of the block; one that runs already, or a configured cluster, is used and left alone.

    Yields:
        The bootstrap address.

    Raises:
        PrerequisiteError: Java or the jars are missing.
        ServiceError: the broker did not start.
    """
    if existing := settings.kafka_bootstrap or running_broker(settings):
        yield existing
        return
    with Supervisor(settings.logs) as supervisor:
        supervisor.start("kafka", lambda: broker_program(settings))
        yield running_broker(settings) or ""


def _format(home: Path, run: tuple[str, ...]) -> None:
    done = home / "formatted"
    if done.is_file():
        return
    cluster = home / "cluster-id"
    if not cluster.is_file():  # Kept apart, so that a format that was cut short is completed under the same id.
        cluster.write_text(base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="))
    tool = ("kafka.tools.StorageTool", "format", "--ignore-formatted", f"--cluster-id={cluster.read_text()}")
    command = (*run, *tool, "-c", str(home / "server.properties"))
    result = subprocess.run(bound_command(command, signal.SIGKILL), capture_output=True, text=True, check=False)
    if result.returncode:
        raise ServiceError(
            "kafka",
            f"Kafka's folder {home} could not be formatted: {(result.stderr or result.stdout).strip()[-300:]}",
            remedy="Remove that folder and start again.",
        )
    done.touch()


def _answers(bootstrap: str) -> bool:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        return bool(AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(timeout=5).brokers)
    except KafkaException:
        return False
