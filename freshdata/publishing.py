"""Publish a version of a contract: judged, registered, and then made its table's.

In this order, so that nothing is half done: what is refused, by the rules or by the registry, has changed no table; and
when the table could not be changed after the schema was registered, the same publication again completes it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pyiceberg.catalog import Catalog

from freshdata.contracts import Contract
from freshdata.contracts.avro_schema import avro_schema
from freshdata.contracts.evolution import Change, compare, refuse_breaking, renames
from freshdata.contracts.json_schema import DRAFT, json_schema
from freshdata.errors import RegistryError
from freshdata.lake.catalog import ensure_stream_tables
from freshdata.lake.publication import earlier_contracts, followed_contract, published_contract
from freshdata.registry import SchemaRegistry, open_registry
from freshdata.settings import Settings
from freshdata.transform.consumers import consumers, models_by


@dataclass(frozen=True)
class Publication:
    """What publishing a contract changes, or has changed.

    Attributes:
        contract: The contract.
        published: The contract that is, or was, published before it; None for a first one.
        changes: The differences; of those that are refused the reason names the models' columns they would break.
        schema: Id of its schema in the registry; None where there is no registry, and before it is published.
    """

    contract: Contract
    published: Contract | None
    changes: list[Change]
    schema: int | None = None

    @property
    def allowed(self) -> bool:
        """Whether it may be published."""
        return all(change.compatible for change in self.changes)


def plan_publication(settings: Settings, catalog: Catalog, contract: Contract) -> Publication:
    """What publishing a contract would change."""
    if not catalog.table_exists(contract.table):
        return Publication(contract, None, [])
    table = catalog.load_table(contract.table)
    published = published_contract(table)
    if published is None:
        return Publication(contract, None, [])
    changes = compare(published, contract, earlier_contracts(table))
    return Publication(contract, published, _with_consumers(settings, published, contract, changes))


def publish_contract(
    settings: Settings, catalog: Catalog, contract: Contract, contracts: dict[str, Contract]
) -> Publication:
    """Publish a contract; once more is no change.

    Args:
        settings: The instance.
        catalog: Its catalog.
        contract: The contract.
        contracts: All contracts by name.

    Raises:
        EvolutionError: it would break what is stored, sent or made from it.
        RegistryError: the registry refuses its schema.
        RegistryDownError: the registry does not answer. Nothing is published.
        LakeError: the table could not be changed; the schema may be registered.
    """
    plan = plan_publication(settings, catalog, contract)
    if plan.published:
        refuse_breaking(plan.published, contract, plan.changes)
    registry = open_registry(settings)
    # The schemas of a database's changes are Debezium's to register.
    schema = _register(registry, contract, plan.published) if registry and not contract.rules.capture else None
    bronze, _ = ensure_stream_tables(catalog, contract, contracts)
    followed = followed_contract(bronze, contract)
    if followed is not contract:
        # Somebody has published a newer version since it was compared.
        refuse_breaking(followed, contract, compare(followed, contract))
    return replace(plan, schema=schema)


def subject_of(contract: Contract) -> str:
    """The subject that a stream's schemas are registered under, by Confluent's usual strategy."""
    return f"{contract.rules.topic}-value"


def registered_schema(contract: Contract) -> tuple[str, str]:
    """Type and document of a contract's schema.

    Raises:
        ContractError: a field has no such schema.
    """
    if contract.rules.schema_format == "json":
        return "JSON", json.dumps({"$schema": DRAFT} | json_schema(contract))
    return "AVRO", json.dumps(avro_schema(contract))


def _register(registry: SchemaRegistry, contract: Contract, published: Contract | None) -> int:
    kind, text = registered_schema(contract)
    subject = subject_of(contract)
    registry.set_compatibility(subject, contract.rules.compatibility)
    try:
        return registry.register(subject, kind, text)
    except RegistryError:
        if published:
            registry.set_compatibility(subject, published.rules.compatibility)
        raise


def _with_consumers(settings: Settings, published: Contract, contract: Contract, changes: list[Change]) -> list[Change]:
    """The changes; of those that break the models' columns the reason says which."""
    former = {new: old for old, new in renames(published, contract).items()}
    known = {column.name for column in published.columns}

    def column(change: Change) -> str | None:
        name = former.get(change.field, change.field)
        return name if name in known and (not change.compatible or change.field in former) else None

    touched = {name for change in changes if (name := column(change))}
    if not touched:
        return changes
    models = models_by(settings, published)
    users = {name: consumers(models, published.table, name) for name in touched}
    return [_told(change, users.get(column(change) or "", []), former) for change in changes]


def _told(change: Change, users: list[str], former: Mapping[str, str]) -> Change:
    if not users:
        return change
    told = f"{change.reason}; made from it are {', '.join(users)}"
    if change.compatible and change.rule == "renamed" and change.field in former:
        # The column has gone from the table once it is published: the models must not need it any more.
        return replace(change, reason=f"{told}: change these models first", compatible=False, breaks=("storage",))
    return replace(change, reason=told) if not change.compatible else change
