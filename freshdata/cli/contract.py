"""``freshdata contract``."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from freshdata.contracts import Contract
    from freshdata.contracts.evolution import Change
    from freshdata.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Look at the data contracts, and publish their new versions.")
Name = Annotated[str, typer.Argument(help="Name of the contract.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


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
def show(name: Name) -> None:
    """The fields of one contract."""
    from rich.table import Table

    from freshdata.cli.output import console
    from freshdata.settings import load_settings

    contract = _known(load_settings(), name)[name]
    table = Table("field", "type", "required", "meaning", header_style="bold", title=f"{name}: {contract.description}")
    for column in contract.columns:
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


@app.command()
def diff(name: Name, *, as_json: AsJson = False) -> None:
    """Compare a stream's contract file with what is published; exit code 1 if it could not be published."""
    from freshdata.lake.catalog import open_catalog
    from freshdata.settings import load_settings

    settings = load_settings()
    contract = _stream(_known(settings, name), name)
    changes, published = _against_published(open_catalog(settings), contract)
    _print(contract, published, changes, as_json=as_json, done=False)
    if not all(change.compatible for change in changes):
        raise typer.Exit(1)


@app.command()
def publish(name: Name, *, as_json: AsJson = False) -> None:
    """Publish a stream's contract file: its table gets the new columns, and running workers go by it."""
    from freshdata.contracts.evolution import compare, refuse_breaking
    from freshdata.lake.catalog import ensure_stream_tables, open_catalog
    from freshdata.lake.publication import followed_contract
    from freshdata.settings import load_settings

    settings = load_settings()
    contracts = _known(settings, name)
    contract, catalog = _stream(contracts, name), open_catalog(settings)
    changes, published = _against_published(catalog, contract)
    if published:
        refuse_breaking(published, contract, changes)
    bronze, _ = ensure_stream_tables(catalog, contract, contracts)
    followed = followed_contract(bronze, contract)
    if followed is not contract:
        # Somebody has published a newer version since it was compared.
        refuse_breaking(followed, contract, compare(followed, contract))
    _print(contract, published, changes, as_json=as_json, done=True)


def _known(settings: "Settings", name: str) -> "dict[str, Contract]":
    """All contracts; the named one is among them."""
    from freshdata.contracts import load_contracts
    from freshdata.errors import ContractError

    contracts = load_contracts(settings.contracts_dir)
    if name not in contracts:
        raise ContractError(name, "there is no such contract.", remedy=f"Choose one of: {', '.join(contracts)}.")
    return contracts


def _stream(contracts: "dict[str, Contract]", name: str) -> "Contract":
    from freshdata.errors import ContractError

    if contracts[name].kind != "stream":
        streams = ", ".join(contract.name for contract in contracts.values() if contract.kind == "stream")
        raise ContractError(name, "is a lookup; its file counts as it is.", remedy=f"Choose a stream: {streams}.")
    return contracts[name]


def _against_published(catalog: "Catalog", contract: "Contract") -> "tuple[list[Change], Contract | None]":
    """What publishing a contract would change, and what is published now."""
    from freshdata.contracts.evolution import compare
    from freshdata.lake.publication import published_contract

    exists = catalog.table_exists(contract.table)
    published = published_contract(catalog.load_table(contract.table)) if exists else None
    return compare(published, contract) if published else [], published


def _print(
    contract: "Contract", published: "Contract | None", changes: "list[Change]", *, as_json: bool, done: bool
) -> None:
    import json

    from rich.table import Table

    from freshdata.cli.output import console

    before = published.version if published else None
    if as_json:
        outcome = {
            "contract": contract.name,
            "file": contract.version,
            "published": contract.version if done else before,
        }
        listed = [vars(change) for change in changes]
        refused = any(not change.compatible for change in changes)
        typer.echo(json.dumps(outcome | {"before": before, "publishable": not refused, "changes": listed}))
        return
    if changes:
        table = Table("", "what", "rule", "change", header_style="bold")
        for change in changes:
            mark = "[green]✓[/green]" if change.compatible else "[red]✗[/red]"
            table.add_row(mark, change.field, change.rule, change.reason)
        console().print(table)
    if done:
        state = "is published" if changes or not published else "was published already"
        console().print(f"[green]✓[/green] {contract.name} {contract.version} {state}.")
    elif not changes:
        console().print(f"{contract.name}: " + ("no difference." if published else "nothing is published yet."))
