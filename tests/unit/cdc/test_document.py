"""The contract of a captured table follows the table, and never becomes narrower than the rows that are stored."""

from dataclasses import replace

import pytest

from freshdata.cdc.document import contract_name, followed_document, new_document
from freshdata.cdc.inspection import Server, SourceColumn, SourceTable
from freshdata.cdc.prerequisites import server_problems, table_problems, toast_advice
from freshdata.cdc.source import Source
from freshdata.errors import CaptureError

SOURCE = Source("shop", "7", {"dbname": "shop", "user": "reader"}, (), ())


def column(name, base="int4", modifier=-1, **changes):
    plain = SourceColumn(name, base, base, "b", modifier, False, 0, False, False, False, "", [])  # noqa: FBT003
    return replace(plain, **changes)


def table(*columns, **changes):
    columns = [column("id", required=True), *columns]
    found = SourceTable(columns, "public", "t", "r", "p", "d", "", True, True, "owner", ["id"])  # noqa: FBT003
    return replace(found, **changes)


def numeric(precision, scale):
    return (precision << 16 | scale) + 4


def properties(document):
    return {item["name"]: item for item in document["schema"][0]["properties"]}


def test_names_are_safe():
    assert contract_name(SOURCE, table(name="OrderLines")) == "shop_order_lines"
    assert contract_name(SOURCE, table(schema="Billing", name="2nd")) == "shop_billing_c_2nd"
    found = properties(new_document(SOURCE, table(column("giftWrap"), column("ingestion_date"), column("größe"))))
    assert {name: item.get("physicalName") for name, item in found.items()} == {
        "id": None,
        "gift_wrap": "giftWrap",
        "ingestion_date_": "ingestion_date",
        "gr_e": "größe",
    }
    with pytest.raises(CaptureError, match="would both be named a_b"):
        new_document(SOURCE, table(column("a_b"), column("a b")))
    with pytest.raises(CaptureError, match="--name"):
        contract_name(SOURCE, table(name="x" * 60))


def test_an_unchanged_table_leaves_its_document_as_it_is():
    before = table(column("n", "numeric", numeric(10, 2)), column("w", "varchar", 9, required=True))
    document = new_document(SOURCE, before)
    document["schema"][0]["properties"][1]["description"] = "written by hand"
    assert followed_document(document, SOURCE, before) is document


def test_a_changed_table_is_followed_but_never_narrower():
    before = table(
        column("small"),
        column("big", "int8"),
        column("amount", "numeric", numeric(10, 2)),
        column("fee", "numeric", numeric(10, 2)),
        column("word", "varchar", 14),
        column("code", "varchar", 14),
        column("gone", required=True),
        column("loose", required=True),
        column("strict"),
        column("mood", kind="e", labels=["sad"]),
    )
    document = new_document(SOURCE, before)
    document["schema"][0]["properties"][1]["quality"] = [{"id": "mine"}]
    after = table(
        column("small", "int8"),
        column("big", "int4"),
        column("amount", "numeric", numeric(12, 2)),
        column("fee", "numeric", numeric(8, 2)),
        column("word", "text"),
        column("code", "varchar", 9),
        column("loose"),
        column("strict", required=True),
        column("mood", kind="e", labels=["sad", "ok"]),
        column("added", required=True),
    )
    followed = followed_document(document, SOURCE, after)
    found = properties(followed)
    assert followed["version"] == "1.1.0"
    types = {name: item["physicalType"] for name, item in found.items()}
    assert types == {
        "id": "int",
        "small": "bigint",
        "big": "bigint",
        "amount": "decimal(12,2)",
        "fee": "decimal(10,2)",
        "word": "string",
        "code": "string",
        "gone": "int",
        "loose": "int",
        "strict": "int",
        "mood": "string",
        "added": "int",
    }
    assert found["small"]["quality"] == [{"id": "mine"}]
    assert "maxLength" not in found["word"]["logicalTypeOptions"]
    assert found["code"]["logicalTypeOptions"] == {"maxLength": 10}
    assert [value["value"] for value in found["mood"]["enum"]] == ["sad", "ok"]
    # Rows that are stored lack what is new, and changes to come lack what is gone.
    assert [name for name, item in found.items() if item.get("required")] == ["id"]
    assert followed_document(followed, SOURCE, after) is followed


def test_a_server_that_cannot_replicate_says_how_it_could():
    fine = Server(150000, "logical", "reader", True, True, 10, 3, False)  # noqa: FBT003
    assert server_problems(fine, SOURCE, known=False) == []
    lacking = Server(130000, "replica", "reader", False, False, 3, 3, False)  # noqa: FBT003
    told = "\n".join(server_problems(lacking, SOURCE, known=False))
    for remedy in ("upgrade", "ALTER SYSTEM SET wal_level = logical", "ALTER ROLE reader REPLICATION", "GRANT CREATE"):
        assert remedy in told
    assert "raise max_replication_slots" in told
    taken = replace(fine, has_slot=True)
    assert "choose another name with --name" in server_problems(taken, SOURCE, known=False)[0]
    assert server_problems(taken, SOURCE, known=True) == []


def test_values_that_a_change_may_not_tell():
    text = table(column("note", "text", toastable=True))
    assert table_problems(text, SOURCE) == []
    assert "REPLICA IDENTITY FULL" in toast_advice(text, SOURCE)[0]
    assert toast_advice(replace(text, identity="f"), SOURCE) == []
    assert toast_advice(text, replace(SOURCE, without=("public.t.note",))) == []
    lists = table(column("lists", "float8", array=True, dimensions=1, toastable=True))
    assert "REPLICA IDENTITY FULL" in table_problems(lists, SOURCE)[0]
    assert table_problems(replace(lists, identity="f"), SOURCE) == []
    assert table_problems(lists, replace(SOURCE, without=("public.t.lists",))) == []
    assert table_problems(table(column("amount", "numeric", numeric(20, 2), toastable=True)), SOURCE) == []
    assert "part of the primary key" in table_problems(table(), replace(SOURCE, without=("public.t.id",)))[0]


def test_avro_has_names_of_its_own():
    odd = table(column("größe"))
    assert table_problems(odd, SOURCE) == []
    assert "is no name in Avro" in table_problems(odd, replace(SOURCE, avro=True))[0]
