"""``freshdata maintain``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from uuid import UUID

    from pyiceberg.catalog import Catalog
    from rich.table import Table

    from freshdata.lake.upkeep import Plan, Upkeep

Done = TypeVar("Done")


def maintain(
    tables: Annotated[list[str] | None, typer.Argument(help="Tables, as namespace.table; all when left out.")] = None,
    *,
    plan: Annotated[bool, typer.Option("--plan", help="Only show how each table stands, and what it needs.")] = False,
    rewrite: Annotated[
        bool, typer.Option("--rewrite", help="Rewrite all data files, needed or not: the clustering has changed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array with an object for each table.")] = False,
) -> None:
    """Do what each table needs: compact it, merge manifests, expire snapshots, remove orphan files."""
    import json
    import logging
    from dataclasses import asdict

    from freshdata.cli.output import console
    from freshdata.contracts import load_contracts
    from freshdata.lake.catalog import open_catalog
    from freshdata.lake.health import Thresholds
    from freshdata.lake.upkeep import keep_up, plan_upkeep
    from freshdata.settings import load_settings

    # It warns of each old metadata file that a worker's commit has removed first.
    logging.getLogger("pyiceberg").setLevel(logging.ERROR)
    settings = load_settings()
    catalog, contracts = open_catalog(settings), load_contracts(settings.contracts_dir)
    known, thresholds = _known(catalog, tables), Thresholds(everything=rewrite)

    def attend(work: Callable[[str], Done]) -> list[Done]:
        return list(_attend(catalog, known, work, strict=bool(tables)))

    plans = attend(lambda name: plan_upkeep(catalog, name, thresholds))
    if plan:
        if as_json:
            typer.echo(json.dumps([asdict(each) | {"reasons": each.reasons} for each in plans]))
        else:
            console().print(_plans(plans))
        return
    with _progress(sum(each.rewrite_bytes for each in plans)) as on_progress:
        done = attend(lambda name: keep_up(catalog, name, contracts, thresholds, on_progress=on_progress))
    if as_json:
        typer.echo(json.dumps([asdict(each.maintained) | {"compaction": asdict(each.compacted)} for each in done]))
        return
    console().print(_done(done))
    for each in done:
        for group in each.compacted.skipped:
            console().print(f"[yellow]left as it is[/yellow] {each.maintained.table} {group}")


def _known(catalog: "Catalog", tables: list[str] | None) -> "dict[str, UUID]":
    """Each table to what tells it from another that takes its name.

    Raises:
        LakeError: there is no table of a name that was given.
    """
    from freshdata.lake.catalog import load_table
    from freshdata.lake.maintenance import tables as all_tables
    from freshdata.lake.replace import SHADOW

    if tables:
        return {name: load_table(catalog, name).metadata.table_uuid for name in tables}
    # What is being rebuilt is written without regard to others, and is nobody's table yet.
    names = sorted(name for name in all_tables(catalog) if not name.endswith(SHADOW))
    return {name: identity for name in names if (identity := _identity(catalog, name))}


def _identity(catalog: "Catalog", name: str) -> "UUID | None":
    """What tells a table from another that takes its name; None when there is none."""
    from pyiceberg.exceptions import NoSuchTableError

    try:
        return catalog.load_table(name).metadata.table_uuid
    except NoSuchTableError:
        return None


def _attend(
    catalog: "Catalog", known: "dict[str, UUID]", work: Callable[[str], Done], *, strict: bool
) -> Iterator[Done]:
    """Do some work on each table; unless strict, leave out those that are dropped meanwhile, or made anew."""
    for name, identity in known.items():
        try:
            done = work(name)
        except Exception:
            # As the tables of an environment are.
            if strict or _identity(catalog, name) == identity:
                raise
        else:
            yield done


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar of the bytes rewritten, on standard error; none when nothing is."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("rewriting"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=total == 0) as bar:
        task = bar.add_task("rewriting", total=total)
        yield lambda done: bar.advance(task, done)


def _plans(plans: list["Plan"]) -> "Table":
    shown = _table("rows", "files", "small", "MB", "delete files", "manifests", "snapshots", "oldest")
    shown.add_column("needs")
    for each in plans:
        health = each.health
        shown.add_row(
            health.table,
            *(str(number) for number in (health.rows, health.files, health.small_files)),
            _megabytes(health.bytes),
            *(str(number) for number in (health.delete_files, health.manifests, health.snapshots)),
            str(timedelta(seconds=round(health.oldest))),
            "\n".join(each.reasons) or "nothing",
        )
    return shown


def _done(done: list["Upkeep"]) -> "Table":
    shown = _table(
        "files", "delete files", "manifests merged", "left", "snapshots expired", "left", "orphans", "MB", "seconds"
    )
    for each in done:
        files, metadata = each.compacted, each.maintained
        shown.add_row(
            metadata.table,
            f"{files.files_before} → {files.files_after}",
            *(str(number) for number in (files.delete_files, metadata.merged, metadata.manifests)),
            *(str(number) for number in (metadata.expired, metadata.snapshots, metadata.orphans)),
            _megabytes(metadata.orphan_bytes),
            f"{files.seconds + metadata.seconds:.2f}",
        )
    return shown


def _table(*numbers: str) -> "Table":
    from rich.table import Table

    shown = Table(header_style="bold")
    shown.add_column("table", no_wrap=True)
    for column in numbers:
        shown.add_column(column, justify="right")
    return shown


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f}"
