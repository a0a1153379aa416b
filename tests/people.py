"""A stream of events about people, with personal data of every kind of protection."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.documents import contract_text, count_model, merge_model

SECRET = "0123456789abcdef0123456789abcdef"  # noqa: S105 - of tests.
START = datetime(2026, 3, 1, 10, tzinfo=UTC)
CONTRACT = contract_text(
    "visits",
    "A visit of a shop.",
    [
        "visit_id string key",
        "shop string required",
        "visited_at timestamptz required",
        """name: customer
        logicalType: integer
        physicalType: bigint
        required: true
        classification: personal
        customProperties: [{property: protection, value: hash}]""",
        """name: email
        logicalType: string
        physicalType: string
        classification: personal
        logicalTypeOptions: {pattern: "@"}
        customProperties: [{property: protection, value: tokenize}]""",
        """name: note
        logicalType: string
        physicalType: string
        classification: personal
        customProperties: [{property: protection, value: drop}]""",
        '{name: spent, logicalType: number, physicalType: "decimal(10,2)"}',
    ],
    {
        "topic": "TOPIC",
        "topicPartitions": "2",
        "dedupeWindow": "P30D",
        "tenantField": "shop",
        "eventTimeField": "visited_at",
        "subjectField": "customer",
    },
    owner="shop",
    freshness="10, unit: d",
)
SILVER = merge_model(
    "visits",
    "visit_id",
    [
        "customer, -- The customer, hashed.",
        "email, -- A token of the address.",
        "visited_at, -- When.",
        "event_date, -- Day.",
        "spent, -- Money spent.",
    ],
    owner="shop",
)
GOLD = count_model(
    "gold.visits_day",
    "visits",
    ["COUNT(*)::BIGINT AS visits, -- Visits.", "SUM(spent)::DECIMAL(38, 2) AS spent -- Money spent."],
    owner="shop",
)
TESTS = """
test_visits:
  model: silver.visits
  vars: {start: 2026-03-01, end: 2026-03-01}
  inputs:
    bronze.visits:
      rows:
        - {visit_id: a, shop: s, event_date: 2026-03-01, _ingested_at: '2026-03-01 10:00:00+00:00', _offset: 1}
  outputs:
    query: {partial: true, rows: [{visit_id: a, shop: s}]}
test_visits_day:
  model: gold.visits_day
  vars: {start: 2026-03-01, end: 2026-03-01}
  inputs:
    silver.visits:
      rows:
        - {visit_id: a, shop: s, event_date: 2026-03-01, spent: 2}
  outputs:
    query: {partial: true, rows: [{shop: s, visits: 1}]}
"""


def visit(number: int, customer: int | None = None, **changes: Any) -> dict[str, Any]:
    """One visit; customers 900004711 to 900004715 come in turn, to three shops, over three days."""
    who = 900004711 + number % 5 if customer is None else customer
    return {
        "visit_id": f"v{number}",
        "shop": ("lyon", "turin", "gent")[number % 3],
        "visited_at": (START + timedelta(minutes=30 * number)).isoformat(),
        "customer": who,
        "email": f"person{who}@example.org",
        "note": f"secret of {who}",
        "spent": "2.50",
    } | changes


def encoded(event: dict[str, Any]) -> bytes:
    """An event as a message's value."""
    return json.dumps(event).encode()
