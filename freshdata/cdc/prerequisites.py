"""What a database must offer before its tables can be followed: every lack with what helps."""

import re

from freshdata.cdc.inspection import Server, SourceTable
from freshdata.cdc.source import Source
from freshdata.cdc.types import MARKED, UnmappedTypeError, field_type, needs_full_identity

# Messages in the log, which the heartbeats are, are replicated from there on.
OLDEST_VERSION = 140000
KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "p": "a partitioned table"}


def server_problems(server: Server, source: Source, *, known: bool) -> list[str]:
    """What a server or a role lacks.

    Args:
        server: What it says of itself.
        source: The source.
        known: Whether the source's slot is this instance's.
    """
    problems = []
    if server.version < OLDEST_VERSION:
        problems.append(f"it is PostgreSQL {server.version // 10000}: upgrade it to 14 or newer")
    if server.wal_level != "logical":
        problems.append(
            f"wal_level is {server.wal_level}: set it with `ALTER SYSTEM SET wal_level = logical` and restart "
            "PostgreSQL (on Amazon RDS: rds.logical_replication = 1)"
        )
    if not server.may_replicate:
        problems.append(f"the role {server.role} may not replicate: `ALTER ROLE {server.role} REPLICATION`")
    if not server.may_create:
        database = source.address["dbname"]
        problems.append(
            f"the role {server.role} may not create a publication: `GRANT CREATE ON DATABASE {database} TO "
            f"{server.role}`"
        )
    if server.has_slot and not known:
        problems.append(
            f"its replication slot {source.slot} is another instance's: choose another name with --name, or drop it "
            f"with `SELECT pg_drop_replication_slot('{source.slot}')`"
        )
    if not server.has_slot and server.slots_used >= server.slots:
        problems.append(f"all {server.slots} replication slots are in use: raise max_replication_slots")
    return problems


def table_problems(table: SourceTable, source: Source) -> list[str]:
    """Why a table cannot be followed as it is."""
    name = table.full_name
    if table.kind in KINDS:
        return [f"{name} is {KINDS[table.kind]}: name tables" + (", its partitions" if table.kind == "p" else "")]
    problems = []
    if not re.fullmatch(r"[A-Za-z_]\w*\.[A-Za-z_]\w*", name, re.ASCII):
        problems.append(f"{name!r} is a name that Debezium's signals cannot hold: rename it to letters, digits and _")
    if table.persistence != "p":
        problems.append(f"{name} is not logged: `ALTER TABLE {name} SET LOGGED`")
    if not table.readable:
        problems.append(f"{name} may not be read by this role: `GRANT SELECT ON {name} TO {source.address['user']}`")
    if not table.owned:
        problems.append(
            f"{name} belongs to {table.owner}, and only its owner may publish it: "
            f"`GRANT {table.owner} TO {source.address['user']}`"
        )
    if not table.key:
        problems.append(f"{name} has no primary key, by which its rows are told apart: add one")
    return problems + _identity_problems(table, source) + _column_problems(table, source)


def toast_advice(table: SourceTable, source: Source) -> list[str]:
    """What a table that can be followed loses as it is."""
    name = table.full_name
    long = [
        column.name
        for column in table.columns
        # A short text is never stored apart.
        if column.toastable and column.type in MARKED and column.modifier == -1
    ]
    if table.identity == "f" or not any(f"{name}.{column}" not in source.without for column in long):
        return []
    full = f"`ALTER TABLE {name} REPLICA IDENTITY FULL` has them told"
    lost = "no row as it was before, and a change of the primary key none of its long values"
    return [f"{name}: deletes and updates tell {lost}: {full}"]


def _identity_problems(table: SourceTable, source: Source) -> list[str]:
    name = table.full_name
    full = f"`ALTER TABLE {name} REPLICA IDENTITY FULL`"
    if table.identity in "ni":
        return [f"{name} does not log its primary key (REPLICA IDENTITY): {full}"]
    unclear = [
        column.name
        for column in table.columns
        if needs_full_identity(column) and f"{name}.{column.name}" not in source.without
    ]
    if unclear and table.identity != "f":
        return [f"a long value in {name}.{', '.join(unclear)} would be lost by changes that do not touch it: {full}"]
    return []


def _column_problems(table: SourceTable, source: Source) -> list[str]:
    problems = []
    for column in table.columns:
        full_name = f"{table.full_name}.{column.name}"
        if full_name in source.without:
            if column.name in table.key:
                problems.append(f"{full_name} is left out, but is part of the primary key: keep it")
            continue
        if source.avro and not re.fullmatch(r"[A-Za-z_]\w*", column.name, re.ASCII):
            problems.append(f"{full_name} is no name in Avro: leave it out with --without {full_name}, or use JSON")
        try:
            field_type(column)
        except UnmappedTypeError as error:
            problems.append(f"{full_name} ({column.declared}): {error}; leave it out with --without {full_name}")
    return problems
