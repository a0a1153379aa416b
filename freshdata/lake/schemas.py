"""Compare a table's columns with those that it should have."""

from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.types import NestedField

from freshdata.contracts.evolution import widens
from freshdata.lake.publication import iceberg_schema

ABSENT = "no such column"


@dataclass(frozen=True)
class Difference:
    """A column that is not as it should be.

    Attributes:
        column: Its name.
        expected: Its type, and whether it allows null, as they should be; ``no such column`` for one that is too many.
        found: The same as they are.
    """

    column: str
    expected: str
    found: str

    @property
    def harmless(self) -> bool:
        """Whether whoever reads the columns that should be there gets what they should get: one is too many."""
        return self.expected == ABSENT


def differences(schema: Schema, expected: pa.Schema, *, null_allowed: bool = False) -> list[Difference]:
    """What is different about a table's columns; none when it has all of them, and no others, in any order.

    Args:
        schema: The table's columns.
        expected: The columns that it should have.
        null_allowed: Whether a column that should be required may allow null: one that a table has gained always does.
    """
    found = {field.name: field for field in schema.fields}
    wanted = {field.name: field for field in iceberg_schema(expected).fields}
    return [
        *(
            Difference(name, _text(field), _text(found.get(name)))
            for name, field in wanted.items()
            if name not in found or not _fits(found[name], field, null_allowed=null_allowed)
        ),
        *(Difference(name, ABSENT, _text(field)) for name, field in found.items() if name not in wanted),
    ]


def unfit(schema: Schema, promised: pa.Schema) -> list[Difference]:
    """The columns that cannot hold all values of the column of their name in another schema.

    Args:
        schema: A table's columns.
        promised: The other schema, whose columns the table need not have.
    """
    found, wanted = arrow_types(schema), iceberg_schema(promised)
    return [
        Difference(name, str(wanted.find_type(name)), str(schema.find_type(name)))
        for name, kind in arrow_types(wanted).items()
        if name in found and not widens(kind, found[name])
    ]


def arrow_types(schema: Schema) -> dict[str, pa.DataType]:
    """Column to its type in Arrow; types of one name are the same there, whatever ids their parts have."""
    return {field.name: field.type for field in schema.as_arrow()}


def _fits(found: NestedField, wanted: NestedField, *, null_allowed: bool) -> bool:
    if arrow_types(Schema(found)) != arrow_types(Schema(wanted)):
        return False
    return found.required == wanted.required or (null_allowed and wanted.required)


def _text(field: NestedField | None) -> str:
    if field is None:
        return ABSENT
    return f"{field.field_type}, {'required' if field.required else 'optional'}"
