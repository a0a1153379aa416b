"""What a database's tables can hold is captured as it is, and what cannot be captured is refused with what helps."""

from datetime import UTC, date, datetime, time
from decimal import Decimal

import numpy as np
import pytest
import yaml

from freshdata.cdc.add import add
from freshdata.cdc.recovery import remove
from freshdata.cdc.source import read_sources
from freshdata.contracts.changes import ChangeDecoder
from freshdata.errors import CaptureError
from freshdata.registry.client import open_registry
from tests.capturing import capture_stack, execute, records

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def stack(broker):
    with capture_stack(broker) as running:
        yield running


EVERY_TYPE = """
create type mood as enum ('sad', 'ok');
create domain euro as numeric(8,2) check (value >= 0);
create domain price as euro not null;
create table every_type (
  id bigint primary key, small smallint, whole integer not null, big bigint, single real, twice double precision,
  free numeric, exact numeric(10,2), widest numeric(38,0), wider numeric(40,5), fraction numeric(3,5), paid euro,
  cost price, yes boolean, day date, clock time, short_clock time(3), local timestamp, local_ms timestamp(3),
  moment timestamptz, uid uuid, doc json, docb jsonb, feeling mood, raw bytea, words text, limited varchar(10),
  fixed char(5),
  bit_one bit(1), numbers integer[], amounts numeric(10,2)[], texts text[], uids uuid[], moments timestamptz[],
  days date[], raws bytea[], docs jsonb[], feelings mood[], doubles float8[], flags boolean[], locals timestamp[],
  span interval, host inet, net cidr, mac macaddr, coins money, markup xml, span_of int4range, found tsvector,
  "giftWrap" boolean, "_x" integer, ingestion_date date
);
alter table every_type replica identity full;
insert into every_type values
 (1, -32768, 2147483647, 9223372036854775807, 1.5, 0.1, 123456789012345678901234567890.123456789, -12.30,
  99999999999999999999999999999999999999, 12345678901234567890123456789012345.12345, 0.00123, 1.5, 2, true,
  '0001-01-02', '23:59:59.999999', '12:34:56.789', '9999-12-29 23:59:59.999999', '2024-02-29 12:34:56.789',
  '2024-02-29 12:34:56.789012+02', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": 1.0}', '{"b": [1, 2.50, null]}', 'ok',
  '\\x00ff10', 'tëxt "月"', 'vc', 'c', B'1', '{1,NULL,-3}', '{1.50,NULL}', '{a,NULL,"c d",""}',
  '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}', '{2024-02-29 12:34:56.5+00}', '{2024-02-29}', '{"\\\\x00ff"}',
  array['{"k": 1}'::jsonb], '{sad}', '{1.5,-2}', '{t,f}', '{2024-02-29 12:34:56}', '1 year 2 mons 3 days 04:05:06.7',
  '10.0.0.1/24', '10.0.0.0/8', '08:00:2b:01:02:03', 12.34, '<a/>', '[1,5)', 'a b', true, 7, '2024-01-01');
insert into every_type (id, whole, cost) values (2, 0, 0);
insert into every_type (id, whole, cost, numbers, texts, raw, words, docb) values (3, 0, 0, '{}', '{}', '', '', '{}');
"""
EXPECTED = {
    "id": "bigint", "small": "int", "whole": "int", "big": "bigint", "single": "double", "twice": "double",
    "free": "string", "exact": "decimal(10,2)", "widest": "decimal(38,0)", "wider": "string",
    "fraction": "decimal(5,5)", "paid": "decimal(8,2)", "cost": "decimal(8,2)", "yes": "boolean", "day": "date",
    "clock": "time",
    "short_clock": "time", "local": "timestamp_ntz", "local_ms": "timestamp_ntz", "moment": "timestamptz",
    "uid": "string", "doc": "string", "docb": "string", "feeling": "string", "raw": "binary", "words": "string",
    "limited": "string", "fixed": "string", "bit_one": "boolean", "numbers": "array<int>",
    "amounts": "array<decimal(10,2)>", "texts": "array<string>", "uids": "array<string>",
    "moments": "array<timestamptz>", "days": "array<date>", "raws": "array<binary>", "docs": "array<string>",
    "feelings": "array<string>", "doubles": "array<double>", "flags": "array<boolean>",
    "locals": "array<timestamp_ntz>", "span": "string", "host": "string", "net": "string", "mac": "string",
    "coins": "decimal(19,2)", "markup": "string", "span_of": "string", "found": "string", "gift_wrap": "boolean",
    "c_x": "int", "ingestion_date_": "date",
}  # fmt: skip
WITHOUT_ZONE = datetime.fromisoformat("2024-02-29T12:34:56")
VALUES = {
    "id": 1, "small": -32768, "whole": 2147483647, "big": 9223372036854775807, "single": 1.5, "twice": 0.1,
    "free": "123456789012345678901234567890.123456789", "exact": Decimal("-12.30"), "widest": Decimal("9" * 38),
    "wider": "12345678901234567890123456789012345.12345", "fraction": Decimal("0.00123"), "paid": Decimal("1.50"),
    "cost": Decimal("2.00"), "yes": True, "day": date(1, 1, 2), "clock": time(23, 59, 59, 999999),
    "short_clock": time(12, 34, 56, 789000), "local": datetime.fromisoformat("9999-12-29T23:59:59.999999"),
    "local_ms": WITHOUT_ZONE.replace(microsecond=789000),
    "moment": datetime(2024, 2, 29, 10, 34, 56, 789012, tzinfo=UTC), "uid": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "doc": '{"a": 1.0}', "docb": '{"b": [1, 2.50, null]}', "feeling": "ok", "raw": b"\x00\xff\x10",
    "words": 'tëxt "月"', "limited": "vc", "fixed": "c    ", "bit_one": True, "numbers": [1, None, -3],
    "amounts": [Decimal("1.50"), None], "texts": ["a", None, "c d", ""],
    "uids": ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    "moments": [datetime(2024, 2, 29, 12, 34, 56, 500000, tzinfo=UTC)], "days": [date(2024, 2, 29)],
    "raws": [b"\x00\xff"], "docs": ['{"k": 1}'], "feelings": ["sad"], "doubles": [1.5, -2.0], "flags": [True, False],
    "locals": [WITHOUT_ZONE], "span": "P1Y2M3DT4H5M6.7S", "host": "10.0.0.1/24",
    "net": "10.0.0.0/8", "mac": "08:00:2b:01:02:03", "coins": Decimal("12.34"), "markup": "<a/>", "span_of": "[1,5)",
    "found": "'a' 'b'", "gift_wrap": True, "c_x": 7, "ingestion_date_": date(2024, 1, 1),
}  # fmt: skip


def test_every_type_arrives_as_it_is(stack):
    dsn = stack.database("types")
    execute(dsn, EVERY_TYPE)
    added = add(stack.settings, dsn=dsn, tables=["every_type"])
    source, contract = added.source, added.contracts["public.every_type"]
    document = yaml.safe_load((stack.settings.contracts_dir / f"{contract.name}.odcs.yaml").read_text())
    properties = {item["name"]: item for item in document["schema"][0]["properties"]}
    assert {name: item["physicalType"] for name, item in properties.items()} == EXPECTED
    assert {name for name, item in properties.items() if item.get("required")} == {"id", "whole"}
    assert [value["value"] for value in properties["feeling"]["enum"]] == ["sad", "ok"]
    assert properties["limited"]["logicalTypeOptions"] == {"maxLength": 10}
    assert properties["gift_wrap"]["physicalName"] == "giftWrap"
    execute(dsn, "update every_type set small = small")
    stack.caught_up(source.name)
    assert_faithful(
        ChangeDecoder(contract), raw(stack, source.topic("public.every_type")), ["r", "r", "r", "u", "u", "u"]
    )
    remove(stack.settings, source)


def assert_faithful(decode, messages, operations):
    """The three rows of ``every_type`` are in the messages, first read and then updated, with each value as it is."""
    decoded = decode(messages, None, np.zeros(len(messages), dtype=np.int64))
    assert decoded.rejected == []
    assert decoded.rows["_op"].to_pylist() == operations
    rows = decoded.rows.select(list(EXPECTED)).to_pylist()
    assert rows[3:] == rows[:3]
    first, second, third = rows[:3]
    assert first == VALUES
    zero = Decimal("0.00")
    assert {name: value for name, value in second.items() if value is not None} == {"id": 2, "whole": 0, "cost": zero}
    empty = {"id": 3, "whole": 0, "cost": zero, "numbers": [], "texts": [], "raw": b"", "words": "", "docb": "{}"}
    assert {name: value for name, value in third.items() if value is not None} == empty


def raw(stack, topic):
    return [value for _, value in records(stack.settings, topic) if value is not None]


def test_every_type_arrives_as_it_is_in_avro_too(stack, registry):
    settings = stack.settings.model_copy(update={"schema_registry_url": registry})
    dsn = stack.database("types_avro")
    execute(dsn, EVERY_TYPE)
    with pytest.raises(CaptureError, match="need an Apicurio registry"):
        add(stack.settings, dsn=dsn, tables=["every_type"], avro=True)
    added = add(settings, dsn=dsn, tables=["every_type"], avro=True)
    execute(dsn, "update every_type set small = small")
    stack.caught_up(added.source.name)
    values = raw(stack, added.source.topic("public.every_type"))
    assert all(value[0] == 0 for value in values)
    decode = ChangeDecoder(added.contracts["public.every_type"], open_registry(settings).schema)
    assert_faithful(decode, values, ["r", "r", "r", "u", "u", "u"])
    assert add(settings, dsn=dsn).source.avro
    remove(settings, added.source)


REFUSED = """
create table no_key (n int);
create unlogged table unlogged (id int primary key);
create table "with space" (id int primary key);
create view seen as select 1 as id;
create table parts (id int primary key) partition by range (id);
create table odd (
  id int primary key, at timetz, bits bit(5), place point, round numeric(3,-2), grid int[][],
  twice int generated always as (id * 2) stored
);
create table long_lists (id int primary key, amounts numeric[]);
create table unnamed (id int primary key);
alter table unnamed replica identity nothing;
create role guest login password 'guest';
"""


def refused(stack, dsn, tables, *told):
    with pytest.raises(CaptureError) as raised:
        add(stack.settings, dsn=dsn, tables=tables)
    reasons = "\n".join(raised.value.reasons)
    for reason in told:
        assert reason in reasons


def test_what_cannot_be_captured_is_refused_with_what_helps(stack):
    dsn = stack.database("refused")
    execute(dsn, REFUSED)
    tables = ["no_key", "unlogged", "with space", "seen", "parts", "odd", "long_lists", "unnamed"]
    refused(
        stack,
        dsn,
        tables,
        "public.no_key has no primary key",
        "`ALTER TABLE public.unlogged SET LOGGED`",
        "'public.with space' is a name that Debezium's signals cannot hold",
        "public.seen is a view",
        "public.parts is a partitioned table: name tables, its partitions",
        "public.odd.at (time with time zone): Debezium moves its values to UTC; leave it out with --without",
        "public.odd.bits (bit(5))",
        "public.odd.place (point)",
        "public.odd.round (numeric(3,-2)): its scale is below zero",
        "public.odd.grid (integer[])",
        "public.odd.twice (integer): PostgreSQL computes it",
        "`ALTER TABLE public.long_lists REPLICA IDENTITY FULL`",
        "public.unnamed does not log its primary key",
    )
    with pytest.raises(CaptureError, match=r"there is no table public\.nothing\. There are: public\.long_lists"):
        add(stack.settings, dsn=dsn, tables=["nothing"])
    guest = dsn.replace(dsn.split("//")[1].split("@")[0], "guest:guest")
    refused(
        stack,
        guest,
        ["long_lists"],
        "`ALTER ROLE guest REPLICATION`",
        "`GRANT CREATE ON DATABASE refused TO guest`",
        "`GRANT SELECT ON public.long_lists TO guest`",
        "`GRANT freshdata TO guest`",
    )
    with pytest.raises(CaptureError, match="password authentication failed") as raised:
        add(stack.settings, dsn=guest.replace(":guest@", ":wr0ng-pass@"), tables=["long_lists"])
    assert "wr0ng-pass" not in str(raised.value)
    # Nothing of all this has left a trace.
    assert execute(dsn, "select count(*) from pg_publication") == [(0,)]
    assert not list(stack.settings.contracts_dir.glob("refused*"))
    assert "refused" not in read_sources(stack.settings)
    without = ["odd.at", "odd.bits", "odd.place", "odd.round", "odd.grid", "public.odd.twice"]
    added = add(stack.settings, dsn=dsn, tables=["odd"], without=without)
    assert [column.name for column in added.contracts["public.odd"].columns] == ["id"]
    remove(stack.settings, added.source)
