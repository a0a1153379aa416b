"""The schema registry: schemas by id, cached so that readers go on without it, and messages that name their schema."""

from freshdata.registry.client import SchemaRegistry, open_registry, schema_source
from freshdata.registry.schemas import Schema
from freshdata.registry.wire import framed, unframed

__all__ = ["Schema", "SchemaRegistry", "framed", "open_registry", "schema_source", "unframed"]
