"""Read and check what contracts say of enrichment: the lookups of a stream, and how long a lookup's rows are valid."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from freshdata.contracts.model import Column, Contract, Enrichment, Validity
from freshdata.errors import ContractError

# Columns that Bronze has of its own.
OWN = {"ingestion_date", "ingestion_hour"}
FORM = "Write [{lookup: NAME, key: FIELD, columns: {LOOKUP_COLUMN: BRONZE_COLUMN}}]."
MOMENTS = (pa.date32(), pa.timestamp("us", "UTC"))


def read_enrichments(
    file: str, given: Any, columns: dict[str, Column], event_date: str, identifier: Callable[[str], str]
) -> tuple[Enrichment, ...]:
    """A stream's enrichments.

    Args:
        file: What complaints are about.
        given: The ``enrichments`` property.
        columns: The stream's own fields by name.
        event_date: Its event date column, which may be one that the worker adds.
        identifier: Returns a name that may be a column's, and complains of any other.

    Raises:
        ContractError: an enrichment has another form, has no such key field, or adds a column that there is already.
    """
    taken = {*columns, event_date, *OWN}
    found = []
    for item in given if isinstance(given, list) else [given]:
        if not isinstance(item, dict) or item.keys() != {"lookup", "key", "columns"}:
            raise ContractError(file, f"an enrichment is {item!r}.", remedy=FORM)
        enrichment = Enrichment(**item)
        added: Any = enrichment.columns
        if not isinstance(added, dict) or not added:
            raise ContractError(file, f"an enrichment's columns are {added!r}.", remedy=FORM)
        if enrichment.key not in columns:
            raise ContractError(
                file,
                f"an enrichment's key is {enrichment.key!r}, which is no field.",
                remedy="Name a field of schema.properties as its key.",
            )
        for name in added.values():
            if identifier(str(name)) in taken:
                raise ContractError(
                    file,
                    f"an enrichment adds the column {name}, which there is already.",
                    remedy=f"Give it another name: columns: {{{next(iter(added))}: NEW_NAME}}.",
                )
            taken.add(name)
        found.append(enrichment)
    return tuple(found)


def read_validity(
    file: str, kind: str, custom: dict[str, Any], columns: tuple[Column, ...], primary_key: tuple[str, ...]
) -> Validity | None:
    """Which columns say how long a lookup's row is valid; None when its rows always are.

    Args:
        file: What complaints are about.
        kind: ``stream`` or ``lookup``.
        custom: The schema's custom properties.
        columns: The lookup's fields.
        primary_key: Its primary key.

    Raises:
        ContractError: the properties are not those of a lookup that is keyed by a field and the begin of validity.
    """
    begin, end = custom.get("validFromField"), custom.get("validToField")
    if begin is None and end is None:
        return None
    if kind != "lookup" or begin is None:
        raise ContractError(
            file,
            "has validFromField or validToField, but only a lookup's rows are valid for a time, from a begin on.",
            remedy="Set kind: lookup and validFromField, or remove them.",
        )
    types = {column.name: column.type for column in columns}
    named = [name for name in (begin, end) if name is not None]
    if types.get(begin) not in MOMENTS or len({types.get(name) for name in named}) > 1:
        raise ContractError(
            file,
            f"validity is given by {' and '.join(map(str, named))}, which must be fields of one type, a time.",
            remedy="Name fields whose physicalType is timestamptz, or date: a day begins at midnight UTC.",
        )
    if len(primary_key) != 2 or primary_key[1] != begin or primary_key[0] == end:
        raise ContractError(
            file,
            f"the primary key is ({', '.join(primary_key)}), but each key has a row for each begin of validity.",
            remedy=f"Mark two fields with primaryKey: the key as primaryKeyPosition 1, {begin} as 2.",
        )
    return Validity(begin, end)


def check_enrichments(contracts: dict[str, Contract]) -> None:
    """Check that what streams ask of lookups is there.

    Args:
        contracts: All contracts by name.

    Raises:
        ContractError: there is no such lookup, it lacks a column, or its key is not one of the stream's field's type.
    """
    lookups = {name: contract for name, contract in contracts.items() if contract.kind == "lookup"}
    for contract in contracts.values():
        for enrichment in contract.stream.enrichments if contract.stream else ():
            lookup = lookups.get(enrichment.lookup)
            if lookup is None:
                raise ContractError(
                    contract.name,
                    f"is enriched from {enrichment.lookup!r}, but there is no lookup of this name.",
                    remedy=f"Name one of: {', '.join(lookups)}; or write a contract with kind: lookup.",
                )
            types = {column.name: column.type for column in lookup.columns}
            if missing := [column for column in enrichment.columns if column not in types]:
                raise ContractError(
                    contract.name,
                    f"takes {', '.join(map(str, missing))} from the lookup {lookup.name}, which has no such field.",
                    remedy=f"Choose from: {', '.join(types)}.",
                )
            if len(lookup.primary_key) != (2 if lookup.validity else 1):
                raise ContractError(
                    contract.name,
                    f"is enriched from {lookup.name}, whose primary key is ({', '.join(lookup.primary_key)}).",
                    remedy="Enrich from a lookup with one key field; name the begin of validity as validFromField.",
                )
            key = next(column for column in contract.columns if column.name == enrichment.key)
            if key.type != types[lookup.primary_key[0]]:
                raise ContractError(
                    contract.name,
                    f"field {key.name} is {key.type}, but the key {lookup.primary_key[0]} of {lookup.name} is "
                    f"{types[lookup.primary_key[0]]}.",
                    remedy="Give both fields the same physicalType.",
                )
