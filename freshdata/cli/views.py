"""``freshdata views``."""

from typing import Annotated

import typer


def views(
    name: Annotated[
        str | None, typer.Argument(help="Print this view's SELECT; without a name, list the views.")
    ] = None,
    *,
    dialect: Annotated[str, typer.Option(help="The SELECT's dialect: duckdb, spark, trino, …")] = "duckdb",
) -> None:
    """List the serving views, or print one's SELECT."""
    from rich.table import Table

    from freshdata.cli.output import console
    from freshdata.serving import select_of
    from freshdata.settings import load_settings
    from freshdata.transform.manifest import load_models

    settings = load_settings()
    if name:
        typer.echo(select_of(settings, name, dialect))
        return
    shown = Table("view", "owner", "reads", "", header_style="bold")
    for view in load_models(settings).values():
        if view.view:
            shown.add_row(view.name, view.owner, ", ".join(view.depends_on), view.description)
    console().print(shown)
