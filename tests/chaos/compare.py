"""What the producer knows that it sent, against what every layer holds: row by row, and by the platform's own check."""

import json
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from pyiceberg.catalog import Catalog

from freshdata.verify.ingest import verify_ingest
from tests.chaos.gold import Row, gold_rows
from tests.chaos.harness import Chaos
from tests.chaos.traffic import stored_form
from tests.clean import read_committed

EXAMPLES = 3
DIGITS = 9  # The order of a sum's terms shows in the digits behind.


@dataclass
class Layer:
    """What one layer holds, compared with what it must hold.

    Attributes:
        layer: The table, or ``clean``.
        expected: Rows that it must hold.
        found: Rows that it holds.
        lost: Rows missing.
        duplicated: Rows too many.
        changed: Rows with other values.
        examples: Some of the differences, in words.
    """

    layer: str
    expected: int
    found: int
    lost: int = 0
    duplicated: int = 0
    changed: int = 0
    examples: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, expected: dict[Any, Row], found: Iterable[tuple[Any, Row]]) -> "Layer":
        """Compare rows by their keys."""
        rows = list(found)
        layer = cls.counted(name, Counter(dict.fromkeys(expected, 1)), Counter(key for key, _ in rows))
        changed = [(key, row) for key, row in rows if key in expected and row != expected[key]]
        layer.changed = len(changed)
        for key, row in changed[:EXAMPLES]:
            wanted = expected[key]
            told = [
                f"{column} {row[column]!r}, sent {wanted[column]!r}" for column in row if row[column] != wanted[column]
            ]
            layer.examples.append(f"{name}: {key} changed: {'; '.join(told)}")
        return layer

    @classmethod
    def counted(cls, name: str, expected: Counter[Any], found: Counter[Any]) -> "Layer":
        """Compare rows that are alike but in their number."""
        lost, extra = expected - found, found - expected
        layer = cls(name, expected.total(), found.total(), lost.total(), extra.total())
        layer.examples += [f"{name}: {count} x {key!r} lost" for key, count in list(lost.items())[:EXAMPLES]]
        layer.examples += [f"{name}: {count} x {key!r} too many" for key, count in list(extra.items())[:EXAMPLES]]
        return layer


@dataclass
class Outcome:
    """What a comparison found.

    Attributes:
        sent: Records sent.
        layers: What each layer holds.
        lost: Rows missing, all layers together.
        duplicated: Rows too many.
        changed: Rows with other values than what was sent.
        failures: What is wrong, in words.
    """

    sent: int
    layers: list[Layer]
    lost: int
    duplicated: int
    changed: int
    failures: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The outcome for machines."""
        return asdict(self)


def compare(chaos: Chaos) -> Outcome:
    """Compare a finished run's ledger with every layer, and let the platform verify itself."""
    traffic, contract, catalog = chaos.traffic, chaos.contract, chaos.catalog
    columns = [name for name in contract.arrow_schema.names if name != "_extra"]
    sent = {key: stored_form(event, columns) for key, event in traffic.valid.items()}
    rejected = Counter((row["key"], row["payload"]) for row in _rows(catalog, contract.quarantine_table))
    layers = [
        Layer.of(contract.table, sent, _keyed(catalog, contract.table, columns)),
        Layer.counted(contract.quarantine_table, traffic.broken, rejected),
        Layer.of("clean", sent, _published(chaos, columns)),
    ]
    findings, counts = verify_ingest(chaos.settings, catalog, contract)
    # Meanwhile Silver and Gold were built.
    chaos.transformed()
    silver = "silver.flight_events"
    layers.append(Layer.of(silver, sent, _keyed(catalog, silver, columns)))
    for table, expected in gold_rows(sent.values()).items():
        names = list(next(iter(expected.values())))
        grain = len(next(iter(expected)))
        found = (_rounded({name: row[name] for name in names}) for row in _rows(catalog, table))
        rounded = {key: _rounded(row) for key, row in expected.items()}
        layers.append(Layer.of(table, rounded, ((tuple(row.values())[:grain], row) for row in found)))
    failures = [example for layer in layers for example in layer.examples]
    failures += [str(finding) for finding in findings if not finding.ok]
    outcomes = counts["accepted"] + counts["duplicates"] + counts["rejected"]
    if not counts["consumed"] == outcomes == traffic.sent:
        failures.append(f"{traffic.sent} records sent, but accounted for: {counts}")
    lost, duplicated, changed = (
        sum(getattr(layer, name) for layer in layers) for name in ("lost", "duplicated", "changed")
    )
    return Outcome(traffic.sent, layers, lost, duplicated, changed, failures)


def _rows(catalog: Catalog, table: str) -> list[Row]:
    rows: list[Row] = catalog.load_table(table).scan().to_arrow().to_pylist()
    return rows


def _keyed(catalog: Catalog, table: str, columns: list[str]) -> Iterable[tuple[str, Row]]:
    return ((row["event_id"], {name: row[name] for name in columns}) for row in _rows(catalog, table))


def _published(chaos: Chaos, columns: list[str]) -> Iterable[tuple[str, Row]]:
    """What a reader of committed records sees, in order and under the right keys."""
    topic, partitions = chaos.contract.clean_topic, range(chaos.contract.rules.topic_partitions)
    with ThreadPoolExecutor(len(partitions)) as pool:
        read = list(pool.map(lambda number: read_committed(chaos.settings, topic, number), partitions))
    for messages in read:
        last = -1
        for message in messages:
            event = json.loads(message.value())
            assert event["_offset"] > last, f"{event['event_id']} comes out of order"
            last = event["_offset"]
            assert event["event_id"].encode() == message.key()
            yield event["event_id"], stored_form(event, columns)


def _rounded(row: Row) -> Row:
    return {name: round(value, DIGITS) if isinstance(value, float) else value for name, value in row.items()}
