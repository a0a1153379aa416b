"""``freshdata contract``."""

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Look at the data contracts.")


@app.command("list")
def list_contracts() -> None:
    """The contracts, and what follows from each."""
    from rich.table import Table

    from freshdata.cli.output import console
    from freshdata.contracts import load_contracts
    from freshdata.settings import load_settings

    table = Table("contract", "version", "owner", "topic", "table", "freshness SLA", header_style="bold")
    for contract in load_contracts(load_settings().contracts_dir).values():
        rules = contract.stream
        table.add_row(
            contract.name,
            contract.version,
            contract.owner,
            rules.topic if rules else "—",
            contract.table,
            str(rules.freshness) if rules else "—",
        )
    console().print(table)


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name of the contract.")]) -> None:
    """The fields of one contract."""
    from rich.table import Table

    from freshdata.cli.output import console
    from freshdata.contracts import load_contracts
    from freshdata.errors import ContractError
    from freshdata.settings import load_settings

    contracts = load_contracts(load_settings().contracts_dir)
    if name not in contracts:
        raise ContractError(name, "there is no such contract.", remedy=f"Choose one of: {', '.join(contracts)}.")
    table = Table(
        "field", "type", "required", "meaning", header_style="bold", title=f"{name}: {contracts[name].description}"
    )
    for column in contracts[name].columns:
        table.add_row(column.name, str(column.type), "yes" if column.required else "", column.description)
    console().print(table)


@app.command()
def lint() -> None:
    """Read every contract as the platform does, and say what is wrong."""
    from freshdata.cli.output import console
    from freshdata.contracts import load_contracts
    from freshdata.settings import load_settings

    contracts = load_contracts(load_settings().contracts_dir)
    console().print(f"[green]✓[/green] {len(contracts)} contracts are valid: {', '.join(contracts)}")
