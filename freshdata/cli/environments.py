"""``freshdata plan``, ``promote``, ``rollback`` and ``environments``."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from freshdata.environments.build import Tell
    from freshdata.environments.changes import ModelChange
    from freshdata.environments.datadiff import DataDiff
    from freshdata.environments.plan import Plan
    from freshdata.environments.promote import Deployment

Name = Annotated[str, typer.Argument(metavar="ENV", help="Name of the environment, for example your own.")]
FirstDay = Annotated[
    datetime | None,
    typer.Option("--from", formats=["%Y-%m-%d"], help="First day to build. [default: all, or two weeks of large data]"),
]
LastDay = Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day to build.")]
Model = Annotated[str | None, typer.Argument(help="Only this model; everything promoted last when left out.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Drop = Annotated[str | None, typer.Option("--drop", metavar="ENV", help="Remove one with its tables and files.")]
FollowFiles = Annotated[
    bool, typer.Option("--follow-files", help="Have production run the project's own files again from its next run.")
]

COLOURS = {"ready": "green", "promoted": "green", "same": "dim", "refused": "red", "planning": "yellow"}


def plan(name: Name, *, start: FirstDay = None, end: LastDay = None, as_json: AsJson = False) -> None:
    """Build your models beside production and compare; exit code 1 if they could not be promoted."""
    from dataclasses import asdict

    from freshdata.environments.plan import plan_environment
    from freshdata.settings import load_settings

    days = {"start": start.date() if start else None, "end": end.date() if end else None}
    with _progress(quiet=as_json) as tell:
        outcome = plan_environment(load_settings(), name, **days, tell=tell)
    _echo(asdict(outcome)) if as_json else _show_plan(outcome)
    if outcome.environment.state == "refused":
        raise typer.Exit(1)


def promote(name: Name, *, as_json: AsJson = False) -> None:
    """Deploy an environment's models to production and rebuild the tables they affect."""
    from freshdata.environments.promote import promote as promote_environment
    from freshdata.settings import load_settings

    with _progress(quiet=as_json) as tell:
        outcome = promote_environment(load_settings(), name, tell=tell)
    _show_deployment(outcome, f"{name} is production now", as_json=as_json)


def rollback(model: Model = None, *, as_json: AsJson = False) -> None:
    """Take back the last promotion, or one model to its version before: code and table."""
    from freshdata.environments.promote import rollback as roll_back
    from freshdata.settings import load_settings

    with _progress(quiet=as_json) as tell:
        outcome = roll_back(load_settings(), model, tell=tell)
    _show_deployment(outcome, f"{model or 'The last promotion'} is rolled back", as_json=as_json)


def environments(*, drop: Drop = None, follow_files: FollowFiles = False, as_json: AsJson = False) -> None:
    """The environments, and what production follows."""
    from dataclasses import asdict

    from rich.table import Table

    from freshdata.cli.output import console
    from freshdata.environments.promote import follow_files as run_files
    from freshdata.environments.records import drop_environment, read_environments
    from freshdata.lake.catalog import open_catalog
    from freshdata.settings import load_settings
    from freshdata.transform.versions import read_versions

    settings = load_settings()
    if drop:
        dropped = drop_environment(settings, open_catalog(settings), drop)
        if not as_json:
            console().print(f"[green]✓[/green] {drop} is removed, with {len(dropped)} tables.")
    if follow_files:
        run_files(settings)
    found, versions = read_environments(settings), read_versions(settings)
    if as_json:
        _echo({"environments": [asdict(one) for one in found], "production": [asdict(one) for one in versions]})
        return
    if found:
        table = Table("environment", "by", "planned", "state", "models", header_style="bold")
        for one in found:
            state = f"[{COLOURS[one.state]}]{one.state}[/]"
            models = ", ".join(f"{name} ({kind})" for name, kind in one.changes.items())
            table.add_row(one.name, one.by, _minute(one.at), state, models)
        console().print(table)
    else:
        console().print("No environments.")
    if versions:
        last = versions[-1]
        source = f" from {last.environment}" if last.environment else ""
        console().print(
            f"Production follows the models {last.how}{source} by {last.by} at {_minute(last.at)}, "
            "not the project's files. [dim]freshdata promote ENV · freshdata rollback[/dim]"
        )
    else:
        console().print("Production runs the project's own files.")


@contextmanager
def _progress(*, quiet: bool) -> "Iterator[Tell]":
    if quiet:
        yield lambda _: None
        return
    from freshdata.cli.output import console

    with console().status("Starting") as status:
        yield status.update


def _echo(content: dict[str, Any]) -> None:
    import json

    from freshdata.cli.output import json_value

    typer.echo(json.dumps(content, default=json_value))


def _show_plan(outcome: "Plan") -> None:
    from rich.markup import escape

    from freshdata.cli.output import console

    output, environment = console(), outcome.environment
    if outcome.changes:
        _show_changes(output, outcome.changes, outcome.tables)
    if outcome.files:
        output.print(f"Other files that differ: {', '.join(outcome.files)}")
    for diff in outcome.diffs:
        _show_diff(output, diff)
    for gate in outcome.gates:
        mark = "[green]✓[/green]" if gate.passed else "[red]✗[/red]"
        output.print(f"{mark} {gate.name}: {escape(gate.detail)}")
    for note in outcome.notes:
        output.print(f"[yellow]![/yellow] {escape(note)}")
    days = "all days" if outcome.days is None else f"{outcome.days[0]} to {outcome.days[1]}"
    if environment.state == "same":
        output.print("Nothing differs from production, which keeps its models while you edit. Plan again afterwards.")
    elif environment.state == "refused":
        output.print(f"[red]{environment.name} cannot be promoted[/red]: {len(environment.reasons)} gates refuse it.")
    else:
        output.print(
            f"[green]{environment.name} is ready[/green] ({days}). [dim]freshdata promote {environment.name}[/dim]"
        )


def _show_changes(output: "Console", changes: "Iterable[ModelChange]", tables: dict[str, tuple[str, int]]) -> None:
    from rich.syntax import Syntax
    from rich.table import Table

    shown = Table("model", "", "breaking", "Dagster asset", "owner", header_style="bold")
    shown.add_column("its table", overflow="fold")
    shown.add_column("rows", justify="right")
    for change in changes:
        table, rows = tables.get(change.model, ("", None))
        breaking = f"[red]{'; '.join(change.breaking)}[/red]" if change.breaking else ""
        shown.add_row(
            change.model, change.kind, breaking, change.asset, change.owner, table, "" if rows is None else f"{rows:,}"
        )
    output.print(shown)
    for change in changes:
        if change.diff:
            output.print(Syntax(change.diff, "diff", background_color="default", word_wrap=True))


def _show_diff(output: "Console", diff: "DataDiff") -> None:
    from rich.markup import escape
    from rich.table import Table

    if diff.same:
        output.print(f"[bold]{diff.model}[/bold]: {diff.environment_rows:,} rows, all equal to production's.")
        return
    output.print(f"[bold]{diff.model}[/bold]" + (f", {diff.days[0]} to {diff.days[1]}" if diff.days else ""))
    counts = Table("", "production", "environment", header_style="bold")
    counts.add_row("rows", f"{diff.production_rows:,}", f"{diff.environment_rows:,}")
    counts.add_row("only here", f"{diff.only_production:,}", f"{diff.only_environment:,}")
    for name, kind in diff.removed_columns.items():
        counts.add_row(f"[red]- {name}[/red]", kind, "")
    for name, kind in diff.added_columns.items():
        counts.add_row(f"[green]+ {name}[/green]", "", kind)
    for name, (before, after) in diff.retyped_columns.items():
        counts.add_row(f"[yellow]~ {name}[/yellow]", before, after)
    output.print(counts)
    if diff.note:
        output.print(f"  {diff.note}")
    if diff.changed_rows:
        listed = ", ".join(f"{name} in {count:,}" for name, count in diff.changed_values.items())
        output.print(f"  {diff.changed_rows:,} rows of equal key have other values: {listed}")
        sample = Table(*diff.key, "column", "production", "environment", header_style="bold")
        for value in diff.values:
            cells = (*value.key.values(), value.column, value.production, value.environment)
            sample.add_row(*("" if cell is None else escape(str(cell)) for cell in cells))
        output.print(sample)
    for side, rows in (("production", diff.production_sample), ("the environment", diff.environment_sample)):
        for row in rows:
            output.print(f"  only in {side}: " + escape(", ".join(f"{name}={value}" for name, value in row.items())))


def _show_deployment(outcome: "Deployment", done: str, *, as_json: bool) -> None:
    from dataclasses import asdict

    from rich.markup import escape
    from rich.table import Table

    from freshdata.cli.output import console

    if as_json:
        runs = [asdict(run) | {"partitions": len(run.partitions)} for run in outcome.runs]
        _echo(asdict(outcome) | {"runs": runs})
    else:
        shown = Table("model", "rows", "how", header_style="bold")
        for run in outcome.runs:
            how = "rolled back" if run.model in outcome.restored else ""
            shown.add_row(run.model, f"{run.rows:,}", "; ".join(part for part in (how, run.note) if part))
        if outcome.runs:
            console().print(shown)
        for model, reason in outcome.failures.items():
            console().print(f"[red]✗[/red] {model}: {escape(reason)}")
        if outcome.failures:
            console().print(f"{done}, but not all tables follow. [dim]Mend it, or freshdata rollback[/dim]")
        else:
            console().print(f"[green]✓[/green] {done}.")
    if outcome.failures:
        raise typer.Exit(1)


def _minute(at: str) -> str:
    return at[:16].replace("T", " ")
