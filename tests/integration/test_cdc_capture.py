"""A database's tables are captured by a real Debezium: whole, in order, and over the death of everybody involved."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from decimal import Decimal

import numpy as np
import psutil
import pytest
import yaml
from prometheus_client import generate_latest

from freshdata.cdc.add import add
from freshdata.cdc.connector import Connect
from freshdata.cdc.health import read_health
from freshdata.cdc.recovery import recover, remove
from freshdata.cdc.signals import ask_snapshot
from freshdata.cdc.source import connect, read_sources
from freshdata.cdc.watch import GAUGES, CaptureMetrics, Restarts
from freshdata.contracts.changes import ChangeDecoder
from freshdata.errors import CaptureError, EvolutionError, ServiceError
from freshdata.registry.client import open_registry
from freshdata.sample.shop import DATABASE, TABLES, create_shop, shop_address, use_shop
from freshdata.services.kafka import end_offsets
from freshdata.services.postgres import find_postgres
from freshdata.settings import PROJECT
from tests.capturing import (
    assert_equal,
    capture_stack,
    changes,
    current_rows,
    execute,
    position,
    records,
    source_rows,
)
from tests.streams import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def stack(broker):
    with capture_stack(broker) as running:
        yield running


@pytest.fixture
def simple(stack, request):
    """A source with one captured table of ten rows, removed at the end."""
    name = request.node.name.removeprefix("test_")[:30]
    dsn = stack.database(name)
    execute(dsn, "create table t (id int primary key, n int); insert into t select g, 0 from generate_series(1, 10) g")
    source = add(stack.settings, dsn=dsn, tables=["t"]).source
    wait_for(lambda: has(stack, source, 10), "the snapshot")
    yield source, dsn
    remove(stack.settings, source)


def has(stack, source, count):
    return sum(end_offsets(stack.settings, source.topic("public.t")).values()) >= count


@contextmanager
def people(dsn, rate=150):
    """People who use the shop meanwhile; yields what they have done, which is complete at the end."""
    stop, done = threading.Event(), {}

    def work():
        done.update(use_shop(dsn, rate=rate, stop=stop))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def test_what_an_addition_that_failed_has_left_undone_is_done_by_the_next(stack, simple, monkeypatch):
    source, dsn = simple
    execute(dsn, "create table u (id int primary key); insert into u select generate_series(1, 5)")

    def fail(*_, **__):
        raise ServiceError("connect", "It has gone.", remedy="Wait.")

    with monkeypatch.context() as away:
        away.setattr(Connect, "register", fail)
        with pytest.raises(ServiceError):
            add(stack.settings, dsn=dsn, tables=["u"])
    assert add(stack.settings, dsn=dsn, tables=["u"]).snapshots == ["public.u"]
    wait_for(lambda: sum(end_offsets(stack.settings, source.topic("public.u")).values()) >= 5, "the new table's rows")

    # One whose connector somebody has removed goes on where it was.
    stack.caught_up(source.name)
    stack.api.remove(source.name)
    execute(dsn, "insert into t values (11, 0)")
    add(stack.settings, dsn=dsn)
    wait_for(lambda: has(stack, source, 11), "the change meanwhile")
    found = changes(stack.settings, source.topic("public.t"))
    assert [change["op"] for change in found] == ["r"] * 10 + ["c"]

    # Nor is it forgotten that a table with another column has to be read.
    execute(dsn, "alter table t add more int default 7")
    with monkeypatch.context() as away:
        away.setattr("freshdata.cdc.add.ask_snapshot", fail)
        with pytest.raises(ServiceError):
            add(stack.settings, dsn=dsn)
    assert add(stack.settings, dsn=dsn).snapshots == ["public.t"]
    topic = source.topic("public.t")
    wait_for(lambda: current_rows(changes(stack.settings, topic)) == source_rows(dsn, "t"), "the new column's values")
    assert add(stack.settings, dsn=dsn).snapshots == []


def test_the_shop_under_load_and_over_kills(stack):
    create_shop(stack.settings)
    dsn = shop_address(stack.settings)
    with people(dsn):
        # The hand-over from the snapshot to the changes happens while people go on.
        source = add(stack.settings, dsn=dsn, tables=TABLES, name=DATABASE).source
        orders = source.topic("public.orders")
        wait_for(lambda: sum(end_offsets(stack.settings, orders).values()) > 500, "changes after the snapshot")
    stack.caught_up("shop")
    assert_equal(stack, source, dsn)
    told = [change for table in source.tables for change in changes(stack.settings, source.topic(table)) if change]
    once = {(change["source"]["table"], str(change["key"]), position(change), change["op"]) for change in told}
    assert len(once) == len(told)
    assert {change["op"] for change in told} == {"r", "c", "u", "d"}
    rows = sum(execute(dsn, f"select count(*) from {table}")[0][0] for table in TABLES)
    assert sum(change["op"] == "r" for change in told) < rows

    with people(dsn) as done:
        stack.kill("connect")
        before = sum(end_offsets(stack.settings, orders).values())
        wait_for(lambda: sum(end_offsets(stack.settings, orders).values()) > before + 20, "changes after Connect's end")
        stack.kill("postgres")
        watched(stack, source)
        before = sum(end_offsets(stack.settings, orders).values())
        wait_for(lambda: sum(end_offsets(stack.settings, orders).values()) > before + 20, "changes after PostgreSQL's")
        # Every row is read again, in pieces, beside the changes.
        with connect(source) as connection:
            ask_snapshot(connection, source, ["public.customers"])
        number = execute(dsn, "select count(*) from customers")[0][0]

        def read_again():
            found = changes(stack.settings, source.topic("public.customers"))
            return sum(bool(c) and c["source"]["snapshot"] == "incremental" for c in found) > number / 2

        wait_for(read_again, "the incremental snapshot")
    assert done["rolled back"] >= 0
    stack.caught_up("shop")
    assert_equal(stack, source, dsn)
    again = [change for table in source.tables for change in changes(stack.settings, source.topic(table)) if change]
    by_place = {}
    for change in again:
        if change["source"]["snapshot"] == "false":
            what = (change["before"], change["after"])
            place = (change["source"]["table"], str(change["key"]), position(change), change["op"])
            # What comes twice after a kill is the same, so that Bronze can tell it by its place.
            assert by_place.setdefault(place, what) == what
    remove(stack.settings, source)
    assert execute(dsn, "select count(*) from pg_replication_slots where slot_name = 'freshdata_shop'") == [(0,)]


def watched(stack, source):
    """Do what the watching process does until the source is captured again."""
    restarts = Restarts()

    def running():
        health = read_health(stack.api, source)
        restarts.see(stack.api, health)
        return health.ok

    wait_for(running, "the capture")


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


def test_what_cannot_be_captured_is_refused_with_what_helps(stack):
    dsn = stack.database("refused")
    execute(dsn, REFUSED)
    tables = ["no_key", "unlogged", "with space", "seen", "parts", "odd", "long_lists", "unnamed"]
    with pytest.raises(CaptureError) as raised:
        add(stack.settings, dsn=dsn, tables=tables)
    reasons = "\n".join(raised.value.reasons)
    for told in (
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
    ):
        assert told in reasons
    with pytest.raises(CaptureError, match=r"there is no table public\.nothing\. There are: public\.long_lists"):
        add(stack.settings, dsn=dsn, tables=["nothing"])
    guest = dsn.replace(dsn.split("//")[1].split("@")[0], "guest:guest")
    with pytest.raises(CaptureError) as raised:
        add(stack.settings, dsn=guest, tables=["long_lists"])
    reasons = "\n".join(raised.value.reasons)
    for told in (
        "`ALTER ROLE guest REPLICATION`",
        "`GRANT CREATE ON DATABASE refused TO guest`",
        "`GRANT SELECT ON public.long_lists TO guest`",
        "`GRANT freshdata TO guest`",
    ):
        assert told in reasons
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


def test_add_again_extends_the_source(stack, simple):
    source, dsn = simple
    execute(dsn, "create table u (id int primary key, word varchar(5)); insert into u values (1, 'a'), (2, 'b')")
    same = add(stack.settings, dsn=dsn)
    assert (same.written, same.snapshots, same.source) == ([], [], source)
    added = add(stack.settings, dsn=dsn, tables=["public.u"])
    assert (added.written, added.snapshots) == (["public.u"], ["public.u"])
    wait_for(lambda: len(changes(stack.settings, added.source.topic("public.u"))) == 2, "the new table's rows")
    execute(
        dsn,
        "alter table u add late int default 5, alter word type text; alter table t drop n; insert into t values (11)",
    )
    changed = add(stack.settings, dsn=dsn)
    assert {contract.name: contract.version for contract in changed.contracts.values()} == {
        f"{source.name}_t": "1.0.0",
        f"{source.name}_u": "1.1.0",
    }
    wait_for(lambda: current_rows(changes(stack.settings, source.topic("public.u"))) == source_rows(dsn, "u"), "u")
    assert add(stack.settings, dsn=dsn).written == []
    # The first table was never read again.
    assert [change["op"] for change in changes(stack.settings, source.topic("public.t"))] == ["r"] * 10 + ["c"]
    execute(dsn, "drop table t")
    gone = add(stack.settings, dsn=dsn)
    assert gone.source.tables == ("public.u",)
    assert "public.t is not there any more" in gone.advice[0]
    with pytest.raises(CaptureError, match="another database is captured under this name"):
        add(stack.settings, dsn=dsn.rpartition("/")[0] + "/postgres", tables=["u"], name=source.name)
    execute(dsn, "alter table u alter late type text")
    with pytest.raises(EvolutionError, match="late"):
        add(stack.settings, dsn=dsn)


def test_a_dropped_slot_is_told_and_nothing_skipped(stack, simple):
    source, dsn = simple
    metrics, topic = CaptureMetrics(), source.topic("public.t")
    stop_reading(stack, source)
    execute(dsn, "insert into t values (11, 1)")
    wait_for(lambda: read_health(stack.api, source).lag > 0, "the lag")
    metrics.show([read_health(stack.api, source)])
    assert metric(metrics, "slot_retained_bytes") >= metric(metrics, "slot_lag_bytes") > 0
    assert (metric(metrics, "running"), metric(metrics, "lost")) == (0, 0)
    # Dropped, and something deleted that nobody sees go.
    execute(dsn, "select pg_drop_replication_slot(%s)", source.slot)
    execute(dsn, "delete from t where id = 1; insert into t values (12, 2)")
    stack.api.resume(source.name)
    wait_for(lambda: stack.api.state(source.name)[0] == "FAILED", "the connector to see it")
    health = read_health(stack.api, source)
    assert f"the replication slot {source.slot} was dropped" in health.lost
    assert f"freshdata cdc recover {source.name}" in health.remedy
    metrics.show([health])
    assert (metric(metrics, "running"), metric(metrics, "lost")) == (0, 1)
    assert not Restarts().see(stack.api, health)
    # Nor does a slot that somebody makes anew hide the gap.
    execute(dsn, "select pg_create_logical_replication_slot(%s, 'pgoutput')", source.slot)
    execute(dsn, "insert into t values (13, 3)")
    assert "made anew" in read_health(stack.api, source).lost
    with pytest.raises(ServiceError, match="does not capture"):
        add(stack.settings, dsn=dsn)
    assert current_rows(changes(stack.settings, topic)).keys() == {(number,) for number in range(1, 11)}
    recover(stack.settings, source)
    stack.caught_up(source.name)
    assert read_health(stack.api, source).ok
    assert_equal(stack, source, dsn)


KILLED = """
import os, signal, sys
from freshdata.cdc import recovery
from freshdata.cdc.connector import Connect
from freshdata.cdc.source import known_source
from freshdata.settings import load_settings

place = recovery if hasattr(recovery, sys.argv[2]) else Connect
setattr(place, sys.argv[2], lambda *_: os.kill(os.getpid(), signal.SIGKILL))
settings = load_settings()
recovery.recover(settings, known_source(settings, sys.argv[1]))
"""


def test_a_recovery_that_was_killed_is_told_and_run_again(stack, simple, environment):
    source, dsn = simple
    stop_reading(stack, source)
    execute(dsn, "select pg_drop_replication_slot(%s)", source.slot)
    execute(dsn, "delete from t where id = 1; insert into t values (11, 1)")

    def killed_before(step):
        command = [sys.executable, "-c", KILLED, source.name, step]
        assert subprocess.run(command, env=environment(stack.settings), check=False).returncode == -signal.SIGKILL
        return read_health(stack.api, source)

    for step in ("_send_truncations", "forget_offsets"):
        assert f"freshdata cdc recover {source.name}" in killed_before(step).remedy
        # Who starts the connector all the same skips nothing by it.
        stack.api.resume(source.name)
        wait_for(lambda: stack.api.state(source.name)[0] == "FAILED", "the connector to see it")
    # There is nothing left to do but to start it.
    assert f"freshdata cdc restart {source.name}" in killed_before("resume").remedy
    stack.api.resume(source.name)
    wait_for(lambda: read_health(stack.api, source).ok, "the capture")
    stack.caught_up(source.name)
    assert_equal(stack, source, dsn)


def stop_reading(stack, source):
    stack.api.stop(source.name)
    wait_for(lambda: not read_health(stack.api, source).active, "the slot to be let go")


def metric(metrics, name):
    text = generate_latest(metrics.registry).decode()
    assert name in GAUGES
    (line,) = (line for line in text.splitlines() if line.startswith(f"freshdata_cdc_{name}{{"))
    return float(line.rpartition(" ")[2])


def test_a_slot_moves_on_while_only_other_tables_change(stack, simple):
    source, dsn = simple
    execute(dsn, "create table other as select g, repeat('x', 100) from generate_series(1, 50000) g")
    wait_for(lambda: read_health(stack.api, source).lag < 100_000, "the slot")


def test_pgbench(stack):
    dsn = stack.database("bench")
    programs = find_postgres()
    if not (programs / "pgbench").is_file():
        pytest.skip("no pgbench: apt install postgresql")
    run = [programs / "pgbench", "--quiet", dsn]
    subprocess.run([*run, "-i", "-s", "1"], check=True, capture_output=True)
    tables = ["pgbench_accounts", "pgbench_tellers", "pgbench_branches", "pgbench_history"]
    with pytest.raises(CaptureError, match=r"pgbench_history has no primary key"):
        add(stack.settings, dsn=dsn, tables=tables)
    execute(dsn, "alter table pgbench_history add id bigint generated always as identity primary key")
    # Most of the rows: what is tested is the load, not the time that JSON takes.
    execute(dsn, "delete from pgbench_accounts where aid > 20000 and aid % 10 > 0")
    load = subprocess.Popen([programs / "pgbench", "-n", "-c", "2", "-T", "5", dsn], stdout=subprocess.DEVNULL)
    source = add(stack.settings, dsn=dsn, tables=tables).source
    assert load.wait() == 0
    stack.caught_up("bench")
    assert_equal(stack, source, dsn)
    (history,) = execute(dsn, "select count(*) from pgbench_history")
    assert history[0] > 0
    remove(stack.settings, source)


def test_secrets_stay_out_of_configuration_and_logs(stack, simple):
    source, _ = simple
    password = source.address["password"]
    shown = json.dumps(stack.api.settings(source.name))
    assert password not in shown
    assert "${file:" in shown
    secrets = stack.settings.home / "connect" / "secrets"
    for path in stack.settings.home.rglob("*"):
        if path.is_file() and path.parent.name not in ("secrets", "cdc") and path.name != "password":
            assert password.encode() not in path.read_bytes(), path
    private = [secrets, *secrets.iterdir(), *(stack.settings.home / "cdc").iterdir()]
    assert all(path.stat().st_mode & 0o077 == 0 for path in private)
    for name in ("postgres", "connect"):
        (child,) = (child for child in stack.supervisor.states() if child.name == name)
        assert listens_on(child.pid) == {"127.0.0.1"}


def listens_on(pid):
    connections = psutil.Process(pid).net_connections("inet")
    return {c.laddr.ip.removeprefix("::ffff:") for c in connections if c.status == psutil.CONN_LISTEN}


def test_alert_rules_are_of_metrics_that_are_served():
    rules = yaml.safe_load((PROJECT / "deploy" / "prometheus" / "cdc.rules.yml").read_text())
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    served = {f"freshdata_cdc_{name}" for name in GAUGES}
    runbook = (PROJECT / "docs" / "operations.md").read_text()
    for rule in alerts:
        assert set(re.findall(r"freshdata_\w+", rule["expr"])) <= served
        assert f"`{rule['alert']}`" in runbook
    if promtool := shutil.which("promtool"):
        subprocess.run([promtool, "check", "rules", PROJECT / "deploy" / "prometheus" / "cdc.rules.yml"], check=True)
