"""A database's tables are captured by a real Debezium: whole, in order, and over the death of everybody involved."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import psutil
import pytest
import yaml
from prometheus_client import generate_latest

from freshdata.cdc.add import add
from freshdata.cdc.connector import Connect
from freshdata.cdc.health import read_health
from freshdata.cdc.recovery import recover, remove
from freshdata.cdc.signals import ask_snapshot
from freshdata.cdc.source import connect
from freshdata.cdc.watch import GAUGES, CaptureMetrics, Restarts
from freshdata.errors import CaptureError, EvolutionError, ServiceError
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
        stack.watched(source)
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


def test_what_is_captured_once_more_has_no_row_of_before(stack, simple):
    source, dsn = simple
    execute(dsn, "create table u (id int primary key); insert into u select generate_series(1, 5)")
    u = add(stack.settings, dsn=dsn, tables=["u"]).source.topic("public.u")
    wait_for(lambda: len(changes(stack.settings, u)) == 5, "the second table's rows")
    execute(dsn, "drop table u")
    add(stack.settings, dsn=dsn)
    execute(dsn, "create table u (id int primary key); insert into u values (2)")
    source = add(stack.settings, dsn=dsn, tables=["u"]).source
    wait_for(lambda: current_rows(changes(stack.settings, u)) == source_rows(dsn, "u"), "the table that was made anew")

    remove(stack.settings, source)
    execute(dsn, "delete from t where id = 1; insert into t values (11, 0)")
    source = add(stack.settings, dsn=dsn, tables=["t", "u"]).source
    stack.caught_up(source.name)
    assert_equal(stack, source, dsn)


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
    assert not Restarts().see(stack.settings, source, health)
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

    for step in ("send_truncations", "forget_offsets"):
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


def test_what_was_confirmed_before_it_was_stored_is_not_told_as_missed(stack, simple, monkeypatch):
    source, dsn = simple
    stop_reading(stack, source)
    slot = "select (confirmed_flush_lsn - '0/0')::bigint from pg_replication_slots where slot_name = %s"
    [[confirmed]] = execute(dsn, slot, source.slot)
    # As a kill -9 between the two leaves it.
    monkeypatch.setattr(Connect, "stored_lsn", lambda *_: confirmed - 1)
    assert read_health(stack.api, source).lost == ""


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
