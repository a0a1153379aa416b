"""Read and check what becomes of a contract's personal data on the way into Bronze, and whom it is about."""

from typing import Any

import pyarrow as pa
from open_data_contract_standard.model import SchemaProperty

from freshdata.contracts.model import Column, Protection, StreamRules
from freshdata.errors import ContractError

PROTECTIONS: tuple[Protection, ...] = ("hash", "tokenize", "drop")
TEXTS = (pa.string(), pa.int32(), pa.int64())


def read_protection(file: str, item: SchemaProperty, kind: pa.DataType) -> Protection | None:
    """What becomes of a field on the way into Bronze; None when it is stored as it comes.

    Args:
        file: What complaints are about.
        item: The field.
        kind: Its type.

    Raises:
        ContractError: there is no such protection, the field has no classification, or its type cannot be protected so.
    """
    given = {str(each.property): each.value for each in item.customProperties or []}.get("protection")
    if given is None:
        return None
    protection: Protection | None = next((each for each in PROTECTIONS if each == given), None)
    if protection is None:
        raise ContractError(
            file, f"field {item.name}: protection is {given!r}.", remedy=f"Use one of {', '.join(PROTECTIONS)}."
        )
    if not item.classification:
        raise ContractError(
            file,
            f"field {item.name} is protected, but not classified.",
            remedy="Say what it is: classification: personal.",
        )
    if protection != "drop" and kind not in TEXTS:
        raise ContractError(
            file,
            f"field {item.name}: a {kind} cannot be protected by {protection}.",
            remedy="Drop it, or send it as text.",
        )
    return protection


def check_protection(file: str, columns: dict[str, Column], rules: StreamRules) -> None:
    """Refuse protected fields that the platform itself must read.

    Raises:
        ContractError: there is one.
    """
    protected = {column.name: column.protection for column in columns.values() if column.protection}
    if protected and rules.capture is not None:
        raise ContractError(
            file,
            "changes of a database's table carry the row before, too, where no field is protected.",
            remedy="Leave the column out of the capture, or protect it in the database.",
        )
    read: dict[str, Any] = {
        rules.tenant_field: "the tenant",
        rules.event_time_field: "the event time",
        rules.event_date_field: "the event's day",
        rules.version_field or "": "the version",
        rules.operations.field if rules.operations else "": "the operation",
    } | {each.key: "the key of a lookup" for each in rules.enrichments}
    for name, what in read.items():
        if name in protected:
            raise ContractError(
                file, f"field {name} is {what}, which cannot be protected.", remedy="Leave its protection out."
            )
    for name in (*rules.dedupe_key, *rules.clustering):
        if protected.get(name) == "drop":
            raise ContractError(file, f"field {name} is needed in Bronze.", remedy="Hash or tokenize it.")


def read_subject(file: str, given: Any, columns: tuple[Column, ...]) -> str | None:
    """The column that names the person whom a row is about; None when the contract names none.

    Raises:
        ContractError: it is no such column, or Bronze does not have it.
    """
    if given is None:
        return None
    column = next((each for each in columns if each.name == given), None)
    if column is None or column.type not in TEXTS:
        raise ContractError(
            file, f"subjectField is {given!r}.", remedy="Name a field of the contract that is text or a whole number."
        )
    if column.protection == "drop":
        raise ContractError(file, f"field {given} is needed in Bronze.", remedy="Hash or tokenize it.")
    return column.name
