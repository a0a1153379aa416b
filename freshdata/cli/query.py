"""``freshdata query``."""

from typing import Annotated

import typer


def query(
    sql: Annotated[str, typer.Argument(help="A SELECT over tables, and the views of the schema serving.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of row objects.")] = False,
) -> None:
    """Run SQL over the lake."""
    import json

    from freshdata.cli.output import console, json_value, result_table
    from freshdata.lake.query import run_query
    from freshdata.settings import load_settings

    result = run_query(load_settings(), sql)
    if as_json:
        typer.echo(json.dumps(result.to_pylist(), default=json_value))
    else:
        console().print(result_table(result))
