"""Add lookup columns to rows; a key without a match gets null, never a lost row."""

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError

from freshdata.contracts import Contract, Enrichment


class Enricher:
    """Joins the lookups that a contract names, and follows their tables as they change."""

    def __init__(self, catalog: Catalog, contract: Contract, contracts: dict[str, Contract]) -> None:
        self._catalog = catalog
        self._contracts = contracts
        self._enrichments = contract.rules.enrichments
        self._lookups: dict[str, tuple[int | None, pa.Table]] = {}

    def refresh(self) -> None:
        """Read again the lookups whose table has a new snapshot."""
        for enrichment in self._enrichments:
            contract = self._contracts[enrichment.lookup]
            try:
                table = self._catalog.load_table(contract.table)
            except NoSuchTableError:
                self._lookups[enrichment.lookup] = (None, contract.arrow_schema.empty_table())
                continue
            snapshot = table.current_snapshot()
            version = snapshot.snapshot_id if snapshot else None
            if enrichment.lookup not in self._lookups or self._lookups[enrichment.lookup][0] != version:
                self._lookups[enrichment.lookup] = (version, table.scan().to_arrow().cast(contract.arrow_schema))

    def __call__(self, rows: pa.Table) -> pa.Table:
        """The rows with the enrichment columns appended."""
        for enrichment in self._enrichments:
            rows = self._add(rows, enrichment)
        return rows

    def _add(self, rows: pa.Table, enrichment: Enrichment) -> pa.Table:
        lookup = self._lookups[enrichment.lookup][1]
        primary_key = self._contracts[enrichment.lookup].primary_key[0]
        match = pc.index_in(rows[enrichment.key], value_set=lookup[primary_key].combine_chunks())
        for column, name in enrichment.columns.items():
            rows = rows.append_column(name, lookup[column].take(match))
        return rows
