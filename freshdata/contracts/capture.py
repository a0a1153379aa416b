"""Streams that carry the changes of a database's table, as Debezium tells them: what their contracts say and imply."""

import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from freshdata.contracts.model import EXTRA, ChangeCapture, Column, Operations
from freshdata.errors import ContractError

PROPERTY = "changeCapture"
FORM = "Write {source: SOURCE, table: SCHEMA.TABLE, deletes: hard|soft}."
SOURCE = re.compile(r"[A-Za-z0-9._-]{1,100}")
TABLE = re.compile(r"[^.]+\.[^.]+")
# What Bronze adds to the table's own columns. A contract's names begin with a letter, so they never clash.
OPERATION, LSN, TRANSACTION = "_op", "_lsn", "_transaction"
CHANGED_AT, CHANGED_ON, DATABASE = "_changed_at", "_changed_on", "_source"
SNAPSHOT, BEFORE, UNAVAILABLE = "_snapshot", "_before", "_unavailable"
READ, CREATE, UPDATE, DELETE, TRUNCATE = "r", "c", "u", "d", "t"
CHANGE_FIELDS = (
    pa.field(OPERATION, pa.string(), nullable=False),
    pa.field(LSN, pa.int64(), nullable=False),
    pa.field(TRANSACTION, pa.int64()),
    pa.field(CHANGED_AT, pa.timestamp("us", "UTC"), nullable=False),
    pa.field(DATABASE, pa.string(), nullable=False),
    pa.field(SNAPSHOT, pa.bool_(), nullable=False),
    pa.field(BEFORE, pa.string()),
    pa.field(UNAVAILABLE, pa.list_(pa.string())),
)
CHANGE_COLUMNS = {
    field.name: Column(field.name, field.type, not field.nullable, "", (), {}, field.name) for field in CHANGE_FIELDS
}
# All of this follows from what a change is.
IMPLIED = frozenset(
    (
        *("kind", "tenantField", "tenantPartition", "eventTimeField", "eventDateField", "maxFuture", "messageKey"),
        *("topicPartitions", "dedupeKey", "versionField", "unknownFieldPolicy", "operations", "enrichments"),
        *("publishClean", "publishCleanFrom"),
    )
)


@dataclass(frozen=True)
class Captured:
    """What the contract of a change stream says of it.

    Attributes:
        capture: Which table's changes they are.
        operations: What each of its operations does.
        topic: The topic that Debezium writes them to.
    """

    capture: ChangeCapture
    operations: Operations
    topic: str

    @property
    def implied(self) -> dict[str, Any]:
        """The custom properties that follow."""
        return {
            "topic": self.topic,
            "tenantField": DATABASE,
            "tenantPartition": "tenant",
            "eventTimeField": CHANGED_AT,
            "versionField": LSN,
            "unknownFieldPolicy": "keep",
        }


def read_capture(file: str, custom: dict[str, Any]) -> Captured | None:
    """What a contract says of the table whose changes its stream carries; None when it carries events.

    Args:
        file: What complaints are about.
        custom: The contract's custom properties.

    Raises:
        ContractError: the property has another form, or stands beside one whose value it implies.
    """
    given = custom.get(PROPERTY)
    if given is None:
        return None
    if not isinstance(given, dict) or not {"source", "table"} <= given.keys() <= {"source", "table", "deletes"}:
        raise ContractError(file, f"{PROPERTY} is {given!r}.", remedy=FORM)
    source, table, mode = given["source"], given["table"], given.get("deletes", "hard")
    if not SOURCE.fullmatch(str(source)) or not TABLE.fullmatch(str(table)) or mode not in ("hard", "soft"):
        raise ContractError(file, f"{PROPERTY} is {given!r}.", remedy=FORM)
    if clash := sorted(IMPLIED & custom.keys()):
        raise ContractError(file, f"has {clash[0]} beside {PROPERTY}, which implies it.", remedy=f"Remove {clash[0]}.")
    operations = Operations(OPERATION, (CREATE, READ), (UPDATE,), (DELETE, TRUNCATE), mode)
    topic = str(custom.get("topic") or topic_of(source, table))
    return Captured(ChangeCapture(str(source), str(table)), operations, topic)


def topic_of(source: str, table: str) -> str:
    """The topic of a table's changes, as Debezium names it."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", f"{source}.{table}")


def change_schema(columns: tuple[Column, ...]) -> pa.Schema:
    """The columns of changes: the table's, null where a change does not tell them, and what else a change says."""
    own = [pa.field(column.name, column.type) for column in columns]
    return pa.schema([*own, *CHANGE_FIELDS, pa.field(EXTRA, pa.string())])
