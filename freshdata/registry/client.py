"""Ask the schema registry, and remember for ever what an id means, and for a while that it means nothing."""

import hashlib
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from freshdata.errors import ConfigError, RegistryDownError, RegistryError, SchemaError
from freshdata.registry.schemas import Schema
from freshdata.services.processes import read_json, write_json
from freshdata.services.registry import registry_address
from freshdata.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient

Result = TypeVar("Result")
TIMEOUT_SECONDS = 10
NO_SUBJECT, NO_VERSION, NO_SCHEMA = 40401, 40402, 40403
# Binary junk names an id a message. When so many were unknown within these seconds, no other is asked for.
REFUSED_SECONDS = 10.0
MOST_REFUSED = 1000

logger = logging.getLogger(__name__)


class SchemaRegistry:
    """The instance's schema registry.

    Schemas are kept in memory and in the instance's folder: whoever reads messages goes on without the registry, with
    the schemas that were asked for before.

    Attributes:
        url: Address of its Confluent-compatible API.
    """

    def __init__(self, url: str, config: dict[str, str], cache: Path) -> None:
        self.url = url
        self._config = config
        self._cache = cache
        self._known: dict[int, Schema] = {}
        self._refused: dict[int, float] = {}  # Ids, and when the registry said that there is no such schema.
        self._opened: SchemaRegistryClient | None = None

    def schema(self, schema_id: int) -> Schema:
        """The schema of an id.

        Raises:
            SchemaError: the registry says, or said a moment ago, that there is none; or there is none of so many other
                ids that this one is not asked for.
            RegistryDownError: it is not known yet, and the registry does not answer.
        """
        if schema_id not in self._known:
            path = self._cache / f"{schema_id}.json"
            stored = read_json(path)
            schema = (
                Schema(**stored | {"references": tuple(stored["references"])}) if stored else self._fetch(schema_id)
            )
            if not stored:
                write_json(path, asdict(schema))
            self._known[schema_id] = schema
        return self._known[schema_id]

    def register(self, subject: str, kind: str, text: str) -> int:
        """Register a schema, unless the subject has it already; its id.

        Raises:
            RegistryError: the registry refuses it.
            RegistryDownError: the registry does not answer.
        """
        return int(self._ask(lambda client: client.register_schema(subject, _document(kind, text))))

    def latest(self, subject: str) -> tuple[int, str] | None:
        """Id and document of a subject's latest schema, or None.

        Raises:
            RegistryDownError: the registry does not answer.
        """
        try:
            found = self._ask(lambda client: client.get_latest_version(subject))
        except RegistryError as error:
            if error.code in (NO_SUBJECT, NO_VERSION):
                return None
            raise
        return int(found.schema_id), str(found.schema.schema_str)

    def set_compatibility(self, subject: str, mode: str) -> None:
        """Have the registry judge a subject's next schemas by a mode.

        Raises:
            RegistryError: it knows no such mode.
            RegistryDownError: the registry does not answer.
        """
        self._ask(lambda client: client.set_compatibility(subject, mode))

    def _fetch(self, schema_id: int) -> Schema:
        now = time.monotonic()
        while self._refused and now - next(iter(self._refused.values())) >= REFUSED_SECONDS:
            del self._refused[next(iter(self._refused))]
        if schema_id in self._refused:
            raise self._no_schema(schema_id)
        if len(self._refused) >= MOST_REFUSED:
            message = f"is not asked for: of {MOST_REFUSED:,} others in {REFUSED_SECONDS:.0f} seconds there was none."
            raise SchemaError(schema_id, message, remedy="Stop who sends other bytes than events, and replay it.")
        try:
            found = self._ask(lambda client: client.get_schema(schema_id))
            references = self._ask(lambda client: _referred(client, found, []))
        except RegistryError as error:
            if error.code != NO_SCHEMA:
                raise RegistryDownError(self.url, error.message) from error
            self._refused[schema_id] = now
            raise self._no_schema(schema_id) from error
        logger.info("schema id=%d type=%s fetched from %s", schema_id, found.schema_type, self.url)
        return Schema(schema_id, str(found.schema_type), str(found.schema_str), tuple(references))

    def _no_schema(self, schema_id: int) -> SchemaError:
        message = f"is in no registry: {self.url} says so."
        return SchemaError(schema_id, message, remedy="Send it by a registered schema.")

    def _ask(self, question: "Callable[[SchemaRegistryClient], Result]") -> Result:
        client = self._client()
        from confluent_kafka.schema_registry.error import OAuthTokenError, SchemaRegistryError
        from httpx import HTTPError

        try:
            return question(client)
        except SchemaRegistryError as error:
            # Without a code of its own it is another server's answer, or a proxy's, or the registry's own failure.
            if error.http_status_code >= 500 or (error.error_code or -1) < 0:
                raise RegistryDownError(self.url, str(error)) from error
            raise RegistryError(self.url, int(error.error_code), str(error.error_message)) from error
        except (HTTPError, OSError, OAuthTokenError) as error:
            raise RegistryDownError(self.url, f"{type(error).__name__}: {error}") from error

    def _client(self) -> "SchemaRegistryClient":
        if self._opened is None:
            with warnings.catch_warnings(
                record=True
            ):  # A dependency of it warns of another, at import, whatever the filter.
                from confluent_kafka.schema_registry import SchemaRegistryClient

            own = {"url": self.url, "timeout": TIMEOUT_SECONDS, "max.retries": 0}
            try:
                self._opened = SchemaRegistryClient(own | self._config)
            except (ValueError, TypeError, OSError) as error:
                raise ConfigError(
                    f"The schema registry cannot be used as it is configured: {error}.",
                    remedy="Correct FRESHDATA_SCHEMA_REGISTRY_URL or FRESHDATA_SCHEMA_REGISTRY_CONFIG.",
                ) from error
        return self._opened


def open_registry(settings: Settings) -> SchemaRegistry | None:
    """The registry that is configured, else the instance's own, be it down; None when there is none."""
    url = registry_address(settings)
    if url is None:
        return None
    # An instance's own may come back on another port, and is the same.
    name = hashlib.sha256(url.encode()).hexdigest()[:12] if settings.schema_registry_url else "local"
    config = {key: secret.get_secret_value() for key, secret in settings.schema_registry_config.items()}
    return SchemaRegistry(url, config, settings.home / "schemas" / name)


def schema_source(settings: Settings) -> Callable[[int], Schema] | None:
    """What gives the schemas that messages name; None where there is no registry."""
    registry = open_registry(settings)
    return registry.schema if registry else None


def _document(kind: str, text: str) -> Any:
    from confluent_kafka.schema_registry import Schema as Document

    return Document(text, kind)


def _referred(client: "SchemaRegistryClient", document: Any, found: list[str]) -> list[str]:
    for reference in document.references or []:
        named = client.get_version(reference.subject, reference.version).schema
        _referred(client, named, found)
        found.append(str(named.schema_str))
    return found
