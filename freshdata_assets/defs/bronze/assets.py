"""What the stream workers read and write: topics, Bronze, quarantine and lookup tables, as external assets."""

from collections.abc import Iterator

import dagster as dg

from freshdata.contracts import Contract
from freshdata.lake.catalog import QUARANTINE_SCHEMA, bronze_schema
from freshdata_assets.platform import (
    Platform,
    asset_key,
    contract_metadata,
    current_platform,
    freshness_policy,
    owners,
)
from freshdata_assets.schemas import arrow_columns


def external_specs(platform: Platform) -> Iterator[dg.AssetSpec]:
    """The external assets of all contracts."""
    for contract in platform.contracts.values():
        if contract.kind == "lookup":
            yield _lookup(platform, contract)
        else:
            yield _topic(contract, contract.rules.topic, f"Events of {contract.name}, as their producers sent them.")
            yield _bronze(platform, contract)
            yield _quarantine(platform, contract)
            if contract.rules.publish_clean:
                text = f"Accepted events of {contract.name}, each once, with what was looked up for them."
                yield _topic(contract, contract.clean_topic, text, contract.table)


def _topic(contract: Contract, name: str, description: str, *sources: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        _topic_key(name),
        deps=[asset_key(source) for source in sources],
        description=description,
        group_name="topics",
        kinds={"kafka"},
        owners=owners(contract.owner),
        metadata={"freshdata/topic": name, "freshdata/topic_partitions": contract.rules.topic_partitions},
    )


def _topic_key(name: str) -> dg.AssetKey:
    return dg.AssetKey(["topic", name])


def _bronze(platform: Platform, contract: Contract) -> dg.AssetSpec:
    rules = contract.rules
    return dg.AssetSpec(
        asset_key(contract.table),
        deps=[
            _topic_key(rules.topic),
            # The worker looks these up to enrich each event.
            *(asset_key(platform.contracts[enrichment.lookup].table) for enrichment in rules.enrichments),
        ],
        description=f"{contract.description} As received, by ingestion {rules.granularity}.",
        group_name="bronze",
        kinds={"kafka", "iceberg"},
        owners=owners(contract.owner),
        code_version=contract.version,
        partitions_def=platform.calendars[rules.granularity],
        freshness_policy=freshness_policy(rules.freshness),
        metadata={
            "dagster/table_name": contract.table,
            "dagster/column_schema": arrow_columns(bronze_schema(contract, platform.contracts), contract),
            "freshdata/topic": rules.topic,
        }
        | contract_metadata(platform, contract),
    )


def _quarantine(platform: Platform, contract: Contract) -> dg.AssetSpec:
    return dg.AssetSpec(
        asset_key(contract.quarantine_table),
        deps=[_topic_key(contract.rules.topic)],
        description=f"Events of {contract.name} that broke the contract: raw bytes, reason, offset.",
        group_name="quarantine",
        kinds={"kafka", "iceberg"},
        owners=owners(contract.owner),
        metadata={
            "dagster/table_name": contract.quarantine_table,
            "dagster/column_schema": arrow_columns(QUARANTINE_SCHEMA),
            "freshdata/topic": contract.rules.topic,
        }
        | contract_metadata(platform, contract),
    )


def _lookup(platform: Platform, contract: Contract) -> dg.AssetSpec:
    return dg.AssetSpec(
        asset_key(contract.table),
        description=contract.description,
        group_name="lookup",
        kinds={"iceberg"},
        owners=owners(contract.owner),
        code_version=contract.version,
        metadata={
            "dagster/table_name": contract.table,
            "dagster/column_schema": arrow_columns(contract.stored_schema, contract),
        }
        | contract_metadata(platform, contract),
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The external assets."""
    return dg.Definitions(assets=list(external_specs(current_platform())))
