"""Check the demo's numbers against its ledger and against the source data."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog

from freshdata.contracts import Contract
from freshdata.lake.catalog import load_table
from freshdata.lake.progress import read_progress
from freshdata.sample.expected import expected_carrier_day
from freshdata.sample.ledger import Ledger
from freshdata.settings import Settings
from freshdata.verify.report import Report


@dataclass(frozen=True)
class Check:
    """One equation of the reconciliation.

    Attributes:
        claim: What must be equal.
        expected: What the ledger or the source says.
        found: What the lake says.
    """

    claim: str
    expected: str
    found: str

    @property
    def ok(self) -> bool:
        """Whether the two sides agree."""
        return self.expected == self.found


def reconcile(
    settings: Settings, catalog: Catalog, streams: list[Contract], months: int, report: Report
) -> list[Check]:
    """Compare ledger, lake and source.

    Args:
        settings: The demo's settings.
        catalog: Its catalog.
        streams: The stream contracts.
        months: Months of 2013 that were sent.
        report: The row-by-row verification.
    """
    ledger = Ledger(settings.home).read()
    checks: list[Check] = []
    for contract in streams:
        checks += _stream_checks(catalog, contract, ledger.filter(pc.equal(ledger["stream"], contract.name)))
    checks.append(_gold_check(catalog, months))
    checks.append(rows_check("Kafka = Bronze = Silver = Gold", report))
    return checks


def rows_check(claim: str, report: Report) -> Check:
    """A row-by-row verification as one equation."""
    rows = sum(finding.compared for finding in report.findings)
    different = sum(finding.differences for finding in report.findings)
    return Check(f"{claim}, row by row ({rows:,} rows)", "0 differ", f"{different} differ")


def _stream_checks(catalog: Catalog, contract: Contract, sent: pa.Table) -> list[Check]:
    progress = read_progress(load_table(catalog, contract.table))
    done = progress.total() if progress else None
    found = (done.consumed, done.accepted, done.duplicates, done.rejected) if done else (0, 0, 0, 0)
    expected = [sent.num_rows]
    expected += [pc.sum(pc.equal(sent["expected"], kind)).as_py() for kind in ("accepted", "duplicate", "rejected")]
    key = contract.rules.dedupe_key[0]
    accepted_keys = pc.unique(sent.filter(pc.equal(sent["expected"], "accepted"))["key"]).cast(pa.large_binary())
    silver = load_table(catalog, f"silver.{contract.name}").scan(selected_fields=(key,)).to_arrow()[key]
    silver_keys = silver.cast(pa.large_binary())
    unknown = pc.sum(pc.invert(pc.is_in(silver_keys, accepted_keys))).as_py() or 0
    return [
        Check(
            f"{contract.name}: sent = accepted + duplicates + rejected",
            "{:,} = {:,} + {:,} + {:,}".format(*expected),
            "{:,} = {:,} + {:,} + {:,}".format(*found),
        ),
        Check(
            f"{contract.name}: Silver keys = distinct accepted keys",
            f"{len(accepted_keys):,} keys, 0 others",
            f"{len(silver_keys):,} keys, {unknown:,} others",
        ),
    ]


def _gold_check(catalog: Catalog, months: int) -> Check:
    """Every row and column of ``gold.carrier_day`` against figures computed straight from the source files."""
    expected = expected_carrier_day(months)
    order = [("flight_date", "ascending"), ("tenant_id", "ascending")]
    gold = load_table(catalog, "gold.carrier_day").scan().to_arrow().select(expected.column_names)
    rows = expected.sort_by(order).to_pylist()
    found = gold.cast(expected.schema).sort_by(order).to_pylist()
    wrong = sum(not _same(left, right) for left, right in zip(rows, found, strict=False))
    flights = pc.sum(expected["flights"]).as_py()
    return Check(
        "Gold carrier_day = recomputed from the source files",
        f"{len(rows):,} rows, {flights:,} flights, 0 differ",
        f"{len(found):,} rows, {pc.sum(gold['flights']).as_py() or 0:,} flights, {wrong} differ",
    )


def _same(left: dict[str, object], right: dict[str, object]) -> bool:
    return all(_close(value, right[name]) for name, value in left.items())


def _close(left: object, right: object) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        # Two engines may add in another order; the last bits of a double are no difference in the data.
        return abs(left - right) <= 1e-9 * max(1.0, abs(left))
    return left == right
