"""The contract of a captured table, written from what the database says, and kept up with it."""

import re
from typing import Any

from freshdata.cdc.inspection import SourceColumn, SourceTable
from freshdata.cdc.source import Source
from freshdata.cdc.types import field_type
from freshdata.contracts.loader import IDENTIFIER
from freshdata.errors import CaptureError

# Bronze's own.
TAKEN = ("ingestion_date", "ingestion_hour")
LONGEST_NAME = 63


def contract_name(source: Source, table: SourceTable) -> str:
    """The name of a table's contract.

    Raises:
        CaptureError: it would be too long.
    """
    parts = [source.name, *([] if table.schema == "public" else [table.schema]), table.name]
    name = "_".join(_safe(part) for part in parts)
    if not IDENTIFIER.fullmatch(name):
        raise CaptureError(
            source.name,
            [f"the contract of {table.full_name} would be named {name!r}, which is no name"],
            remedy="Give the source a shorter name with --name.",
        )
    return name


def new_document(source: Source, table: SourceTable) -> dict[str, Any]:
    """A table's contract as an ODCS document."""
    name = contract_name(source, table)
    capture = {"source": source.name, "table": table.full_name, "deletes": "hard"}
    return {
        "apiVersion": "v3.2.0",
        "kind": "DataContract",
        "id": f"urn:freshdata:{source.name}:{name}",
        "name": name,
        "version": "1.0.0",
        "status": "active",
        "domain": source.name,
        "description": {"purpose": f"The table {table.full_name} of the database {source.address['dbname']}."},
        "schema": [
            {
                "name": name,
                "physicalName": table.full_name,
                "logicalType": "object",
                "description": table.comment or f"Rows of {table.full_name}, and every change of them.",
                "customProperties": [
                    {"property": "changeCapture", "value": capture},
                    {"property": "topic", "value": source.topic(table.full_name)},
                ],
                "properties": list(_properties(source, table).values()),
            }
        ],
        "team": {"name": source.name},
        "slaProperties": [{"property": "freshness", "value": 1, "unit": "d"}],
    }


def followed_document(document: dict[str, Any], source: Source, table: SourceTable) -> dict[str, Any]:
    """A contract that exists, brought up to its table; equal to what was given when nothing has changed.

    What people wrote there stays. A new column comes last, and a wider type is taken over; where the table has become
    narrower, and where a column is gone, the contract stays as wide as the rows that Bronze has of before. Each change
    is a new minor version.
    """
    (schema,) = document["schema"]
    found = _properties(source, table)
    properties = []
    for old in schema["properties"]:
        new = found.pop(old.get("physicalName", old["name"]), None)
        if new is None:
            properties.append(old | ({"required": False} if old.get("required") else {}))
            continue
        properties.append(_followed(old, new))
    properties += ({key: value for key, value in new.items() if key != "required"} for new in found.values())
    if properties == schema["properties"]:
        return document
    first, second, *_ = [*str(document["version"]).split("."), "0"]
    return {
        **document,
        "version": f"{first}.{int(second) + 1}.0",
        "schema": [schema | {"properties": properties}],
    }


def _followed(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A property brought up to its column, never narrower than it was."""
    found = old | {key: new[key] for key in ("logicalType", "physicalType", "enum") if key in new}
    if _narrower(new["physicalType"], old["physicalType"]):
        found["physicalType"] = old["physicalType"]
    if not new.get("required"):
        found.pop("required", None)
    longest = [given.get("logicalTypeOptions", {}).get("maxLength") for given in (old, new)]
    if longest[0] is not None:
        options = old["logicalTypeOptions"] | {"maxLength": max(longest)} if longest[1] else {}
        found["logicalTypeOptions"] = options
    return found


def _narrower(new: str, old: str) -> bool:
    """Whether a type holds only some of the values that another one holds."""
    decimals = [re.fullmatch(r"decimal\((\d+),(\d+)\)", name) for name in (new, old)]
    if all(decimals):
        (digits, scale), (before, scale_before) = (match.groups() for match in decimals if match)
        return scale == scale_before and int(digits) < int(before)
    return (new, old) == ("int", "bigint")


def _properties(source: Source, table: SourceTable) -> dict[str, dict[str, Any]]:
    """ODCS properties by the column's name in the database."""
    found: dict[str, dict[str, Any]] = {}
    names: dict[str, str] = {}
    for column in table.columns:
        if f"{table.full_name}.{column.name}" in source.without:
            continue
        name = _safe(column.name)
        if len(name) > LONGEST_NAME or (other := names.setdefault(name, column.name)) != column.name:
            raise CaptureError(
                source.name,
                [f"the columns {other} and {column.name} of {table.full_name} would both be named {name}"],
                remedy=f"Rename one, or leave it out: --without {table.full_name}.{column.name}",
            )
        found[column.name] = _property(column, name, table.key)
    return found


def _property(column: SourceColumn, name: str, key: list[str]) -> dict[str, Any]:
    kind = field_type(column)
    found: dict[str, Any] = {"name": name}
    if name != column.name:
        found["physicalName"] = column.name
    if column.comment:
        found["description"] = column.comment
    found |= {"logicalType": kind.logical, "physicalType": kind.physical}
    if kind.options:
        found["logicalTypeOptions"] = kind.options
    if kind.enum:
        found["enum"] = [{"value": value} for value in kind.enum]
    if column.required:
        found["required"] = True
    if column.name in key:
        found |= {"primaryKey": True, "primaryKeyPosition": key.index(column.name) + 1}
    return found


def _safe(name: str) -> str:
    """A name in lower case letters, digits and underscores that begins with a letter: ``giftWrap`` is ``gift_wrap``."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    safe = re.sub(r"[^a-z0-9_]+", "_", words)
    if not safe[:1].isalpha():
        safe = f"c{safe}" if safe.startswith("_") else f"c_{safe}"
    return f"{safe}_" if safe in TAKEN else safe
