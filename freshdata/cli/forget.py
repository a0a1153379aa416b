"""``freshdata forget``."""

from typing import Annotated

import typer


def forget(
    *,
    tenant: Annotated[str, typer.Option(help="Whose customer, patient, user … the person is.")],
    key: Annotated[str, typer.Option(help="The person: the value of the contracts' subjectField, as events have it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it, only what would be done is said.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Erase a person from all layers, snapshots and files, and prove it by reading every file."""
    import json
    import logging
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from freshdata.cli.output import console
    from freshdata.forget import Forget
    from freshdata.forget import as_json as outcome_json
    from freshdata.forgotten import Person
    from freshdata.settings import load_settings

    logging.getLogger("pyiceberg").setLevel(logging.ERROR)
    forgetting = Forget(load_settings(), Person(tenant, key))
    if not yes:
        plan = forgetting.plan()
        if as_json:
            typer.echo(json.dumps({"erased": False, "plan": [asdict(each) for each in plan]}))
            return
        shown = Table("table", "rows", "snapshots", "tags", header_style="bold")
        for each in plan:
            shown.add_row(each.table, f"{each.rows:,}", str(each.snapshots), ", ".join(each.tags))
        console().print(shown)
        console().print(
            "These rows would be erased, and the tables' snapshots and tags with them. Nothing was changed: "
            "[bold]--yes[/bold] does it."
        )
        return
    with Console(stderr=True).status("Forgetting") as status:
        outcome = forgetting.run(status.update)
    if as_json:
        typer.echo(json.dumps(outcome_json(outcome)))
        return
    shown = Table(
        "table",
        "snapshots",
        "data files",
        "metadata files",
        "of them unreferenced",
        "with a trace",
        header_style="bold",
    )
    for proof in outcome.proof:
        counts = (proof.snapshots, proof.data_files, proof.metadata_files, proof.unreferenced, len(proof.found))
        shown.add_row(proof.table, *(f"{count:,}" for count in counts))
    console().print(shown)
    rows = ", ".join(f"{count:,} of {table}" for table, count in outcome.rows.items() if count) or "no rows"
    gone = f"{outcome.snapshots} snapshots, {len(outcome.tags)} tags and {outcome.files} files"
    console().print(
        f"[green]✓[/green] erased {rows}; {gone} are gone, and "
        f"{sum(proof.data_files for proof in outcome.proof):,} data files were read without a trace."
    )
