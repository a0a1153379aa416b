"""Read and check which webhooks a stream takes, and how their payloads become its events."""

import re
from typing import Any

from freshdata.contracts.model import Column, Webhook
from freshdata.errors import ContractError

SENDER = re.compile(r"[a-z][a-z0-9_-]{0,62}")
SOURCE = re.compile(r"received|body(\.[A-Za-z0-9_-]+)*|header\.[A-Za-z0-9-]+")
SIGNATURES = ("stripe", "github")
FORM = "Write {SENDER: {signature: stripe|github, fields: {FIELD: SOURCE}}}."


def read_webhooks(file: str, given: Any, columns: dict[str, Column], tenant_field: str) -> dict[str, Webhook]:
    """A stream's webhooks by sender; none when the contract says nothing of them.

    Args:
        file: What complaints are about.
        given: The ``webhooks`` property.
        columns: The stream's own fields by name.
        tenant_field: The field that is filled in with the tenant whose secret signed.

    Raises:
        ContractError: the property has another form, or a sender's fields are none of the stream's, or lack one that
            is required.
    """
    if not isinstance(given or {}, dict):
        raise ContractError(file, f"webhooks is {given!r}.", remedy=FORM)
    return {name: _webhook(file, name, value, columns, tenant_field) for name, value in (given or {}).items()}


def _webhook(file: str, name: Any, given: Any, columns: dict[str, Column], tenant_field: str) -> Webhook:
    if not isinstance(name, str) or not SENDER.fullmatch(name):
        raise ContractError(
            file, f"webhooks names the sender {name!r}.", remedy="Use lower case letters, digits, - and _."
        )
    fields = given.get("fields") if isinstance(given, dict) else None
    if not isinstance(fields, dict) or given.keys() != {"signature", "fields"} or given["signature"] not in SIGNATURES:
        raise ContractError(file, f"webhooks.{name} is {given!r}.", remedy=FORM)
    for field, source in fields.items():
        if field not in columns or field == tenant_field:
            raise ContractError(
                file,
                f"webhooks.{name} fills in the field {field!r}.",
                remedy=f"Name fields of the contract other than {tenant_field}: that one is whose secret signed.",
            )
        if not isinstance(source, str) or not SOURCE.fullmatch(source):
            raise ContractError(
                file,
                f"webhooks.{name}.{field} comes from {source!r}.",
                remedy="Use body, body.PATH.TO.VALUE, header.NAME or received.",
            )
    required = {column.name for column in columns.values() if column.required} - {tenant_field}
    if lacking := sorted(required - fields.keys()):
        raise ContractError(
            file, f"webhooks.{name} lacks {', '.join(lacking)}.", remedy="Say where each required field comes from."
        )
    return Webhook(given["signature"], dict(fields))
