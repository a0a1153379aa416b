"""What the producer knows that it sent, against what is stored: row by row, without the platform's own verification."""

from collections import Counter
from dataclasses import dataclass, field

from freshdata.verify.ingest import verify_ingest
from tests.chaos.harness import Chaos
from tests.chaos.traffic import stored_form


@dataclass
class Outcome:
    """What a comparison found.

    Attributes:
        sent: Records sent.
        stored: Bronze rows.
        rejected: Quarantine rows.
        lost: Events and broken records that are not stored.
        duplicated: Rows too many.
        changed: Rows with other values than the first event sent under their key.
        failures: What is wrong, in words.
    """

    sent: int
    stored: int
    rejected: int
    lost: int
    duplicated: int
    changed: int
    failures: list[str] = field(default_factory=list)


def compare(chaos: Chaos) -> Outcome:
    """Compare a finished run's ledger with its tables, and let the platform verify itself."""
    traffic, contract = chaos.traffic, chaos.contract
    columns = [name for name in contract.arrow_schema.names if name != "_extra"]
    rows = chaos.catalog.load_table(contract.table).scan().to_arrow().select(columns).to_pylist()
    rejected = chaos.catalog.load_table(contract.quarantine_table).scan().to_arrow().to_pylist()
    keys = Counter(row["event_id"] for row in rows)
    expected = Counter(dict.fromkeys(traffic.valid, 1))
    broken = Counter((row["key"], row["payload"]) for row in rejected)
    changed = [
        row
        for row in rows
        if row["event_id"] in traffic.valid and row != stored_form(traffic.valid[row["event_id"]], columns)
    ]
    lost, extra = expected - keys, keys - expected
    lost_broken, extra_broken = traffic.broken - broken, broken - traffic.broken
    findings, counts = verify_ingest(chaos.settings, chaos.catalog, contract)
    failures = [f"{name}: {found}" for name, found in _named(lost, extra, lost_broken, extra_broken) if found]
    failures += [f"changed: {row}" for row in changed[:3]]
    failures += [str(finding) for finding in findings if not finding.ok]
    outcomes = counts["accepted"] + counts["duplicates"] + counts["rejected"]
    if not counts["consumed"] == outcomes == traffic.sent:
        failures.append(f"{traffic.sent} records sent, but accounted for: {counts}")
    return Outcome(
        sent=traffic.sent,
        stored=len(rows),
        rejected=len(rejected),
        lost=(lost.total() + lost_broken.total()),
        duplicated=(extra.total() + extra_broken.total()),
        changed=len(changed),
        failures=failures,
    )


def _named(*counters: Counter) -> list[tuple[str, list]]:  # type: ignore[type-arg]
    names = ("lost events", "events too many", "lost broken records", "broken records too many")
    return [(name, list(counter.items())[:5]) for name, counter in zip(names, counters, strict=True)]
