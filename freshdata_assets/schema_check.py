"""Whether tables have the columns that contracts and models promise: read from metadata alone.

A column that is missing, or has another type, is an error: in Silver it keeps Gold from taking the rows in. So is one
that is required where null is allowed, or the other way round, in the workers' tables; those of models require nothing,
and what a lookup has gained since it was made cannot be required. One column too many is a warning, since nobody reads
what he does not name. So is a Silver column that cannot hold all values of the contract's: the model chose its type.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from pyiceberg.table import Table

from freshdata.contracts import Contract
from freshdata.contracts.model import EXTRA
from freshdata.errors import ContractError, FreshDataError
from freshdata.lake.catalog import QUARANTINE_SCHEMA, bronze_schema
from freshdata.lake.duck import column_schema
from freshdata.lake.publication import followed_contract
from freshdata.lake.schemas import Difference, differences, unfit
from freshdata.transform.manifest import ModelInfo
from freshdata_assets.platform import Platform
from freshdata_assets.schemas import records

SCHEMA_CHECK = "contract_schema"
COLUMNS = ("column", "expected", "found")


@dataclass(frozen=True)
class SchemaVerdict:
    """Whether a table's columns are as they should be.

    Attributes:
        description: What is wrong, in one line.
        wrong: What whoever reads the table would stumble over.
        odd: What is different without harm.
        failed: Whether they could not be compared.
    """

    description: str
    wrong: Sequence[Difference] = ()
    odd: Sequence[Difference] = ()
    failed: bool = False

    @classmethod
    def of(cls, found: Sequence[Difference], odd: Sequence[Difference] = ()) -> "SchemaVerdict":
        """The verdict on some differences.

        Args:
            found: The differences.
            odd: More of them, which do no harm.
        """
        wrong = [difference for difference in found if not difference.harmless]
        odd = [difference for difference in found if difference.harmless] + [
            difference for difference in odd if difference.column not in {each.column for each in wrong}
        ]
        told = "; ".join(f"{each.column}: expected {each.expected}, found {each.found}" for each in (*wrong, *odd))
        return cls(told or "every column is as it should be", wrong, odd)

    @classmethod
    def not_compared(cls, error: FreshDataError) -> "SchemaVerdict":
        """The verdict when what the columns should be cannot be told, or there is no table."""
        return cls(str(error), failed=True)

    def result(self, check: dg.AssetCheckKey) -> dg.AssetCheckResult:
        """The verdict of a run."""
        return dg.AssetCheckResult(asset_key=check.asset_key, check_name=check.name, **self._told())

    def evaluation(self, check: dg.AssetCheckKey) -> dg.AssetCheckEvaluation:
        """The verdict outside of any run."""
        return dg.AssetCheckEvaluation(asset_key=check.asset_key, check_name=check.name, **self._told())

    def _told(self) -> dict[str, Any]:
        told = [*self.wrong, *self.odd]
        return {
            "passed": not (self.failed or told),
            "severity": dg.AssetCheckSeverity.ERROR if self.failed or self.wrong else dg.AssetCheckSeverity.WARN,
            "description": self.description,
            "metadata": {"freshdata/differences": records(COLUMNS, (vars(difference) for difference in told))},
        }


def landing_verdict(platform: Platform, contract: Contract, table: Table) -> SchemaVerdict:
    """Judge a table that the workers write.

    Args:
        platform: The instance.
        contract: The contract of its stream or lookup.
        table: The Bronze, quarantine or lookup table.
    """
    schema, name = table.schema(), ".".join(table.name())
    if contract.stream is None:
        return SchemaVerdict.of(differences(schema, contract.arrow_schema, null_allowed=True))
    if name == contract.quarantine_table:
        return SchemaVerdict.of(differences(schema, QUARANTINE_SCHEMA))
    try:
        found = differences(schema, bronze_schema(followed_contract(table, contract), platform.contracts))
    except KeyError as missing:
        return SchemaVerdict.not_compared(
            ContractError(
                contract.name,
                f"as it is published takes {missing} from a lookup, and no file here declares it.",
                remedy="Put the published contract, and those of its lookups, into contracts/.",
            )
        )
    except ContractError as error:
        return SchemaVerdict.not_compared(error)
    # Where unknown fields were kept once: the rows of then have them.
    return SchemaVerdict.of([each for each in found if not (each.harmless and each.column == EXTRA)])


def model_verdict(platform: Platform, model: ModelInfo) -> SchemaVerdict:
    """Judge a Silver or Gold table.

    Args:
        platform: The instance.
        model: Its model.

    Raises:
        NoSuchTableError: there is no table.
    """
    catalog = platform.catalog()
    schema = catalog.load_table(model.name).schema()
    found = differences(schema, column_schema(model.columns), null_allowed=True)
    odd: list[Difference] = []
    for stream, silver in platform.silver_streams:
        if silver == model and catalog.table_exists(stream.table):
            try:
                odd = unfit(schema, followed_contract(catalog.load_table(stream.table), stream).stored_schema)
            except ContractError as error:
                return SchemaVerdict.not_compared(error)
    return SchemaVerdict.of(found, odd)
