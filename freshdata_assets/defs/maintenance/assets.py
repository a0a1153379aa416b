"""The upkeep of each table as an asset: what it holds is the table's files, as few and as well clustered as can be."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from freshdata.errors import FreshDataError
from freshdata.lake.health import Thresholds
from freshdata.lake.upkeep import Upkeep, keep_up
from freshdata_assets.platform import Platform, asset_key, current_platform, owners

GROUP = "maintenance"
# Rows are sorted in memory, so one table at a time, whatever else runs.
POOL = "maintenance"
# A run of it holds up what brings in the news: what is left of a large table is done by the next one.
THRESHOLDS = Thresholds(most_bytes=128 * 1024 * 1024)


def maintained_tables(platform: Platform) -> Iterator[tuple[str, str]]:
    """Each table that the platform knows, and its owner."""
    for contract in platform.contracts.values():
        yield contract.table, contract.owner
        if contract.stream is not None:
            yield contract.quarantine_table, contract.owner
    for model in platform.models.values():
        yield model.name, model.owner


def maintenance_key(table: str) -> dg.AssetKey:
    """The key of a table's maintenance asset, for example ``maintenance/silver/weather``."""
    return asset_key(f"{GROUP}.{table}")


def maintenance_assets(platform: Platform) -> list[dg.AssetsDefinition]:
    """One asset for each table."""
    return [_maintenance(platform, table, owner) for table, owner in maintained_tables(platform)]


def _maintenance(platform: Platform, table: str, owner: str) -> dg.AssetsDefinition:
    @dg.asset(
        key=maintenance_key(table),
        deps=[asset_key(table)],
        description=(
            f"Keeps {table} small and quick to read: small files and delete files are compacted and clustered, "
            "manifests merged, snapshots expired, orphan files removed, each as far as needed. Its rows stay the same."
        ),
        group_name=GROUP,
        kinds={"iceberg"},
        owners=owners(owner),
        pool=POOL,
    )
    def maintain() -> dg.MaterializeResult[Any]:
        try:
            done = keep_up(platform.catalog(), table, platform.contracts, THRESHOLDS)
        except FreshDataError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        return dg.MaterializeResult(metadata=_metadata(done))

    return maintain


def _metadata(done: Upkeep) -> dict[str, Any]:
    files, metadata = done.compacted, done.maintained
    numbers = {
        "files_before": files.files_before,
        "files_after": files.files_after,
        "bytes_before": files.bytes_before,
        "bytes_after": files.bytes_after,
        "delete_files_removed": files.delete_files,
        "manifests_merged": metadata.merged,
        "manifests": metadata.manifests,
        "snapshots_expired": metadata.expired,
        "snapshots": metadata.snapshots,
        "orphans_removed": metadata.orphans,
        "orphan_bytes": metadata.orphan_bytes,
        "seconds": round(files.seconds + metadata.seconds, 3),
    }
    shown: dict[str, Any] = {f"freshdata/{name}": number for name, number in numbers.items()}
    return shown | ({"freshdata/skipped": "; ".join(files.skipped)} if files.skipped else {})


@dg.definitions
def defs() -> dg.Definitions:
    """The maintenance assets."""
    return dg.Definitions(assets=maintenance_assets(current_platform()))
