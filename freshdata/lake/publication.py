"""The contract a table goes by: published in the table itself, in the commit that brings its columns up to it.

Publications that run at once are told apart by the table's schema: each one changes it, if only by naming the version
in a column's comment, and asks the catalog that nobody has changed it since. (A table property alone would be set
blindly: the second of two publications would overwrite the first.) Who loses compares again, with what is published by
then. Commits of rows go on meanwhile; an old file is never touched, and reads as null where it lacks a column.
"""

import base64
import hashlib
import json
import random
import time
import zlib
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException
from pyiceberg.io.pyarrow import _pyarrow_to_schema_without_ids
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.table import Table
from pyiceberg.table.sorting import NullOrder
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import DecimalType, IcebergType, IntegerType, ListType, LongType, NestedField

from freshdata.contracts import Contract
from freshdata.contracts.evolution import REMEDY, compare, refuse_breaking, renames
from freshdata.contracts.loader import contract_text, parse_contract, version_key
from freshdata.errors import EvolutionError, LakeError

CONTRACT_PROPERTY = "freshdata.contract"
VERSION_PROPERTY = "freshdata.contract-version"
# A short name of the document's contents, by which a worker sees cheaply that there is another one.
ID_PROPERTY = "freshdata.contract-id"
# The versions before, oldest first, packed: they differ little, so a hundred of them take a few kilobytes.
HISTORY_PROPERTY = "freshdata.contract-history"
MARKED_COLUMN = "_kafka_partition"
ATTEMPTS = 20
FIRST_DELAY_SECONDS = 0.02
LONGEST_DELAY_SECONDS = 1.0


def published_contract(table: Table) -> Contract | None:
    """The contract that is published in a Bronze table, or None.

    Raises:
        ContractError: it is not one that this version of the program can read.
    """
    text = table.properties.get(CONTRACT_PROPERTY)
    return parse_contract(".".join(table.name()), text) if text else None


def earlier_contracts(table: Table) -> list[Contract]:
    """The versions that were published in a Bronze table before the one that is, oldest first.

    Raises:
        ContractError: one is not what this version of the program can read.
    """
    return [parse_contract(".".join(table.name()), text) for text in _history(table)]


def renamed_columns(table: Table) -> dict[str, str]:
    """Former names of a table's columns, and what each is called now."""
    now = {field.field_id: field.name for field in table.schema().fields}
    return {
        field.name: now[field.field_id]
        for schema in table.schemas().values()
        for field in schema.fields
        if field.name not in now.values() and field.field_id in now
    }


def followed_contract(table: Table, own: Contract) -> Contract:
    """The contract a stream goes by: what its table says, or one's own as long as nothing is published.

    Args:
        table: The stream's Bronze table.
        own: The contract of the project's folder.
    """
    published = None if table.properties.get(ID_PROPERTY) == _contract_id(own) else published_contract(table)
    # A table that is rebuilt beside the live one has another name, and the live one's contract.
    return replace(published, name=own.name) if published else own


def publish(table: Table, contract: Contract, schema: pa.Schema) -> None:
    """Publish a contract in its Bronze table, with the columns it has gained; once more is no change.

    A contract whose version is older than the published one's is not published, and nothing happens.

    Args:
        table: The table; refreshed in place.
        contract: The contract.
        schema: The table's columns as the contract wants them.

    Raises:
        EvolutionError: it would break what is stored or sent.
        LakeError: the catalog kept refusing.
    """
    wanted = iceberg_schema(schema)

    def attempt() -> None:
        same = table.properties.get(ID_PROPERTY) == _contract_id(contract)
        published = None if same else published_contract(table)
        if published:
            if version_key(contract.version) < version_key(published.version):
                return
            refuse_breaking(published, contract, compare(published, contract, earlier_contracts(table)))
        renamed = renames(published, contract) if published else {}
        _refuse_misfits(table, contract, wanted, renamed)
        if not same or _outdated(table, wanted):
            _write(table, contract, wanted, renamed)

    _until_taken(table, attempt)


def add_columns(table: Table, schema: pa.Schema) -> None:
    """Add the columns that a table lacks, as optional ones.

    Raises:
        LakeError: the catalog kept refusing.
    """
    wanted = iceberg_schema(schema)

    def attempt() -> None:
        if added := _lacking(table, wanted):
            with table.update_schema() as update:
                for field in added:
                    update.add_column(field.name, field.field_type, required=False)

    _until_taken(table, attempt)


def iceberg_schema(schema: pa.Schema) -> Schema:
    """An Arrow schema as Iceberg's, with field ids of its own."""
    return assign_fresh_schema_ids(_pyarrow_to_schema_without_ids(schema))


def _contract_id(contract: Contract) -> str:
    return hashlib.sha256(contract_text(contract).encode()).hexdigest()[:16]


def _history(table: Table) -> list[str]:
    packed = table.properties.get(HISTORY_PROPERTY)
    texts: list[str] = json.loads(zlib.decompress(base64.b64decode(packed))) if packed else []
    return texts


def _lacking(table: Table, wanted: Schema) -> list[NestedField]:
    return [field for field in wanted.fields if field.name not in table.schema().column_names]


def _outdated(table: Table, wanted: Schema) -> bool:
    """Whether the table lacks a column, or has one too narrow: a lookup's may widen without the stream's contract."""
    stored = {field.name: field.field_type for field in table.schema().fields}
    return any(field.name not in stored or not _same(stored[field.name], field.field_type) for field in wanted.fields)


def _refuse_misfits(table: Table, contract: Contract, wanted: Schema, renamed: dict[str, str]) -> None:
    """Refuse a contract whose columns the table has with other types, from whatever source they came."""
    names = set(table.schema().column_names)
    misfits = [
        f"{new}: renamed: the table has a column of this name already" for new in renamed.values() if new in names
    ]
    stored = {renamed.get(field.name, field.name): field.field_type for field in table.schema().fields}
    misfits += [
        f"{field.name}: type: the table has {stored[field.name]}, the contract {field.field_type}"
        for field in wanted.fields
        if field.name in stored and not _widens(stored[field.name], field.field_type)
    ]
    if misfits:
        published = table.properties.get(VERSION_PROPERTY, "the table's columns")
        raise EvolutionError(
            contract.name, published, contract.version, misfits, remedy=REMEDY.format(name=contract.name)
        )


def _widens(stored: IcebergType, wanted: IcebergType) -> bool:
    if isinstance(stored, DecimalType) and isinstance(wanted, DecimalType):
        return stored.scale == wanted.scale and stored.precision <= wanted.precision
    return _same(stored, wanted) or (isinstance(stored, IntegerType) and isinstance(wanted, LongType))


def _same(stored: IcebergType, wanted: IcebergType) -> bool:
    """Whether two types are one, whatever ids their parts have."""
    if isinstance(stored, ListType) and isinstance(wanted, ListType):
        return stored.element_type == wanted.element_type
    return stored == wanted


def _write(table: Table, contract: Contract, wanted: Schema, renamed: dict[str, str]) -> None:
    identity = _contract_id(contract)
    needed = {field.name: field for field in wanted.fields}
    with table.transaction() as transaction:
        with transaction.update_schema() as update:
            for field in _lacking(table, wanted):
                if field.name not in renamed.values():
                    update.add_column(field.name, field.field_type, required=False)
            for stored in table.schema().fields:
                need = needed.get(renamed.get(stored.name, stored.name))
                if need is not None and not _same(stored.field_type, need.field_type):
                    update.update_column(stored.name, need.field_type)
                if stored.required and (need is None or need.optional):
                    update.make_column_optional(stored.name)
            for old, new in renamed.items():
                update.rename_column(old, new)
            update.update_column(MARKED_COLUMN, doc=f"Kafka partition; contract {contract.version} ({identity})")
        schema, order = table.schema(), [*contract.rules.clustering, contract.rules.event_time_field]
        sorted_by = [schema.find_column_name(field.source_id) or "" for field in table.sort_order().fields]
        if [renamed.get(name, name) for name in sorted_by] != order:
            with transaction.update_sort_order() as sorting:
                for name in order:
                    sorting.asc(name, IdentityTransform(), NullOrder.NULLS_FIRST)
        published = table.properties.get(CONTRACT_PROPERTY)
        if published and table.properties.get(VERSION_PROPERTY) != contract.version:
            history = json.dumps([*_history(table), published])
            packed = base64.b64encode(zlib.compress(history.encode(), 9)).decode()
            transaction.set_properties({HISTORY_PROPERTY: packed})
        transaction.set_properties(
            {
                CONTRACT_PROPERTY: contract_text(contract),
                VERSION_PROPERTY: contract.version,
                ID_PROPERTY: identity,
            }
        )


def _until_taken(table: Table, attempt: Callable[[], None]) -> None:
    """Try until no other commit comes between; each attempt looks at the table as it is by then."""
    delay = FIRST_DELAY_SECONDS
    failure: Exception | None = None
    for _ in range(ATTEMPTS):
        try:
            attempt()
        except (CommitFailedException, CommitStateUnknownException) as error:
            failure = error
        else:
            return
        # By chance, or two that collide once would collide each time.
        time.sleep(delay * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
        delay = min(delay * 2, LONGEST_DELAY_SECONDS)
        table.refresh()
    raise LakeError(
        ".".join(table.name()),
        f"the catalog refused a change of its columns {ATTEMPTS} times, last with: {failure}.",
        remedy="Check that the catalog is reachable, and try again.",
    ) from failure
