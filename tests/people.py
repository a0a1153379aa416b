"""A stream of events about people, with personal data of every kind of protection."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

SECRET = "0123456789abcdef0123456789abcdef"  # noqa: S105 - of tests.
START = datetime(2026, 3, 1, 10, tzinfo=UTC)
CONTRACT = """
apiVersion: v3.2.0
kind: DataContract
id: urn:freshdata:shop:visits
name: visits
version: 1.0.0
status: active
schema:
  - name: visits
    description: A visit of a shop.
    customProperties:
      - {property: topic, value: TOPIC}
      - {property: topicPartitions, value: 2}
      - {property: messageKey, value: visit_id}
      - {property: dedupeKey, value: [visit_id]}
      - {property: dedupeWindow, value: P30D}
      - {property: tenantField, value: shop}
      - {property: eventTimeField, value: visited_at}
      - {property: subjectField, value: customer}
    properties:
      - {name: visit_id, logicalType: string, physicalType: string, required: true, primaryKey: true}
      - {name: shop, logicalType: string, physicalType: string, required: true}
      - {name: visited_at, logicalType: timestamp, physicalType: timestamptz, required: true}
      - name: customer
        logicalType: integer
        physicalType: bigint
        required: true
        classification: personal
        customProperties: [{property: protection, value: hash}]
      - name: email
        logicalType: string
        physicalType: string
        classification: personal
        logicalTypeOptions: {pattern: "@"}
        customProperties: [{property: protection, value: tokenize}]
      - name: note
        logicalType: string
        physicalType: string
        classification: personal
        customProperties: [{property: protection, value: drop}]
      - {name: spent, logicalType: number, physicalType: "decimal(10,2)"}
team: {name: shop}
slaProperties:
  - {property: freshness, value: 10, unit: d}
"""
SILVER = """
MODEL (
  name silver.visits,
  description 'Visits.',
  owner 'shop',
  kind CUSTOM (
    materialization 'merge_by_key',
    materialization_properties (
      date_column = event_date, unique_key = (event_date, shop, visit_id), version = (_ingested_at, _offset)
    )
  ),
  partitioned_by (event_date),
  grain (event_date, shop, visit_id),
  audits (not_null(columns := (visit_id, shop)))
);
SELECT
  visit_id, -- The visit.
  shop, -- The shop.
  customer, -- The customer, hashed.
  email, -- A token of the address.
  visited_at, -- When.
  event_date, -- Day.
  spent, -- Money spent.
  _ingested_at, -- Timestamp of the Kafka record.
  _offset -- Kafka offset of the record.
FROM bronze.visits
WHERE event_date BETWEEN @start_date AND @end_date
QUALIFY ROW_NUMBER() OVER (PARTITION BY event_date, shop, visit_id ORDER BY _ingested_at DESC, _offset DESC) = 1
"""
GOLD = """
MODEL (
  name gold.visits_day,
  description 'Visits by day.',
  owner 'shop',
  kind CUSTOM (
    materialization 'overwrite_changed_partitions', materialization_properties (date_column = event_date)
  ),
  partitioned_by (event_date),
  grain (event_date, shop),
  audits (not_null(columns := (event_date, shop)))
);
SELECT
  event_date, -- Day.
  shop, -- The shop.
  COUNT(*)::BIGINT AS visits, -- Visits.
  SUM(spent)::DECIMAL(38, 2) AS spent -- Money spent.
FROM silver.visits
WHERE event_date BETWEEN @start_date AND @end_date
GROUP BY event_date, shop
"""
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
