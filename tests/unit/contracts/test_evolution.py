# ruff: noqa: E501 (tables of texts)
"""Two versions of a contract, field change by field change: what may follow what, and why not."""

import re

import pyarrow as pa
import pytest
from pyiceberg.exceptions import ResolveError
from pyiceberg.io.pyarrow import _pyarrow_to_schema_without_ids
from pyiceberg.schema import assign_fresh_schema_ids, promote

from freshdata.contracts import load_contract
from freshdata.contracts.evolution import compare, described, refuse_breaking, widens
from freshdata.contracts.loader import contract_text, parse_contract, version_key
from freshdata.errors import ContractError, EvolutionError

CONTRACT = """\
apiVersion: v3.2.0
kind: DataContract
id: urn:test:orders
name: orders
version: 1.4.0
status: active
schema:
  - name: orders
    description: Orders.
    customProperties:
      - {property: topic, value: shop.orders}
      - {property: messageKey, value: order_id}
      - {property: dedupeKey, value: [order_id]}
      - {property: dedupeWindow, value: P2D}
      - {property: tenantPartition, value: tenant}
      - {property: partitionGranularity, value: day}
      - {property: allowedLateness, value: PT1H}
      - {property: maxFuture, value: PT1H}
      - {property: unknownFieldPolicy, value: ignore}
      - {property: clusteringColumns, value: [city]}
      - {property: commitPolicy, value: {maxAge: PT2S}}
      - {property: enrichments, value: [{lookup: cities, key: city, columns: {name: city_name}}]}
    properties:
      - {name: order_id, logicalType: string, physicalType: string, primaryKey: true, required: true}
      - {name: tenant_id, logicalType: integer, physicalType: int, required: true}
      - {name: event_time, logicalType: timestamp, physicalType: timestamptz, required: true}
      - {name: placed_at, logicalType: timestamp, physicalType: timestamptz, required: true}
      - {name: city, logicalType: string, physicalType: string, required: true}
      - {name: note, logicalType: string, physicalType: string, logicalTypeOptions: {maxLength: 9, pattern: "^a"}}
      - {name: items, logicalType: integer, physicalType: int, logicalTypeOptions: {minimum: 1, maximum: 9}}
      - {name: weight, logicalType: number, physicalType: double, logicalTypeOptions: {exclusiveMinimum: 0}}
      - {name: price, logicalType: number, physicalType: "decimal(9,2)"}
      - {name: state, logicalType: string, physicalType: string, required: true, enum: [{value: new}, {value: paid}]}
team: {name: shop}
slaProperties:
  - {property: freshness, value: 10, unit: m}
"""
LAST = "      - {name: state,"
NEW_FIELD = "      - {name: colour, logicalType: string, physicalType: string}\n"
STATES = "[{value: new}, {value: paid}]"
COMPATIBLE = {
    "a new optional field": (LAST, NEW_FIELD + LAST, "colour: added: new optional field, string"),
    "int to bigint": ("items, logicalType: integer, physicalType: int", "items, logicalType: integer, physicalType: bigint",
                      "items: type: int32 becomes int64"),
    "more digits": ("decimal(9,2)", "decimal(12,2)", "price: type"),
    "optional": ("city, logicalType: string, physicalType: string, required: true",
                 "city, logicalType: string, physicalType: string", "city: required: required becomes optional"),
    "a gained enum value": (STATES, "[{value: paid}, {value: new}, {value: sent}]", "state: enum: gained 'sent'"),
    "any value": (f", enum: {STATES}", "", "state: enum: any value is allowed"),
    "a lower minimum": ("minimum: 1,", "minimum: 0,", "items: minimum: 1 becomes 0"),
    "no maximum": (", maximum: 9", "", "items: maximum: 9 becomes no limit"),
    "a bound that belongs to the range by now": ("{exclusiveMinimum: 0}", "{minimum: 0}", "weight: minimum"),
    "longer texts": ("maxLength: 9", "maxLength: 10", "note: maxLength: 9 becomes 10"),
    "no pattern": (', pattern: "^a"', "", "note: pattern: removed"),
    "kept unknown fields": ("value: ignore", "value: keep", "unknownFieldPolicy: policy: ignore becomes keep"),
    "a later future": ("maxFuture, value: PT1H", "maxFuture, value: PT2H", "maxFuture: limit"),
    "a further lookup column": ("{name: city_name}", "{name: city_name, country: country}",
                                "country: enrichment: new column, from cities"),
    "another lookup": ("{lookup: cities,", "{lookup: towns,", "city_name: enrichment: comes from towns"),
}  # fmt: skip
# No version needs to go up for what changes neither the events nor the columns.
OPERATIONAL = {
    "window": ("value: P2D", "value: P3D", "dedupe_window"),
    "lateness": ("allowedLateness, value: PT1H", "allowedLateness, value: PT2H", "allowed_lateness"),
    "commits": ("{maxAge: PT2S}", "{maxAge: PT3S}", "commit"),
    "sort order": ("value: [city]", "value: [note]", "clustering"),
    "freshness": ("value: 10, unit: m", "value: 20, unit: m", "freshness"),
    "heartbeat": (
        "- {property: maxFuture",
        "- {property: heartbeat, value: PT2H}\n      - {property: maxFuture",
        "heartbeat",
    ),
    "description": ("description: Orders.", "description: All orders.", "document"),
    "owner": ("team: {name: shop}", "team: {name: store}", "document"),
}
INCOMPATIBLE = {
    "a new required field": (LAST, NEW_FIELD.replace("}", ", required: true}") + LAST, "colour: required", "cannot be required"),
    "no field": (LAST, "      - {name: status,", "state: removed", "leave it in"),
    "int to text": ("items, logicalType: integer, physicalType: int, logicalTypeOptions: {minimum: 1, maximum: 9}}",
                    "items, logicalType: string, physicalType: string}", "items: type: int32 becomes string", "not fit"),
    "int to double": ("items, logicalType: integer, physicalType: int", "items, logicalType: number, physicalType: double",
                      "items: type", "not fit"),
    "fewer digits": ("decimal(9,2)", "decimal(8,2)", "price: type", "not fit"),
    "another scale": ("decimal(9,2)", "decimal(12,3)", "price: type", "not fit"),
    "the tenant's type": ("tenant_id, logicalType: integer, physicalType: int",
                          "tenant_id, logicalType: integer, physicalType: bigint", "tenant_id: type", "partitioned"),
    "required": ("note, logicalType: string, physicalType: string,", "note, logicalType: string, physicalType: string, required: true,",
                 "note: required", "lack it"),
    "a lost enum value": (STATES, "[{value: new}, {value: sent}]", "state: enum: 'paid' cannot be removed", "quarantine"),
    "an enum": ("city, logicalType: string, physicalType: string, required: true",
                "city, logicalType: string, physicalType: string, required: true, enum: [{value: x}]", "city: enum", "quarantine"),
    "a higher minimum": ("minimum: 1,", "minimum: 2,", "items: minimum: 1 becomes 2", "quarantine"),
    "a lower maximum": ("maximum: 9}", "maximum: 8}", "items: maximum: 9 becomes 8", "quarantine"),
    "a bound that is excluded by now": ("minimum: 1,", "exclusiveMinimum: 1,", "items: minimum", "quarantine"),
    "a minimum": ("{maxLength: 9,", "{minLength: 1, maxLength: 9,", "note: minLength: no limit becomes 1", "quarantine"),
    "shorter texts": ("maxLength: 9", "maxLength: 8", "note: maxLength", "quarantine"),
    "another pattern": ('"^a"', '"^b"', "note: pattern", "only removing it"),
    "the topic": ("value: shop.orders", "value: shop.orders2", "topic: fixed", "offsets"),
    "the key": ("value: order_id}\n      - {property: dedupeKey, value: [order_id]}", "value: city}\n      - {property: dedupeKey, value: [city]}",
                "dedupeKey: fixed", "not be recognised"),
    "the tenant": ("- {property: maxFuture", "- {property: tenantField, value: city}\n      - {property: maxFuture",
                   "tenantField: fixed: tenant_id cannot become city", "partitioned"),
    "the buckets": ("value: tenant}", "value: bucket(8)}", "tenantPartition: fixed", "partitioned"),
    "the granularity": ("value: day}", "value: hour}", "partitionGranularity: fixed", "partitioned"),
    "the event time": ("- {property: maxFuture", "- {property: eventTimeField, value: placed_at}\n      - {property: maxFuture",
                       "eventTimeField: fixed", "timed by the former"),
    "a version field": ("- {property: maxFuture", "- {property: versionField, value: items}\n      - {property: maxFuture",
                        "versionField: fixed", "not be recognised"),
    "refused unknown fields": ("value: ignore", "value: quarantine", "unknownFieldPolicy: policy", "right so far"),
    "a nearer future": ("maxFuture, value: PT1H", "maxFuture, value: PT30M", "maxFuture: limit", "quarantine"),
    "no lookup column": ("      - {property: enrichments, value: [{lookup: cities, key: city, columns: {name: city_name}}]}\n", "",
                         "city_name: enrichment", "leave it in"),
}  # fmt: skip


@pytest.fixture
def version(tmp_path):
    """Reads the contract, with an edit, under a version."""

    def read(old="", new="", number="1.4.0"):
        assert old in CONTRACT
        path = tmp_path / "orders.odcs.yaml"
        path.write_text(re.sub(r"(?m)^version: .*", f"version: {number}", CONTRACT.replace(old, new, 1)))
        return load_contract(path)

    return read


@pytest.mark.parametrize("name", COMPATIBLE)
def test_what_accepts_all_that_was_accepted_may_follow_under_a_higher_version(version, name):
    old, new, expected = COMPATIBLE[name]
    changes = compare(version(), version(old, new, "1.5.0"))
    refuse_breaking(version(), version(old, new, "1.5.0"), changes)
    assert any(described(change).startswith(expected) for change in changes), [described(c) for c in changes]
    same = version(old, new)
    with pytest.raises(EvolutionError, match=r"1\.4\.0 is published already, with other contents: raise it"):
        refuse_breaking(version(), same, compare(version(), same))


@pytest.mark.parametrize("name", OPERATIONAL)
def test_what_changes_no_event_and_no_column_needs_no_new_version(version, name):
    old, new, expected = OPERATIONAL[name]
    changes = compare(version(), version(old, new))
    assert [change.compatible for change in changes] == [True]
    assert expected in described(changes[0])


@pytest.mark.parametrize("name", INCOMPATIBLE)
def test_what_would_break_something_is_refused_with_field_rule_and_reason(version, name):
    old, new, place, why = INCOMPATIBLE[name]
    after = version(old, new, "2.0.0")
    with pytest.raises(EvolutionError) as error:
        refuse_breaking(version(), after, compare(version(), after))
    [reason] = [reason for reason in error.value.reasons if reason.startswith(place)]
    assert why in reason
    assert reason in str(error.value)
    assert "freshdata contract diff orders" in error.value.remedy
    assert "\n" not in str(error.value)


def test_every_refused_change_is_named_at_once(version):
    after = version("minimum: 1, maximum: 9", "minimum: 2, maximum: 8", "0.9.0")
    with pytest.raises(EvolutionError) as error:
        refuse_breaking(version(), after, compare(version(), after))
    assert [reason.split(":")[0] for reason in error.value.reasons] == ["items", "items", "version"]


def test_a_contract_is_no_change_of_itself(version):
    assert compare(version(), version()) == []


def test_a_contract_survives_its_publication(version):
    contract = version()
    assert parse_contract("published", contract_text(contract)) == contract
    with pytest.raises(ContractError, match="published"):
        parse_contract("published", "{}")


def test_versions_are_ordered_by_number(version):
    assert version_key("1.10") > version_key("1.9.3") > version_key("1.9")
    assert version_key("1.0.0") == version_key("1")
    with pytest.raises(ContractError, match="numbers and dots"):
        version(number="next")


OPERATIONS = "{field: state, update: [new], delete: [paid]}"
FUTURE = "- {property: maxFuture"
OPERATION_CHANGES = [
    ("", OPERATIONS, "operations: setting: state says", True),
    (OPERATIONS, "{field: state, update: [new], delete: [paid], deleteMode: soft}", "operations: deleteMode: hard becomes soft", True),
    (OPERATIONS, "{field: state, update: [new, sent], delete: [paid]}", "operations: values: 'sent' is a new update", True),
    (OPERATIONS, "", "operations: removed: the stored deletes would count as rows", False),
    (OPERATIONS, "{field: state, insert: [new], delete: [paid]}", "operations: values: 'new' cannot become insert", False),
    (OPERATIONS, "{field: kind, update: [new], delete: [paid]}", "operations: field: state cannot become kind", False),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "reason", "compatible"), OPERATION_CHANGES)
def test_what_the_stored_rows_say_they_do_stays_so(tmp_path, before, after, reason, compatible):
    path = tmp_path / "orders.odcs.yaml"
    kind = f"      - {{name: kind, logicalType: string, physicalType: string, required: true, enum: {STATES}}}\n"

    def read(operations, number):
        text = CONTRACT.replace("version: 1.4.0", f"version: {number}").replace(LAST, kind + LAST)
        if "sent" in operations:
            text = text.replace(STATES, STATES.replace("]", ", {value: sent}]"))
        if operations:
            text = text.replace(FUTURE, f"- {{property: operations, value: {operations}}}\n      {FUTURE}")
        path.write_text(text)
        return load_contract(path)

    changes = [
        change for change in compare(read(before, "1.4.0"), read(after, "1.5.0")) if change.field == "operations"
    ]
    assert [change.compatible for change in changes] == [compatible]
    assert described(changes[0]).startswith(reason)


TYPES = [pa.int32(), pa.int64(), pa.float64(), pa.string(), pa.bool_(), pa.date32(), pa.timestamp("us"),
         pa.timestamp("us", "UTC"), pa.decimal128(9, 2), pa.decimal128(12, 2), pa.decimal128(9, 3)]  # fmt: skip


@pytest.mark.parametrize("before", TYPES, ids=str)
@pytest.mark.parametrize("after", TYPES, ids=str)
def test_no_type_widens_that_iceberg_could_not_read_from_old_files(before, after):
    old, new = (
        assign_fresh_schema_ids(_pyarrow_to_schema_without_ids(pa.schema([("x", kind)]))).fields[0].field_type
        for kind in (before, after)
    )
    if widens(before, after) and before != after:
        assert promote(old, new) == new
    elif before != after and not pa.types.is_decimal(before):
        with pytest.raises(ResolveError):
            promote(old, new)
