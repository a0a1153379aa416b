"""A source's connector: Debezium's settings, and Kafka Connect's REST API."""

import json
import time
from contextlib import suppress
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from freshdata.cdc.snapshots import begin, begun, skipped
from freshdata.cdc.source import Source
from freshdata.errors import CaptureError, ServiceError
from freshdata.files import replace_file
from freshdata.services.connect import running_connect, secrets_folder
from freshdata.services.registry import registry_address
from freshdata.settings import Settings

TIMEOUT_SECONDS = 30
PATIENCE_SECONDS = 90.0
POLL_SECONDS = 0.25
REBALANCING = 409
NOT_FOUND = 404
# By this prefix a source's heartbeats, which only move its slot on, are told from messages that somebody means.
HEARTBEAT_PREFIX = "freshdata"
SETTINGS: dict[str, str] = {
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "tasks.max": "1",
    "plugin.name": "pgoutput",
    "publication.autocreate.mode": "disabled",
    "snapshot.mode": "initial",
    # Every value as it is: a decimal's digits as text, times in microseconds whatever their declared precision.
    "decimal.handling.mode": "string",
    "time.precision.mode": "microseconds",
    "binary.handling.mode": "bytes",
    "interval.handling.mode": "string",
    "skipped.operations": "none",
    "tombstones.on.delete": "true",
    # The slot moves on when the database is busy with other tables only. The message is part of the log and needs no
    # table. Not by the driver's keep-alives: they move the slot beyond the stored offset, which looks like a loss.
    "heartbeat.interval.ms": "1000",
    "heartbeat.action.query": f"SELECT pg_logical_emit_message(false, '{HEARTBEAT_PREFIX}', '')",
    "message.prefix.exclude.list": HEARTBEAT_PREFIX,
    "lsn.flush.mode": "connector",
    # A slot that was dropped and made anew begins after what was missed: fail, do not skip.
    "offset.mismatch.strategy": "trust_offset",
    "slot.drop.on.stop": "false",
    # A killed connector's slot is in use until PostgreSQL sees that it is gone.
    "slot.max.retries": "30",
    "slot.retry.delay.ms": "2000",
    "retriable.restart.connector.wait.ms": "1000",
    "poll.interval.ms": "100",
    "signal.enabled.channels": "source",
    # By its log Connect notes down what becomes of snapshots. Not the channel "sink", which stores an empty position
    # with what it sends: a snapshot that is cut off then would count as complete.
    "notification.enabled.channels": "log",
    # Its marks in the signal table do not stay there.
    "incremental.snapshot.watermarking.strategy": "insert_delete",
    "topic.creation.default.partitions": "1",
    "topic.creation.default.replication.factor": "-1",
}
# Confluent's wire format, whose ids are those of the registry's Confluent-compatible API.
AVRO: dict[str, str] = {
    "value.converter": "io.apicurio.registry.utils.converter.AvroConverter",
    "value.converter.apicurio.registry.auto-register": "true",
    "value.converter.apicurio.registry.headers.enabled": "false",
    "value.converter.apicurio.registry.as-confluent": "true",
    "value.converter.apicurio.registry.use-id": "contentId",
    "schema.name.adjustment.mode": "avro",
}
CONFLUENT_API, OWN_API = "/apis/ccompat/v7", "/apis/registry/v2"


def connector_settings(settings: Settings, source: Source) -> dict[str, str]:
    """What a source's connector is registered with; the password is a reference to a file only its owner can read.

    Raises:
        CaptureError: it writes Avro, and there is no registry that the converter can use.
    """
    secret = secrets_folder(settings) / f"{source.name}.properties"
    address = source.address
    found = SETTINGS | {
        "database.hostname": address["host"],
        "database.port": address["port"],
        "database.dbname": address["dbname"],
        "database.user": address["user"],
        "database.password": f"${{file:{secret}:password}}",
        "topic.prefix": source.name,
        "slot.name": source.slot,
        "publication.name": source.slot,
        "table.include.list": ",".join(pattern(table) for table in source.tables),
        "signal.data.collection": ".".join(source.signal_table),
    }
    found |= {f"database.{name}": address[name] for name in ("sslmode", "sslrootcert") if name in address}
    if source.without:
        found["column.exclude.list"] = ",".join(pattern(column) for column in source.without)
    if source.avro:
        found |= AVRO | {"value.converter.apicurio.registry.url": _registry(settings, source)}
    return found


def _registry(settings: Settings, source: Source) -> str:
    """Address of the API by which the converter registers schemas."""
    address = registry_address(settings)
    if address is None or not address.endswith(CONFLUENT_API):
        raise CaptureError(
            source.name,
            [f"changes as Avro need an Apicurio registry, and {address or 'none'} is configured"],
            remedy=f"Start one with `freshdata up --with registry --with cdc`, or name one's address, which ends with "
            f"{CONFLUENT_API}, in FRESHDATA_SCHEMA_REGISTRY_URL.",
        )
    return address.removesuffix(CONFLUENT_API) + OWN_API


def pattern(name: str) -> str:
    """A regular expression, as Debezium's lists want them, that one dotted name fits."""
    return "".join(letter if letter.isalnum() or letter == "_" else f"\\{letter}" for letter in name)


class Connect:
    """The REST API of the instance's Kafka Connect.

    Raises:
        ServiceError: it does not run.
    """

    def __init__(self, settings: Settings) -> None:
        address = running_connect(settings)
        if address is None:
            raise ServiceError(
                "connect",
                f"No Kafka Connect runs for {settings.home}.",
                remedy="Start the platform with `freshdata up --with cdc`.",
            )
        self._address = address
        self._settings = settings

    def register(self, source: Source, *, anew: bool) -> None:
        """Create or change a source's connector, and wait until it captures.

        Args:
            source: The source.
            anew: Forget what a connector of this name, which has been removed, has captured before.

        Raises:
            ServiceError: Connect refuses it, or its task failed.
        """
        # A properties file in letters that mean nothing there.
        password = "".join(f"\\u{unit:04x}" for unit in _utf16(source.address["password"]))
        secret = secrets_folder(self._settings) / f"{source.name}.properties"
        replace_file(secret, f"password={password}\n", private=True)
        wanted = connector_settings(self._settings, source)
        registered = {} if anew else self.settings(source.name)
        if not registered:
            self._ask("POST", "connectors", {"name": source.name, "config": wanted, "initial_state": "STOPPED"})
            if anew:  # Offsets outlive their connector, and can only be forgotten through one.
                self.forget_offsets(source.name)
        elif registered != wanted | {"name": source.name}:
            # Stopped first: a task that still runs with the old settings would take, and drop, a signal meant for it.
            self.stop(source.name)
            self._ask("PUT", f"connectors/{source.name}/config", wanted)
        self.resume(source.name)
        self.wait_running(source.name)

    def remove(self, name: str) -> None:
        """Remove a connector, which writes nothing any more then; nothing happens when there is none."""
        with suppress(_MissingError):
            self.stop(name)
            self._ask("DELETE", f"connectors/{name}")

    def forget_offsets(self, name: str) -> None:
        """Stop a connector, and have it begin anew when it is resumed."""
        self.stop(name)
        self._ask("DELETE", f"connectors/{name}/offsets")
        begin(self._settings, name)

    def begun(self, name: str) -> int:
        """How often a connector's first snapshot was begun; more than once, it was cut off."""
        return begun(self._settings, name)

    def skipped(self, name: str) -> tuple[str, ...]:
        """A connector's tables that an incremental snapshot has skipped, and none has read whole since."""
        return skipped(self._settings, name)

    def stop(self, name: str) -> None:
        """Stop a connector; it goes on from there when it is resumed."""
        self._ask("PUT", f"connectors/{name}/stop")
        self._wait(name, lambda status: status["connector"]["state"] == "STOPPED" and not status["tasks"])

    def resume(self, name: str) -> None:
        """Start a stopped connector."""
        self._ask("PUT", f"connectors/{name}/resume")

    def restart(self, name: str) -> None:
        """Restart a connector's failed task."""
        self._ask("POST", f"connectors/{name}/restart?includeTasks=true&onlyFailed=true")

    def settings(self, name: str) -> dict[str, str]:
        """What a connector is registered with; nothing when there is none."""
        with suppress(_MissingError):
            return dict(self._ask("GET", f"connectors/{name}")["config"])
        return {}

    def state(self, name: str) -> tuple[str, str]:
        """The state of a connector's task (``RUNNING``, ``FAILED``, …; ``MISSING`` without one), and why it failed."""
        try:
            status = self._ask("GET", f"connectors/{name}/status")
        except _MissingError:
            return "MISSING", ""
        for part in [*status["tasks"], status["connector"]]:
            if part["state"] != "RUNNING":
                return part["state"], _cause(part.get("trace", ""))
        return ("RUNNING" if status["tasks"] else "STARTING"), ""

    def stored_lsn(self, name: str) -> int | None:
        """The position in the database's log up to which all changes are in Kafka; None before the first."""
        lsn = self._stored(name).get("lsn")
        return int(lsn) if lsn else None

    def unread(self, name: str) -> set[str]:
        """The tables that a connector's incremental snapshot has yet to read, or is reading."""
        listed = json.loads(self._stored(name).get("incremental_snapshot_collections") or "[]")
        return {table["incremental_snapshot_collections_id"] for table in listed}

    def _stored(self, name: str) -> dict[str, Any]:
        """How far a connector is, by what is in Kafka; nothing before it has begun."""
        with suppress(_MissingError):
            for stored in self._ask("GET", f"connectors/{name}/offsets")["offsets"]:
                return stored["offset"] or {}
        return {}

    def wait_running(self, name: str) -> None:
        """Wait until a connector's task runs.

        Raises:
            ServiceError: it failed.
        """

        def running(status: dict[str, Any]) -> bool:
            for task in [*status["tasks"], status["connector"]]:
                if task["state"] == "FAILED":
                    raise _failed(name, _cause(task.get("trace", "")))
            return bool(status["tasks"]) and all(task["state"] == "RUNNING" for task in status["tasks"])

        self._wait(name, running)

    def _wait(self, name: str, done: Any) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            with suppress(_MissingError):  # Its status comes a moment after itself.
                if done(self._ask("GET", f"connectors/{name}/status")):
                    return
            time.sleep(POLL_SECONDS)
        raise _failed(name, f"it did not change its state within {PATIENCE_SECONDS:.0f} s")

    def _ask(self, method: str, path: str, content: Any = None) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self._try(method, path, content)
            except HTTPError as error:
                told = error.read().decode(errors="replace")
                if error.code == REBALANCING and time.monotonic() < deadline:
                    time.sleep(POLL_SECONDS)
                    continue
                if error.code == NOT_FOUND:
                    raise _MissingError from error
                raise _failed(content["name"] if path == "connectors" else path.split("/")[1], told) from error
            except OSError as error:
                raise ServiceError(
                    "connect", f"Kafka Connect does not answer: {error}.", remedy="Look at `freshdata status`."
                ) from error

    def _try(self, method: str, path: str, content: Any) -> Any:
        body = None if content is None else json.dumps(content).encode()
        headers = {"Content-Type": "application/json"}
        request = Request(f"{self._address}/{path}", body, headers, method=method)  # noqa: S310 (loopback http)
        with urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            text = answer.read()
            return json.loads(text) if text else None


class _MissingError(Exception):
    """There is no such connector."""


def _failed(name: str, reason: str) -> ServiceError:
    return ServiceError(
        "connect",
        f"The connector of {name} does not capture: {reason[:300]}.",
        remedy="Look at `freshdata cdc status` and at Connect's log.",
    )


def _cause(trace: str) -> str:
    """What a Java stack trace is about: the message of its deepest cause."""
    lines = [line for line in trace.splitlines() if line and not line.startswith(("\t", " "))]
    return lines[-1].removeprefix("Caused by: ") if lines else ""


def _utf16(text: str) -> list[int]:
    data = text.encode("utf-16-be")
    return [int.from_bytes(data[index : index + 2]) for index in range(0, len(data), 2)]
