"""Contracts and models of tests' own streams, as text: what they have in common is written once, here."""

from collections.abc import Mapping, Sequence

LOGICAL = {"bigint": "integer", "date": "date", "string": "string", "timestamptz": "timestamp"}
# The SQLMesh property that names a model's days or hours, and the time that a run is for.
SLOTS = {
    "event_date": ("date_column", "@start_date AND @end_date"),
    "event_hour": ("hour_column", "@start_dt AND @end_dt"),
}


def contract_text(
    stream: str,
    description: str,
    fields: Sequence[str],
    rules: Mapping[str, str],
    *,
    owner: str,
    freshness: str = "10, unit: m",
) -> str:
    """A stream's contract.

    Args:
        stream: Its name.
        description: What an event is.
        fields: ``NAME TYPE``, which may be followed by ``required`` or ``key``; any other form is YAML as it stands.
            The first one is the message key and the dedupe key.
        rules: Custom property to its value, in YAML.
        owner: The team.
        freshness: Value and unit of the SLA.
    """
    key = fields[0].partition(" ")[0]
    custom = {"messageKey": key, "dedupeKey": f"[{key}]"} | rules
    properties = "".join(f"      - {{property: {name}, value: {value}}}\n" for name, value in custom.items())
    columns = "".join(f"      - {_field(each)}\n" for each in fields)
    return f"""
apiVersion: v3.2.0
kind: DataContract
id: urn:test:{stream}
name: {stream}
version: 1.0.0
status: active
schema:
  - name: {stream}
    description: {description}
    customProperties:
{properties}    properties:
{columns}team: {{name: {owner}}}
slaProperties:
  - {{property: freshness, value: {freshness}}}
"""


def _field(written: str) -> str:
    name, _, rest = written.partition(" ")
    kind, _, role = rest.partition(" ")
    if kind not in LOGICAL:
        return written
    needed = {"": "", "required": ", required: true", "key": ", required: true, primaryKey: true"}[role]
    return f"{{name: {name}, logicalType: {LOGICAL[kind]}, physicalType: {kind}{needed}}}"


def merge_model(
    stream: str, key: str, columns: Sequence[str], *, owner: str, slot: str = "event_date", of: str = "event_date"
) -> str:
    """The Silver model that has one row for each key of a stream: of a day, or of an hour, and a shop.

    Args:
        stream: The stream.
        key: Its key.
        columns: The columns beside the key, the shop and the record's place, with their descriptions.
        owner: The team.
        slot: What the model is partitioned by.
        of: What the slot is computed from.
    """
    by = of if slot == of else f"DATE_TRUNC('HOUR', {of})"
    column, span = SLOTS[slot]
    select = "\n".join(f"  {each}" for each in columns)
    return f"""
{_head(f"silver.{stream}", owner, slot)}
  kind CUSTOM (
    materialization 'merge_by_key',
    materialization_properties (
      {column} = {slot}, unique_key = ({slot}, shop, {key}), version = (_ingested_at, _offset)
    )
  ),
  partitioned_by ({slot}),
  grain ({slot}, shop, {key}),
  audits (not_null(columns := ({key}, shop)))
);
SELECT
  {key}, -- What it is known by.
  shop, -- The shop.
{select}
  _ingested_at, -- Timestamp of the Kafka record.
  _offset -- Kafka offset of the record.
FROM bronze.{stream}
WHERE {of} BETWEEN {span}
QUALIFY ROW_NUMBER() OVER (PARTITION BY {by}, shop, {key} ORDER BY _ingested_at DESC, _offset DESC) = 1
"""


def count_model(name: str, stream: str, columns: Sequence[str], *, owner: str, slot: str = "event_date") -> str:
    """A Gold model of a stream's Silver by day or hour and shop; its aggregates come with their descriptions."""
    column, span = SLOTS[slot]
    select = "\n".join(f"  {each}" for each in columns)
    return f"""
{_head(name, owner, slot)}
  kind CUSTOM (
    materialization 'overwrite_changed_partitions', materialization_properties ({column} = {slot})
  ),
  partitioned_by ({slot}),
  grain ({slot}, shop),
  audits (not_null(columns := ({slot}, shop)))
);
SELECT
  {slot}, -- When.
  shop, -- The shop.
{select}
FROM silver.{stream}
WHERE {slot} BETWEEN {span}
GROUP BY {slot}, shop
"""


def _head(name: str, owner: str, slot: str) -> str:
    cron = "\n  cron '@hourly'," if slot == "event_hour" else ""
    return f"MODEL (\n  name {name},\n  description 'Rows of {name}.',\n  owner '{owner}',{cron}"
