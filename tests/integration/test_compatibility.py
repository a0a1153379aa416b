# ruff: noqa: E501 (tables of texts)
"""The table of changes and modes against what the registry and Iceberg really accept."""

import uuid

import pytest

from freshdata.contracts.evolution import compare
from freshdata.errors import EvolutionError, RegistryError
from freshdata.lake.catalog import ensure_stream_tables, open_catalog
from freshdata.publishing import registered_schema
from freshdata.registry import open_registry
from tests.unit.contracts.test_compatibility import CHANGES, version

pytestmark = pytest.mark.integration
__all__ = ["version"]
MODES = ("BACKWARD", "FORWARD", "FULL", "NONE")
# What Avro does not know of, and the registry therefore lets pass in every mode.
BEYOND_AVRO = {
    "a limit widens", "a limit narrows", "texts may be longer", "a pattern goes", "a pattern comes", "a pattern changes",
    "a decimal gains digits",
    # It compares the bytes that a decimal is written as, not what they mean. Iceberg's own check lets the scale pass, too.
    "a decimal loses digits", "a decimal has another scale",
    "a name is another field's",
}  # fmt: skip
STRICTER = {(name, mode) for name in BEYOND_AVRO for mode in MODES} | {
    # Old files and columns cannot be read so, whatever a message can.
    ("int becomes double", "BACKWARD"), ("double becomes timestamp_ntz", "FORWARD"),
    # An event with a field that is known no more goes to quarantine; Avro passes it over.
    ("an optional field is removed", "BACKWARD"), ("an optional field is removed", "FULL"),
    ("a required field is removed", "BACKWARD"),
    # The older names are lost, or the older readers see null.
}  # fmt: skip
# What Avro cannot read, and what Apicurio cannot show to be right of a JSON Schema, though the worker could read it.
LOOSER = {
    "avro": {("an enum goes", "BACKWARD"), ("an enum comes", "FORWARD")},
    "json": {
        ("an optional field is added", "FORWARD"), ("an optional field is added", "FULL"), ("a required field is added", "FORWARD"),
        ("a field is renamed", "BACKWARD"), ("only the events rename it", "BACKWARD"), ("a decimal gains digits", "BACKWARD"),
        ("an enum goes", "BACKWARD"), ("an enum comes", "FORWARD"),
    },
}  # fmt: skip


@pytest.mark.parametrize("schema", ["avro", "json"])
def test_the_registry_agrees_but_for_what_is_known(instance, registry, version, schema):
    client = open_registry(instance.model_copy(update={"schema_registry_url": registry}))
    differences = {}
    for name, (old, new, _) in CHANGES.items():
        for mode in MODES:
            before = version(mode=mode, schema=schema)
            after = version((old, new), number="1.1.0", mode=mode, schema=schema)
            subject = f"{uuid.uuid4().hex}-value"
            client.register(subject, *registered_schema(before))
            client.set_compatibility(subject, mode)
            try:
                client.register(subject, *registered_schema(after))
                theirs = True
            except RegistryError:
                theirs = False
            ours = all(change.compatible for change in compare(before, after))
            if ours != theirs:
                differences[name, mode] = "stricter" if theirs else "looser"
    assert {place for place, kind in differences.items() if kind == "looser"} == LOOSER[schema]
    if schema == "avro":
        assert {place for place, kind in differences.items() if kind == "stricter"} <= STRICTER | {
            (name, "NONE") for name, (_, _, breaks) in CHANGES.items() if "storage" in breaks
        }


def test_a_table_follows_whatever_may_be_published(instance, version):
    """In the mode that allows most."""
    catalog, mode = open_catalog(instance), "NONE"
    for number, (old, new, breaks) in enumerate(CHANGES.values()):
        first = version(mode=mode)
        first = first.__class__(**{**vars(first), "name": f"orders_{number}"})
        ensure_stream_tables(catalog, first, {})
        second = version((old, new), number="1.1.0", mode=mode)
        second = second.__class__(**{**vars(second), "name": f"orders_{number}"})
        allowed = all(change.compatible for change in compare(first, second))
        try:
            bronze, _ = ensure_stream_tables(catalog, second, {})
        except EvolutionError:
            assert not allowed
            continue
        assert allowed
        assert "storage" not in breaks
        columns = bronze.schema().column_names
        assert {column.name for column in second.columns} <= set(columns)
        if old.startswith("name: city") and "name: town" in new:
            assert "city" not in columns
