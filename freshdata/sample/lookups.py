"""The sample's lookup tables: airlines, airports and planes."""

import pyarrow as pa

from freshdata.contracts import Contract
from freshdata.lake.catalog import ensure_table, open_catalog
from freshdata.sample.source import TYPES, read_source
from freshdata.settings import Settings


def load_lookups(settings: Settings, contracts: dict[str, Contract]) -> list[str]:
    """Write the lookup tables that the sample has data for; tables that hold it already are left alone.

    Args:
        settings: The instance.
        contracts: All contracts by name.

    Returns:
        Identifiers of the tables that were written.
    """
    catalog = open_catalog(settings)
    written = []
    for contract in contracts.values():
        if contract.kind != "lookup" or contract.name not in TYPES:
            continue
        wanted = read_source(contract.name).select(contract.arrow_schema.names).cast(contract.arrow_schema)
        table = ensure_table(catalog, contract.table, contract.arrow_schema)
        if not _same(table.scan().to_arrow(), wanted, contract.primary_key):
            (table.overwrite if table.current_snapshot() else table.append)(wanted)
            written.append(contract.table)
    return written


def _same(found: pa.Table, wanted: pa.Table, key: tuple[str, ...]) -> bool:
    order = [(name, "ascending") for name in key]
    present: bool = (
        found.column_names == wanted.column_names
        and found.cast(wanted.schema).sort_by(order).to_pylist() == wanted.sort_by(order).to_pylist()
    )
    return present
