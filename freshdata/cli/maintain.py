"""``freshdata maintain``."""

from typing import Annotated

import typer


def maintain(
    tables: Annotated[list[str] | None, typer.Argument(help="Tables, as namespace.table; all when left out.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of what was done to each table.")] = False,
) -> None:
    """Merge manifests, expire snapshots and remove orphan files."""
    import json
    import logging
    from dataclasses import asdict

    from rich.table import Table

    from freshdata.cli.output import console
    from freshdata.lake.catalog import load_table, open_catalog
    from freshdata.lake.maintenance import maintain as maintain_table
    from freshdata.lake.maintenance import tables as all_tables
    from freshdata.settings import load_settings

    # It warns of each old metadata file that a worker's commit has removed first.
    logging.getLogger("pyiceberg").setLevel(logging.ERROR)
    catalog = open_catalog(load_settings())
    names = tables or sorted(all_tables(catalog))
    for name in names:
        load_table(catalog, name)  # A name that is wrong is told before anything is done.
    done = [maintain_table(catalog, name) for name in names]
    if as_json:
        typer.echo(json.dumps([asdict(outcome) for outcome in done]))
        return
    shown = Table("table", header_style="bold")
    for column in ("snapshots expired", "left", "manifests merged", "left", "files removed", "MB", "seconds"):
        shown.add_column(column, justify="right")
    for outcome in done:
        shown.add_row(
            outcome.table,
            *(str(number) for number in (outcome.expired, outcome.snapshots, outcome.merged, outcome.manifests)),
            str(outcome.orphans),
            f"{outcome.orphan_bytes / 1e6:.1f}",
            f"{outcome.seconds:.2f}",
        )
    console().print(shown)
