"""What contracts say of enrichment is checked when they are read, with a way on for each mistake."""

import pytest

from freshdata.contracts import load_contract, load_contracts
from freshdata.contracts.model import Enrichment, Validity
from freshdata.errors import ContractError
from tests.documents import contract_text

STREAM = contract_text(
    "sales",
    "A sale.",
    [
        "sale_id string key",
        "shop string required",
        "sold_at timestamptz required",
        "{name: product, logicalType: integer, physicalType: int}",
    ],
    {"tenantField": "shop", "eventTimeField": "sold_at", "enrichments": "ENRICHMENTS"},
    owner="shop",
)
LOOKUP = """
apiVersion: v3.2.0
kind: DataContract
id: urn:test:prices
name: prices
version: 1.0.0
status: active
schema:
  - name: prices
    customProperties:
      - {property: kind, value: lookup}
      - {property: validFromField, value: since}
      - {property: validToField, value: until}
    properties:
      - {name: product, logicalType: integer, physicalType: int, primaryKey: true, primaryKeyPosition: 1}
      - {name: since, logicalType: timestamp, physicalType: timestamptz, primaryKey: true, primaryKeyPosition: 2}
      - {name: until, logicalType: timestamp, physicalType: timestamptz}
      - {name: price, logicalType: integer, physicalType: bigint}
      - {name: day, logicalType: date, physicalType: date}
"""
RIGHT = "[{lookup: prices, key: product, columns: {price: unit_price}}]"
BEGIN, END = "{property: validFromField, value: since}", "{property: validToField, value: until}"


def load(folder, enrichments=RIGHT, old="", new=""):
    assert old in LOOKUP
    (folder / "sales.odcs.yaml").write_text(STREAM.replace("ENRICHMENTS", enrichments))
    (folder / "prices.odcs.yaml").write_text(LOOKUP.replace(old, new) if old else LOOKUP)
    return load_contracts(folder)


def test_a_lookup_with_validity_is_read(tmp_path):
    contracts = load(tmp_path)
    assert contracts["prices"].validity == Validity("since", "until")
    assert contracts["sales"].validity is None
    assert contracts["sales"].rules.enrichments == (Enrichment("prices", "product", {"price": "unit_price"}),)
    assert load(tmp_path, old=f"      - {END}\n")["prices"].validity == Validity("since", None)


@pytest.mark.parametrize(
    ("enrichments", "complaint", "remedy"),
    [
        ("prices", "an enrichment is 'prices'", "lookup: NAME"),
        ("[{lookup: prices, key: product}]", "an enrichment is", "lookup: NAME"),
        ("[{lookup: prices, key: product, columns: [price]}]", "columns are", "lookup: NAME"),
        ("[{lookup: prices, key: product, columns: {}}]", "columns are {}", "lookup: NAME"),
        ("[{lookup: prices, key: article, columns: {price: p}}]", "key is 'article'", "schema.properties"),
        ("[{lookup: prices, key: product, columns: {price: 'a;b'}}]", "not a valid name", "lower case"),
        ("[{lookup: prices, key: product, columns: {price: 5}}]", "not a valid name", "lower case"),
        ("[{lookup: prices, key: product, columns: {price: shop}}]", "adds the column shop", "NEW_NAME"),
        ("[{lookup: prices, key: product, columns: {price: event_date}}]", "adds the column event_date", "NEW_NAME"),
        ("[{lookup: prices, key: product, columns: {price: ingestion_date}}]", "the column ingestion_date", "NEW_NAME"),
        ("[{lookup: prices, key: product, columns: {price: p, since: p}}]", "adds the column p", "NEW_NAME"),
        ("[{lookup: costs, key: product, columns: {price: p}}]", "no lookup of this name", "prices"),
        ("[{lookup: sales, key: product, columns: {price: p}}]", "no lookup of this name", "kind: lookup"),
        ("[{lookup: prices, key: product, columns: {cost: p}}]", "takes cost from the lookup prices", "price"),
        ("[{lookup: prices, key: shop, columns: {price: p}}]", "field shop is string, but the key product", "same"),
    ],
)
def test_a_wrong_enrichment_is_refused(tmp_path, enrichments, complaint, remedy):
    with pytest.raises(ContractError) as raised:
        load(tmp_path, enrichments)
    assert complaint in str(raised.value)
    assert remedy in raised.value.remedy


@pytest.mark.parametrize(
    ("old", "new", "complaint", "remedy"),
    [
        (BEGIN, "{property: validFromField, value: begin}", "validity is given by begin and until", "timestamptz"),
        (BEGIN, "{property: validFromField, value: price}", "fields of one type, a time", "timestamptz"),
        (END, "{property: validToField, value: day}", "fields of one type, a time", "midnight UTC"),
        (f"      - {BEGIN}\n", "", "only a lookup's rows are valid for a time", "validFromField"),
        (", primaryKey: true, primaryKeyPosition: 2", "", "the primary key is (product)", "since as 2"),
        ("primaryKeyPosition: 1", "primaryKeyPosition: 3", "the primary key is (since, product)", "since as 2"),
        (f"      - {BEGIN}\n      - {END}\n", "", "whose primary key is (product, since)", "one key field"),
    ],
)
def test_wrong_validity_is_refused(tmp_path, old, new, complaint, remedy):
    with pytest.raises(ContractError) as raised:
        load(tmp_path, old=old, new=new)
    assert complaint in str(raised.value)
    assert remedy in raised.value.remedy


def test_a_stream_has_no_validity(tmp_path):
    path = tmp_path / "sales.odcs.yaml"
    path.write_text(STREAM.replace("{property: enrichments, value: ENRICHMENTS}", BEGIN))
    with pytest.raises(ContractError, match="only a lookup's rows are valid for a time") as raised:
        load_contract(path)
    assert "kind: lookup" in raised.value.remedy
