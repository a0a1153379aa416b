"""Messages that name their schema in the Confluent wire format: which reader each one needs."""

from collections.abc import Callable, Sequence
from typing import Any

from freshdata.errors import RegistryDownError, SchemaError, SchemasUnknownError
from freshdata.registry.schemas import Schema, avro_reader
from freshdata.registry.wire import MAGIC, unframed

Schemas = Callable[[int], Schema]
Reader = Callable[[bytes], Any]


class NamedSchemas:
    """Finds the schemas that messages name.

    Args:
        schemas: What gives the schema of an id; None when there is no registry.
    """

    def __init__(self, schemas: Schemas | None) -> None:
        self._schemas = schemas
        self._avro: dict[Reader, Schema] = {}
        # None is JSON, which is judged like a message that names no schema.
        self._readers: dict[int, Reader | None] = {}

    def resolve(
        self, values: Sequence[bytes | None], rejected: list[tuple[int, str]]
    ) -> tuple[Sequence[bytes | None], dict[int, Reader]]:
        """The payloads of messages, and the readers of those that are Avro, by their positions.

        Args:
            values: Message values.
            rejected: Gets the positions and reasons of those that cannot be read.

        Raises:
            SchemasUnknownError: some name schemas that are not known while the registry does not answer.
        """
        named = [position for position, value in enumerate(values) if value and value[0] == MAGIC]
        if not named:
            return values, {}
        payloads = list(values)
        places: dict[int, list[int]] = {}
        for position in named:
            if found := unframed(values[position]):  # Else too short: it is refused as the JSON that it is not.
                schema, payloads[position] = found
                places.setdefault(schema, []).append(position)
        readers: dict[int, Reader] = {}
        waiting: list[int] = []
        down: RegistryDownError | None = None
        # Those that most name come first: binary junk names an id a message, and of too many the registry is not asked.
        for schema, positions in sorted(places.items(), key=lambda place: -len(place[1])):
            try:
                reader = self._reader(schema)
            except SchemaError as error:
                rejected += [(position, error.message) for position in positions]
            except RegistryDownError as error:
                down = error
                waiting += positions
            else:
                readers |= dict.fromkeys(positions, reader) if reader else {}
        if down:
            raise SchemasUnknownError(down, sorted(waiting))
        return payloads, readers

    def _reader(self, schema: int) -> Reader | None:
        if schema not in self._readers:
            self._readers[schema] = self._open(schema)
        return self._readers[schema]

    def _open(self, schema_id: int) -> Reader | None:
        if self._schemas is None:
            message = "is named, and no registry is set."
            raise SchemaError(schema_id, message, remedy="Set FRESHDATA_SCHEMA_REGISTRY_URL.")
        schema = self._schemas(schema_id)
        if schema.type == "JSON":
            return None
        if schema.type != "AVRO":
            raise SchemaError(schema_id, f"is {schema.type}, which is not read.", remedy="Send Avro or JSON.")
        reader = avro_reader(schema)
        self._avro[reader] = schema
        return reader

    def schema_of(self, reader: Reader) -> Schema:
        """The schema that a reader reads by."""
        return self._avro[reader]
