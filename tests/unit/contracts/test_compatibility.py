# ruff: noqa: E501 (tables of texts)
"""Field change by field change, what it breaks, and in which modes it may therefore be published."""

import re
from typing import get_args

import pytest

from freshdata.contracts import load_contract
from freshdata.contracts.evolution import compare, described, renames
from freshdata.contracts.model import Compatibility
from tests.documents import contract_text

CONTRACT = contract_text(
    "orders",
    "An order.",
    [
        "order_id string key",
        "tenant_id string required",
        "event_time timestamptz required",
        "city string required",
        '{name: note, logicalType: string, physicalType: string, logicalTypeOptions: {maxLength: 9, pattern: "^a"}}',
        "{name: items, logicalType: integer, physicalType: int, logicalTypeOptions: {minimum: 1, maximum: 9}}",
        "{name: weight, logicalType: number, physicalType: double}",
        '{name: price, logicalType: number, physicalType: "decimal(9,2)"}',
        "{name: state, logicalType: string, physicalType: string, required: true, enum: [{value: new}, {value: paid}]}",
    ],
    {"compatibility": "MODE", "schemaFormat": "FORMAT"},
    owner="shop",
)
NOTE = 'name: note, logicalType: string, physicalType: string, logicalTypeOptions: {maxLength: 9, pattern: "^a"}'
ITEMS = "logicalType: integer, physicalType: int, logicalTypeOptions: {minimum: 1, maximum: 9}"
STATES = "enum: [{value: new}, {value: paid}]"
CITY = "name: city, logicalType: string, physicalType: string, required: true"
COLOUR = "      - {name: colour, logicalType: string, physicalType: string%s}\nteam:"
ALIAS = "customProperties: [{property: aliases, value: [%s]}]"
B, F, S = "backward", "forward", "storage"
CHANGES = {
    "an optional field is added": ("team:", COLOUR % "", set()),
    "a required field is added": ("team:", COLOUR % ", required: true", {B}),
    "an optional field is removed": ("      - {name: weight, logicalType: number, physicalType: double}\n", "", {B}),
    "a required field is removed": (f"      - {{{CITY}}}\n", "", {B, F}),
    "optional becomes required": (f"{{{NOTE}", f"{{required: true, {NOTE}", {B}),
    "required becomes optional": (CITY, CITY.replace(", required: true", ""), {F}),
    "a field is renamed": (CITY, CITY.replace("name: city", f"id: city, name: town, {ALIAS % 'city'}"), {F}),
    "a field is renamed and forgets its name": (CITY, CITY.replace("name: city", "id: city, name: town"), {B, F}),
    "only the column is renamed": (CITY, CITY.replace("name: city", "id: city, physicalName: city, name: town"), set()),
    "only the events rename it": (CITY, CITY.replace("name: city", f"name: city, physicalName: theCity, {ALIAS % 'city'}"), {F}),
    "a name is another field's": ("{name: weight,", "{id: mass, name: weight,", {S, B}),
    "int becomes bigint": (ITEMS, ITEMS.replace("physicalType: int", "physicalType: bigint"), {F}),
    "int becomes double": (ITEMS, ITEMS.replace("logicalType: integer, physicalType: int", "logicalType: number, physicalType: double"), {S}),
    "int becomes string": (ITEMS, "logicalType: string, physicalType: string", {S, F}),
    "double becomes timestamp_ntz": ("logicalType: number, physicalType: double", "logicalType: timestamp, physicalType: timestamp_ntz", {S}),
    "a decimal gains digits": ("decimal(9,2)", "decimal(12,2)", {F}),
    "a decimal loses digits": ("decimal(9,2)", "decimal(8,2)", {S}),
    "a decimal has another scale": ("decimal(9,2)", "decimal(12,4)", {S}),
    "a decimal becomes double": ('"decimal(9,2)"', "double", {S}),
    "an enum gains a value": (STATES, "enum: [{value: new}, {value: paid}, {value: sent}]", {F}),
    "an enum loses a value": (STATES, "enum: [{value: new}]", {B}),
    "an enum changes a value": (STATES, "enum: [{value: new}, {value: sent}]", {B, F}),
    "an enum goes": (f", {STATES}", "", {F}),
    "an enum comes": (CITY, f"{CITY}, enum: [{{value: rome}}]", {B}),
    "a limit widens": ("minimum: 1,", "minimum: 0,", {F}),
    "a limit narrows": ("maximum: 9}", "maximum: 8}", {B}),
    "texts may be longer": ("maxLength: 9", "maxLength: 10", {F}),
    "a pattern goes": (', pattern: "^a"', "", {F}),
    "a pattern comes": (CITY, f'{CITY}, logicalTypeOptions: {{pattern: "^b"}}', {B}),
    "a pattern changes": ('"^a"', '"^b"', {B, F}),
    "a description changes": (CITY, f"{CITY}, description: Where to", set()),
    "the order of fields changes": (f"      - {{{CITY}}}\n      - {{{NOTE}}}\n", f"      - {{{NOTE}}}\n      - {{{CITY}}}\n", set()),
}  # fmt: skip
FORBIDS = {"BACKWARD": {S, B}, "FORWARD": {S, F}, "FULL": {S, B, F}, "NONE": {S}}


@pytest.fixture
def version(tmp_path):
    """Reads the contract, with edits, under a version and in a mode."""

    def read(*edits, number="1.0.0", mode="BACKWARD", schema="avro"):
        text = CONTRACT.replace("MODE", mode).replace("FORMAT", schema)
        for old, new in edits:
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / "orders.odcs.yaml"
        path.write_text(re.sub(r"(?m)^version: .*", f"version: {number}", text))
        return load_contract(path)

    return read


@pytest.mark.parametrize("mode", get_args(Compatibility))
@pytest.mark.parametrize("name", CHANGES)
def test_a_mode_refuses_what_breaks_what_it_is_for(version, name, mode):
    old, new, breaks = CHANGES[name]
    before, after = version(mode=mode), version((old, new), number="1.1.0", mode=mode)
    changes = compare(before, after)
    assert {kind for change in changes for kind in change.breaks} == breaks, [described(c) for c in changes]
    refused = [change for change in changes if not change.compatible]
    assert bool(refused) == bool(breaks & FORBIDS[mode.removesuffix("_TRANSITIVE")])
    assert all(change.field and change.rule and change.reason for change in refused)


def test_transitive_modes_look_at_every_version_before(version):
    gained, lost = (STATES, "enum: [{value: new}, {value: paid}, {value: sent}]"), (STATES, "enum: [{value: new}]")
    first = version(gained, number="1.0.0", mode="NONE")
    second = version(lost, number="1.1.0", mode="NONE")
    for mode, refused in (
        ("BACKWARD", False),
        ("BACKWARD_TRANSITIVE", True),
        ("FULL_TRANSITIVE", True),
        ("FORWARD_TRANSITIVE", True),
    ):
        third = version(number="1.2.0", mode=mode)
        changes = compare(second, third, [first])
        assert any(not change.compatible for change in changes) == refused, mode
    [told] = [
        c for c in compare(second, version(number="1.2.0", mode="BACKWARD_TRANSITIVE"), [first]) if not c.compatible
    ]
    assert (told.field, told.rule) == ("state", "enum")
    assert "'sent' cannot be removed" in told.reason
    assert "since version 1.0.0" in told.reason


def test_a_rename_is_no_removal_and_addition(version):
    renamed = version((CITY, CITY.replace("name: city", f"id: city, name: town, {ALIAS % 'city'}")), number="1.1.0")
    assert renames(version(), renamed) == {"city": "town"}
    assert {(c.field, c.rule) for c in compare(version(), renamed)} == {("town", "renamed"), ("", "version")}
    # And once more, with all its names.
    again = version(
        (CITY, CITY.replace("name: city", f"id: city, name: place, {ALIAS % 'city, town'}")), number="1.2.0"
    )
    assert renames(renamed, again) == {"town": "place"}
    assert all(change.compatible for change in compare(renamed, again, [version()]))
    forgets = version((CITY, CITY.replace("name: city", f"id: city, name: place, {ALIAS % 'town'}")), number="1.2.0")
    [refused] = [change for change in compare(renamed, forgets) if not change.compatible]
    assert "events so far may name it city: list that in its aliases" in refused.reason


def test_what_readers_would_not_understand_names_version_and_mode(version):
    after = version(("minimum: 1,", "minimum: 0,"), number="1.1.0", mode="FULL")
    [refused] = [change for change in compare(version(mode="FULL"), after) if not change.compatible]
    assert "whoever reads by version 1.0.0 would not understand the new events (FULL)" in refused.reason
