"""``freshdata contract``."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from freshdata.contracts import Contract
    from freshdata.publishing import Publication
    from freshdata.settings import Settings
    from freshdata.trial import Events, Trial

app = typer.Typer(no_args_is_help=True, help="Look at the data contracts, and publish their new versions.")
Name = Annotated[str, typer.Argument(help="Name of the contract.")]
EVENTS_AT_ONCE = 50_000
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
    """Read every contract as the platform does, and say what is wrong, and what has come to its end."""
    from freshdata.cli.output import console
    from freshdata.clock import instance_clock
    from freshdata.contracts import load_contracts
    from freshdata.settings import load_settings

    settings = load_settings()
    contracts, today = load_contracts(settings.contracts_dir), instance_clock(settings.home).now().date()
    console().print(f"[green]✓[/green] {len(contracts)} contracts are valid: {', '.join(contracts)}")
    for contract in contracts.values():
        if warning := contract.lifecycle.warning(today):
            console().print(f"[yellow]![/yellow] {contract.name}: {warning}. Ask {contract.contact or contract.owner}.")


@app.command()
def catalog(
    *, folder: Annotated[Path | None, typer.Option(help="Where to; the instance's own folder by default.")] = None
) -> None:
    """Write the contracts as one HTML page for people."""
    from freshdata.cli.output import console
    from freshdata.clock import instance_clock
    from freshdata.contracts import load_contracts
    from freshdata.contracts.page import write_page
    from freshdata.settings import load_settings

    settings = load_settings()
    contracts, today = load_contracts(settings.contracts_dir), instance_clock(settings.home).now().date()
    path = write_page(contracts, folder or settings.pages_dir, today)
    console().print(f"[green]✓[/green] {len(contracts)} contracts are on [bold]{path}[/bold]")


@app.command()
def diff(name: Name, *, as_json: AsJson = False) -> None:
    """Compare a stream's contract file with what is published; exit code 1 if it could not be published."""
    from freshdata.lake.catalog import open_catalog
    from freshdata.publishing import plan_publication
    from freshdata.settings import load_settings

    settings = load_settings()
    contract = _stream(_known(settings, name), name)
    plan = plan_publication(settings, open_catalog(settings), contract)
    _print(plan, as_json=as_json, done=False)
    if not plan.allowed:
        raise typer.Exit(1)


@app.command()
def publish(name: Name, *, as_json: AsJson = False) -> None:
    """Publish a stream's contract file: its schema is registered, its table follows, and running workers go by it."""
    from freshdata.lake.catalog import open_catalog
    from freshdata.publishing import publish_contract
    from freshdata.settings import load_settings

    settings = load_settings()
    contracts = _known(settings, name)
    contract = _stream(contracts, name)
    _print(publish_contract(settings, open_catalog(settings), contract, contracts), as_json=as_json, done=True)


@app.command("test")
def try_contract(
    name: Name,
    *,
    file: Annotated[Path | None, typer.Option(help="Events to try it on, one a line; else the stream's topic.")] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Of the topic, at most about so many events a partition.")
    ] = 100_000,
    as_json: AsJson = False,
) -> None:
    """Try a contract file on the events of a sample file or of its topic; exit code 1 if it refuses some."""
    import json
    from dataclasses import asdict

    from freshdata.cli.output import console
    from freshdata.contracts.changes import decoder_of
    from freshdata.registry import schema_source
    from freshdata.settings import load_settings
    from freshdata.trial import try_events

    settings = load_settings()
    contract = _stream(_known(settings, name), name)
    batches = _file_events(settings, file) if file else _topic_events(settings, contract.rules.topic, limit)
    with console().status(f"Trying {name} {contract.version}"):
        trial = try_events(decoder_of(contract, schema_source(settings)), batches)
    if as_json:
        typer.echo(json.dumps({"contract": name, "version": contract.version} | asdict(trial)))
    else:
        _print_trial(contract, trial)
    if trial.problems:
        raise typer.Exit(1)


def _file_events(settings: "Settings", file: Path) -> "Iterator[Events]":
    from itertools import islice

    import numpy as np

    from freshdata.clock import instance_clock
    from freshdata.errors import ConfigError

    now = int(instance_clock(settings.home).now().timestamp() * 1000)
    try:
        with file.open("rb") as lines:
            events = (line.rstrip(b"\r\n") for line in lines if line.strip())
            while batch := list(islice(events, EVENTS_AT_ONCE)):
                yield list(batch), None, np.full(len(batch), now)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.", remedy="Name a file of events.") from error


def _topic_events(settings: "Settings", topic: str, limit: int) -> "Iterator[Events]":
    from freshdata.contracts.decode import record_timestamps
    from freshdata.services.kafka import end_offsets
    from freshdata.verify.topic import read_messages

    for partition, end in end_offsets(settings, topic).items():
        taken = 0
        for messages in read_messages(settings, topic, partition, end):
            times = record_timestamps((message.timestamp()[1] for message in messages), len(messages))
            yield [message.value() for message in messages], [message.key() for message in messages], times
            taken += len(messages)
            if taken >= limit:
                break


def _print_trial(contract: "Contract", trial: "Trial") -> None:
    from rich.markup import escape
    from rich.table import Table

    from freshdata.cli.output import console
    from freshdata.quarantine.payload import printable

    if trial.problems:
        table = Table("events", "what is wrong", "for example", header_style="bold")
        for problem in trial.problems.values():
            examples = ", ".join(f"{number:,}" for number in problem.examples)
            table.add_row(f"{problem.events:,}", escape(printable(problem.reason)), f"no. {examples}")
        console().print(table)
    mark = "[red]✗[/red]" if trial.problems else "[green]✓[/green]"
    console().print(f"{mark} {contract.name} {contract.version} takes {trial.accepted:,} of {trial.events:,} events.")


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


def _print(plan: "Publication", *, as_json: bool, done: bool) -> None:
    import json

    from rich.table import Table

    from freshdata.cli.output import console

    contract, published, changes = plan.contract, plan.published, plan.changes
    before = published.version if published else None
    if as_json:
        outcome = {
            "contract": contract.name,
            "file": contract.version,
            "published": contract.version if done else before,
            "before": before,
            "publishable": plan.allowed,
            "schema": plan.schema,
        }
        typer.echo(json.dumps(outcome | {"changes": [vars(change) for change in changes]}))
        return
    if changes:
        table = Table("", "what", "rule", "change", header_style="bold")
        for change in changes:
            mark = "[green]✓[/green]" if change.compatible else "[red]✗[/red]"
            table.add_row(mark, change.field, change.rule, change.reason)
        console().print(table)
    if done:
        state = "is published" if changes or not published else "was published already"
        schema = "" if plan.schema is None else f", its schema has the id {plan.schema}"
        console().print(f"[green]✓[/green] {contract.name} {contract.version} {state}{schema}.")
    elif not changes:
        console().print(f"{contract.name}: " + ("no difference." if published else "nothing is published yet."))
