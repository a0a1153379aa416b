"""``freshdata verify``."""

from typing import Annotated

import typer


def verify(
    source: Annotated[
        str | None,
        typer.Option(
            help="Compare the Silver tables of a captured database with it: its libpq address.", metavar="DSN"
        ),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Compare Kafka, Bronze, quarantine, Silver and Gold row by row; exit code 1 on any difference."""
    import json
    from functools import partial

    from rich.table import Table

    from freshdata.cli.output import console, json_value
    from freshdata.settings import load_settings
    from freshdata.verify.run import verify_platform
    from freshdata.verify.source import verify_source

    settings = load_settings()
    compare = partial(verify_platform, settings) if source is None else partial(verify_source, settings, source)
    if as_json:
        report = compare()
        typer.echo(json.dumps(report.to_dict(), default=json_value))
        raise typer.Exit(0 if report.ok else 1)
    output = console()
    with output.status("Verifying") as status:
        report = compare(step=lambda what: status.update(f"Verifying {what}"))
    table = Table("table", "check", "rows", "", header_style="bold", title="Row by row, source against store")
    for finding in report.findings:
        mark = "[green]✓[/green]" if finding.ok else f"[red]✗ {finding.differences}[/red]"
        table.add_row(finding.table, finding.check, f"{finding.compared:,}", mark)
    output.print(table)
    for finding in report.findings:
        for example in finding.examples:
            output.print(f"[red]✗[/red] {finding.table}: {example}", markup=True)
    output.print("[green]Nothing lost, repeated or changed.[/green]" if report.ok else "[red]Differences found.[/red]")
    raise typer.Exit(0 if report.ok else 1)
