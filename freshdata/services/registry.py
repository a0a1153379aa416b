"""One local schema registry as a child process: Apicurio, loopback only, its schemas in the instance's folder."""

import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from freshdata.services.prerequisites import REGISTRY, find_java, resolve_jars
from freshdata.services.processes import (
    Program,
    Supervisor,
    answers,
    free_port,
    last_port,
    remembering,
    running_state,
)
from freshdata.settings import Settings

OLDEST_JAVA = 21
API = "/apis/ccompat/v7"
JVM = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


def address_file(settings: Settings) -> Path:
    """File that says where the instance's registry is, or was."""
    return settings.home / "registry" / "address.json"


def registry_address(settings: Settings) -> str | None:
    """Address of the configured registry, else of the instance's own, whether it runs or not; None when it has none."""
    if settings.schema_registry_url:
        return settings.schema_registry_url.rstrip("/")
    port = last_port(address_file(settings))
    return f"http://127.0.0.1:{port}{API}" if port else None


def running_registry(settings: Settings) -> str | None:
    """Address of the configured registry, or of the instance's own if it runs."""
    runs = settings.schema_registry_url or running_state(address_file(settings))
    return registry_address(settings) if runs else None


def prepare_registry(settings: Settings) -> tuple[str, Path]:
    """Find the Java that runs the registry, and fetch and unpack its files unless they are there.

    Returns:
        The Java, and the folder of the files.

    Raises:
        PrerequisiteError: a Java 21, or Maven to fetch them, is missing.
    """
    java, jars = find_java(OLDEST_JAVA, REGISTRY), resolve_jars(settings, REGISTRY)
    app = jars.with_suffix(".app")
    if not app.is_dir():
        with tempfile.TemporaryDirectory(dir=jars.parent, prefix=".new-") as scratch:
            unpacked = Path(scratch, "app")
            with tarfile.open(next(jars.glob(REGISTRY.one))) as archive:
                archive.extractall(unpacked, filter="data")
            with suppress(OSError):  # Another process was first.
                unpacked.rename(app)
    return java, app


def registry_program(settings: Settings) -> Program:
    """How to run the registry.

    Raises:
        PrerequisiteError: a Java 21, or Maven to fetch its files, is missing.
    """
    java, app = prepare_registry(settings)
    home = settings.home / "registry"
    home.mkdir(parents=True, exist_ok=True)
    port = free_port(last_port(address_file(settings)))
    env = {
        "QUARKUS_HTTP_HOST": "127.0.0.1",
        "QUARKUS_HTTP_PORT": str(port),
        "QUARKUS_MANAGEMENT_HOST": "127.0.0.1",
        "QUARKUS_MANAGEMENT_PORT": str(free_port()),
        "APICURIO_STORAGE_KIND": "sql",
        "APICURIO_STORAGE_SQL_KIND": "h2",
        # The ids are in Kafka's messages: a restarted registry must know them.
        "APICURIO_DATASOURCE_URL": f"jdbc:h2:file:{home / 'schemas'}",
    }
    return Program(
        command=(java, *JVM, "-jar", str(app / "quarkus-run.jar")),
        env=env,
        cwd=home,
        port=port,
        ready=lambda: answers(f"http://127.0.0.1:{port}{API}/subjects"),
        on_ready=remembering(address_file(settings), port=port),
        attempts=4,
    )


@contextmanager
def local_registry(settings: Settings) -> Iterator[str]:
    """A registry for the time of the block; one that runs already, or is configured, is used and left alone.

    Yields:
        Its address.

    Raises:
        PrerequisiteError: a Java 21 or its files are missing.
        ServiceError: it did not start.
    """
    if existing := running_registry(settings):
        yield existing
        return
    with Supervisor(settings.logs) as supervisor:
        supervisor.start("registry", lambda: registry_program(settings))
        yield running_registry(settings) or ""
