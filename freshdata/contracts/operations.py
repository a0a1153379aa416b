"""Read and check which of a stream's events insert, update and delete a row, where its contract says so."""

from typing import Any

import pyarrow as pa

from freshdata.contracts.model import Column, Operations
from freshdata.errors import ContractError

KINDS = ("insert", "update", "delete")
FORM = "Write {field: FIELD, insert: [VALUE], update: [VALUE], delete: [VALUE], deleteMode: hard|soft}."


def read_operations(file: str, given: Any, columns: dict[str, Column]) -> Operations | None:
    """A stream's operations; None when the contract says nothing of them.

    Args:
        file: What complaints are about.
        given: The ``operations`` property.
        columns: The stream's own fields by name.

    Raises:
        ContractError: the property has another form, its field is no required string with an enum, or the operations
            are not exactly the enum's values, each once.
    """
    if given is None:
        return None
    if not isinstance(given, dict) or not {"field", "delete"} <= given.keys() <= {"field", "deleteMode", *KINDS}:
        raise ContractError(file, f"operations is {given!r}.", remedy=FORM)
    values = {kind: given.get(kind, []) for kind in KINDS}
    for kind, listed in values.items():
        if not isinstance(listed, list) or any(not isinstance(value, str) for value in listed):
            raise ContractError(file, f"operations.{kind} is {listed!r}.", remedy=f"Quote its values. {FORM}")
    if (mode := given.get("deleteMode", "hard")) not in ("hard", "soft"):
        raise ContractError(file, f"operations.deleteMode is {mode!r}.", remedy="Use hard or soft.")
    column = columns.get(given["field"]) if isinstance(given["field"], str) else None
    if column is None or not column.required or column.type != pa.string():
        raise ContractError(
            file,
            f"operations.field is {given['field']!r}, which is no required string.",
            remedy="Name a field of schema.properties with physicalType: string and required: true.",
        )
    named = sorted(value for listed in values.values() for value in listed)
    if named != sorted(column.enum) or not values["delete"]:
        # An operation that nobody has named would count as a row that is there.
        raise ContractError(
            file,
            f"operations names {', '.join(named)}, the enum of {column.name} {', '.join(map(str, column.enum))}.",
            remedy="List each value of the field's enum once, under insert, update or delete.",
        )
    insert, update, delete = (tuple(values[kind]) for kind in KINDS)
    return Operations(column.name, insert, update, delete, mode)
