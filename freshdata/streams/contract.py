"""The contract of an inferred stream, as an Open Data Contract Standard document."""

from datetime import timedelta
from typing import Any

import yaml

from freshdata.streams.fields import Field
from freshdata.streams.model import Inferred

NULLS_MARGIN = 10  # Percentage points above what the sample lacks.
MOST_NULLS = 80  # Percent: a field that is mostly absent has nothing to warn of.


def contract_yaml(stream: Inferred) -> str:
    """The contract's document."""
    document = {
        "apiVersion": "v3.2.0",
        "kind": "DataContract",
        "id": f"urn:freshdata:{stream.owner}:{stream.name}",
        "name": stream.name,
        "version": "1.0.0",
        "status": "active",
        "description": {"purpose": f"Events of the stream {stream.name}, inferred from {stream.sample.source}."},
        "schema": [
            {
                "name": stream.name,
                "physicalName": stream.name,
                "logicalType": "object",
                "description": f"One event of {stream.name}.",
                "customProperties": [{"property": name, "value": value} for name, value in _settings(stream)],
                "properties": [_property(stream, each) for each in stream.fields],
                "quality": _rules(stream),
            }
        ],
        "team": {"name": stream.owner},
        "slaProperties": [_freshness(stream)],
    }
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))


class _Dumper(yaml.SafeDumper):
    """Writes each setting on a line of its own, and indents lists, as contracts written by hand have them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: FBT001, FBT002, ARG002
        super().increase_indent(flow, False)  # noqa: FBT003

    def represent_dict(self, data: Any) -> yaml.MappingNode:
        node = super().represent_dict(data)
        if "property" in data:
            node.flow_style = True
            for _, value in node.value:
                value.flow_style = True
        return node


_Dumper.add_representer(dict, _Dumper.represent_dict)


def _settings(stream: Inferred) -> list[tuple[str, Any]]:
    return [
        ("topic", stream.topic),
        ("topicPartitions", stream.partitions),
        ("messageKey", stream.key),
        ("dedupeKey", [stream.key]),
        ("dedupeWindow", _iso(stream.dedupe_window)),
        *([("versionField", stream.version)] if stream.version else []),
        ("tenantField", stream.tenant),
        ("eventTimeField", stream.event_time),
        *([] if stream.derives_date else [("eventDateField", stream.event_date)]),
        ("allowedLateness", _iso(stream.lateness)),
        # An event with a field that the sample did not show is kept whole.
        ("unknownFieldPolicy", "keep"),
        ("partitionGranularity", stream.granularity),
        ("tenantPartition", stream.tenant_partition),
    ]


def _property(stream: Inferred, each: Field) -> dict[str, Any]:
    found: dict[str, Any] = {"name": each.name}
    if each.source_name != each.name:
        found["physicalName"] = each.source_name
    found["description"] = _description(stream, each)
    found |= {"logicalType": each.logical, "physicalType": each.physical}
    if each.physical == "timestamptz":
        found["logicalTypeOptions"] = {"timezone": True}
    if each.name == stream.key:
        found |= {"primaryKey": True, "primaryKeyPosition": 1}
    found["required"] = each.required
    if each.personal:
        found["classification"] = "personal"
    if each.enum:
        found["enum"] = [{"value": value} for value in each.enum]
    percent = round(100 * each.missing)
    if not each.required and percent + NULLS_MARGIN <= MOST_NULLS:
        found["quality"] = [
            {
                "id": f"{each.name}_nulls",
                "description": f"The sample lacks it in {percent} % of the events.",
                "type": "library",
                "metric": "nullValues",
                "mustBeLessThan": percent + NULLS_MARGIN,
                "unit": "percent",
                "severity": "warning",
                "dimension": "completeness",
            }
        ]
    return found


def _description(stream: Inferred, each: Field) -> str:
    roles = {
        stream.key: "Identifies the event.",
        stream.version: "Orders the versions of the key.",
        stream.tenant: "Whose the event is.",
        stream.event_time: "When it happened.",
        stream.event_date: "The day that the event belongs to.",
    }
    return roles.get(each.name) or f"{each.source_name} of the event."


def _rules(stream: Inferred) -> list[dict[str, Any]]:
    return [
        {
            "id": "rows_present",
            "description": "A day with no event at all is a broken feed.",
            "type": "library",
            "metric": "rowCount",
            "mustBeGreaterThan": 0,
            "severity": "error",
            "dimension": "completeness",
        },
        {
            "id": "one_row_a_key",
            "description": "Silver holds each key once.",
            "type": "library",
            "metric": "duplicateValues",
            "arguments": {"properties": [stream.tenant, stream.key]},
            "mustBe": 0,
            "severity": "error",
            "dimension": "uniqueness",
        },
    ]


def _freshness(stream: Inferred) -> dict[str, Any]:
    hours, rest = divmod(stream.freshness, timedelta(hours=1))
    value, unit = (hours, "h") if not rest else (stream.freshness // timedelta(minutes=1), "m")
    return {"property": "freshness", "value": value, "unit": unit, "element": f"{stream.name}.{stream.event_time}"}


def _iso(span: timedelta) -> str:
    days, rest = divmod(span, timedelta(days=1))
    if not rest:
        return f"P{days}D"
    hours, rest = divmod(span, timedelta(hours=1))
    return f"PT{hours}H" if not rest else f"PT{span // timedelta(minutes=1)}M"
