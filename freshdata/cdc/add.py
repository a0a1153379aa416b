"""Follow a database's tables: inspect them, write their contracts and models, and have Debezium capture them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from freshdata.cdc.connector import Connect, connector_settings
from freshdata.cdc.document import contract_name, followed_document, new_document
from freshdata.cdc.inspection import SourceTable, read_server, read_tables
from freshdata.cdc.models import write_models
from freshdata.cdc.prerequisites import server_problems, table_problems, toast_advice
from freshdata.cdc.recovery import send_truncations
from freshdata.cdc.signals import ask_snapshot, ensure_signal_table
from freshdata.cdc.source import Source, connect, make_source, read_sources, write_source
from freshdata.contracts import Contract, load_contracts
from freshdata.contracts.evolution import compare, refuse_breaking
from freshdata.contracts.loader import SUFFIX, contract_of, load_contract
from freshdata.errors import CaptureError
from freshdata.files import replace_file
from freshdata.lake.catalog import ensure_stream_tables, open_catalog
from freshdata.lake.publication import published_contract
from freshdata.services.kafka import end_offsets, ensure_topics
from freshdata.settings import Settings

if TYPE_CHECKING:
    import psycopg2.extensions

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Added:
    """What following a database's tables has come to.

    Attributes:
        source: The source as it is captured now.
        contracts: Its contracts by table.
        written: The tables whose contract is new or another one.
        snapshots: The tables that are read whole again, beside the changes.
        advice: What would be better, a line each.
    """

    source: Source
    contracts: dict[str, Contract]
    written: list[str]
    snapshots: list[str]
    advice: list[str]


def add(
    settings: Settings,
    *,
    dsn: str,
    tables: Sequence[str] = (),
    name: str | None = None,
    without: Sequence[str] = (),
    avro: bool | None = None,
    tell: Tell = lambda _: None,
) -> Added:
    """Follow tables of a PostgreSQL database; again, to follow more, or what has changed about them.

    Args:
        settings: The instance.
        dsn: libpq address of the database.
        tables: Its tables, ``table`` or ``schema.table``; of a source that is known, those to follow too.
        name: The source's name; None takes the database's.
        without: Columns to leave out, ``table.column`` or ``schema.table.column``.
        avro: Whether to write changes as Avro, by the registry; None as it was, at first as JSON.
        tell: Called with each step.

    Raises:
        CaptureError: the database or a table cannot be followed; every reason is named.
        EvolutionError: a table has changed in a way that what is stored cannot follow.
        ServiceError: Kafka Connect does not run, or the connector failed.
    """
    api = Connect(settings)
    source = make_source(dsn, name)
    known = _known(settings, source)
    with connect(source) as connection:
        tell("inspecting the database")
        found = read_tables(connection)
        before = known.tables if known else ()
        gone = [table for table in before if table not in found]
        listed = {table: None for table in before if table in found} | {
            _full_name(table, found, source): None for table in tables
        }
        left_out = {_full_column(column): None for column in [*(known.without if known else ()), *without]}
        as_avro = (known is not None and known.avro) if avro is None else avro
        source = replace(source, tables=tuple(listed), without=tuple(left_out), avro=as_avro)
        connector_settings(settings, source)  # What it lacks is told before anything is changed.
        _refuse(connection, source, found, known=known is not None)
        tell("writing contracts and models")
        contracts, written = _write_contracts(settings, source, [found[table] for table in source.tables])
        for contract in contracts.values():
            write_models(settings, contract)
        ensure_topics(settings, contracts.values())
        tell("publishing the tables")
        ensure_signal_table(connection, source)
        _publish(connection, source)
        # So that it can be removed, whatever happens; a table counts once nothing is left to do for it.
        read = known.read if known else {}
        write_source(settings, replace(source, tables=before, read=read))
        tell("starting the capture")
        if not before:
            api.remove(source.name)
        # Rows that a topic has of a former capture may be gone: what is read whole does not tell.
        fresh = [table for table in source.tables if table not in before]
        reused = [table for table in fresh if any(end_offsets(settings, source.topic(table)).values())]
        send_truncations(settings, connection, source, reused)
        api.register(source, anew=not before)
        # A new source reads its tables by itself. Later, one that is new or has another contract is read whole.
        source = replace(source, read={table: contract.version for table, contract in contracts.items()})
        snapshots = [table for table, version in source.read.items() if read.get(table) != version] if before else []
        if snapshots:
            ask_snapshot(connection, source, snapshots)
        write_source(settings, source)
        advice = [f"{table} is not there any more: its contract and its rows stay" for table in gone]
        advice += [line for table in source.tables for line in toast_advice(found[table], source)]
        return Added(source, contracts, written, snapshots, advice)


def _known(settings: Settings, source: Source) -> Source | None:
    """What is known of a source of this name, which must be the same database."""
    known = read_sources(settings).get(source.name)
    if known and (known.system, known.address["dbname"]) != (source.system, source.address["dbname"]):
        raise CaptureError(
            source.name,
            ["another database is captured under this name"],
            remedy=f"Choose another with --name, or end that one: `freshdata cdc remove {source.name}`.",
        )
    return known


def _full_name(table: str, found: dict[str, SourceTable], source: Source) -> str:
    name = table if "." in table else f"public.{table}"
    if name not in found:
        raise CaptureError(
            source.name, [f"there is no table {name}"], remedy=f"There are: {', '.join(found) or 'no tables at all'}."
        )
    return name


def _full_column(column: str) -> str:
    return column if column.count(".") == 2 else f"public.{column}"


def _refuse(
    connection: "psycopg2.extensions.connection", source: Source, found: dict[str, SourceTable], *, known: bool
) -> None:
    problems = server_problems(read_server(connection, source.slot), source, known=known)
    if not source.tables:
        problems.append(f"no table is named: there are {', '.join(found)}")
    columns = {f"{table.full_name}.{column.name}" for table in found.values() for column in table.columns}
    problems += [f"there is no column {column}" for column in source.without if column not in columns]
    problems += [problem for table in source.tables for problem in table_problems(found[table], source)]
    if problems:
        raise CaptureError(source.name, problems, remedy="Nothing was changed; try again when this is done.")


def _write_contracts(
    settings: Settings, source: Source, tables: Sequence[SourceTable]
) -> tuple[dict[str, Contract], list[str]]:
    """Write the contracts that are new or others, once none of them breaks what is stored."""
    documents: dict[Path, dict[str, Any]] = {}
    contracts: dict[str, Contract] = {}
    written: list[str] = []
    catalog = open_catalog(settings)
    for table in tables:
        path = settings.contracts_dir / f"{contract_name(source, table)}{SUFFIX}"
        old = _read(path)
        document = followed_document(old, source, table) if old else new_document(source, table)
        contract = contract_of(path.name, document)
        if catalog.table_exists(contract.table) and (
            published := published_contract(catalog.load_table(contract.table))
        ):
            refuse_breaking(published, contract, compare(published, contract))
        contracts[table.full_name] = contract
        if document is not old:
            documents[path] = document
            written.append(table.full_name)
    settings.contracts_dir.mkdir(parents=True, exist_ok=True)
    for path, document in documents.items():
        replace_file(path, yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120))
    everything = load_contracts(settings.contracts_dir)
    for contract in contracts.values():
        ensure_stream_tables(catalog, contract, everything)
    return contracts, written


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    load_contract(path)  # What is no contract is refused here, with its reason.
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


def _publish(connection: "psycopg2.extensions.connection", source: Source) -> None:
    """Have the database replicate the tables, and the one by which snapshots are asked for."""
    from psycopg2 import sql

    tables = [tuple(table.split(".", 1)) for table in source.tables] + [source.signal_table]
    named = sql.SQL(", ").join(sql.Identifier(*table) for table in tables)
    publication = sql.Identifier(source.slot)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_publication WHERE pubname = %s", (source.slot,))
        form = "ALTER PUBLICATION {} SET TABLE {}" if cursor.fetchone() else "CREATE PUBLICATION {} FOR TABLE {}"
        cursor.execute(sql.SQL(form).format(publication, named))
