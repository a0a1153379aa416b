"""``freshdata demo``."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.status import Status

    from freshdata.demo.outcome import Outcome
    from freshdata.demo.steps import Steps, Tell


def demo(
    *,
    months: Annotated[int, typer.Option(min=1, max=12, help="Months of 2013 to run.")] = 1,
    disorder: Annotated[
        bool, typer.Option(help="Add duplicates, late, malformed and contract-breaking events to the real ones.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Seed of the disorder.")] = 2013,
) -> None:
    """Run the main job on real data, end to end, and check every number."""
    from freshdata.demo.run import Demo
    from freshdata.services.instance import choose_instance
    from freshdata.settings import load_settings

    settings = choose_instance(load_settings(), "demo")
    run = Demo(settings, months=months, disorder=disorder, seed=seed)
    show(run, lambda tell, _status: run.run(tell=tell))


def show(steps: "Steps", run: "Callable[[Tell, Status], Outcome]") -> None:
    """Run a demo with its progress shown, and end with its page and its exit code.

    Args:
        steps: The demo.
        run: Runs it, given what tells its steps and the line that shows where it is.
    """
    from freshdata.cli.output import console
    from freshdata.demo.page import print_page

    output = console()
    with output.status("Starting") as status:

        def tell(step: str) -> None:
            output.print(f"[cyan]▸[/cyan] {step}")
            status.update(step)

        try:
            outcome = run(tell, status)
        except (KeyboardInterrupt, RuntimeError) as error:
            # A library that was interrupted in C raises an error of its own (DuckDB: "Query interrupted").
            if not (isinstance(error, KeyboardInterrupt) or steps.cancelled):
                raise
            output.print("[yellow]Stopped; no process is left.[/yellow]")
            raise typer.Exit(130) from None
    print_page(output, outcome)
    raise typer.Exit(0 if outcome.ok else 1)
