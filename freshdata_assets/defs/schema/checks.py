"""Whether what the workers write has its contract's columns.

The snapshot sensor evaluates these checks with each snapshot that it reports; they can also be executed alone. Those of
Silver and Gold belong to the runs of their models.
"""

from collections.abc import Iterator

import dagster as dg

from freshdata.contracts import Contract
from freshdata.errors import LakeError
from freshdata.lake.catalog import load_table
from freshdata_assets.platform import Platform, asset_key, current_platform
from freshdata_assets.schema_check import SCHEMA_CHECK, SchemaVerdict, landing_verdict


def schema_checks(platform: Platform) -> Iterator[dg.AssetChecksDefinition]:
    """One check for each Bronze, quarantine and lookup table."""
    for contract in platform.contracts.values():
        yield _check(platform, contract, contract.table)
        if contract.stream is not None:
            yield _check(platform, contract, contract.quarantine_table)


def _check(platform: Platform, contract: Contract, table: str) -> dg.AssetChecksDefinition:
    check = dg.AssetCheckKey(asset_key(table), SCHEMA_CHECK)

    @dg.asset_check(
        asset=check.asset_key,
        name=SCHEMA_CHECK,
        description=f"The table has the columns that follow from the contract {contract.name}, and no others.",
    )
    def check_schema() -> dg.AssetCheckResult:
        try:
            return landing_verdict(platform, contract, load_table(platform.catalog(), table)).result(check)
        except LakeError as error:
            return SchemaVerdict.not_compared(error).result(check)

    return check_schema


@dg.definitions
def defs() -> dg.Definitions:
    """The checks of columns."""
    return dg.Definitions(asset_checks=list(schema_checks(current_platform())))
