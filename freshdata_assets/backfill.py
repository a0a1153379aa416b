"""``freshdata backfill``: rebuild days of Silver and Gold from the layer before, in ordinary Dagster runs.

Each run takes a stretch of days through the very assets and checks that the UI's backfill takes, in this process. What
is done is noted, so the same command continues after an interruption.
"""

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from freshdata.errors import FreshDataError, TransformError
from freshdata.intervals import Granularity, first_hour, last_hour
from freshdata.transform.manifest import calendar_of
from freshdata_assets.definitions import defs
from freshdata_assets.platform import Platform, asset_key, current_platform, key_of
from freshdata_assets.scope import RANGE_END, RANGE_START, REASON, TENANT

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Backfill:
    """What is to be rebuilt.

    Attributes:
        models: Models with partitions, upstream before downstream.
        first: First day.
        last: Last day, inclusive.
        tenant: The only tenant whose rows are rebuilt; None for all.
        chunk: Days of one run.
    """

    models: tuple[str, ...]
    first: date
    last: date
    tenant: str | None
    chunk: int

    def stretches(self) -> list[tuple[date, date]]:
        """First and last day of each run."""
        length = (self.last - self.first).days + 1
        begins = (self.first + timedelta(days=offset) for offset in range(0, length, self.chunk))
        return [(begin, min(begin + timedelta(days=self.chunk - 1), self.last)) for begin in begins]

    def reason(self) -> str:
        """Why its runs run."""
        return f"backfill of {self.first} to {self.last}" + (f", tenant {self.tenant}" if self.tenant else "")


class Ledger:
    """Which stretches of a backfill are done, in a file of the instance.

    Args:
        folder: Folder of all ledgers.
        platform: The platform; with other contracts or models a backfill starts over.
        backfill: The backfill.
    """

    def __init__(self, folder: Path, platform: Platform, backfill: Backfill) -> None:
        identity = json.dumps([platform.fingerprint, vars(backfill)], default=str)
        self._path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"
        self.done: list[str] = json.loads(self._path.read_text()) if self._path.is_file() else []

    def note(self, stretch: tuple[date, date]) -> None:
        """A stretch is done."""
        self.done.append(stretch[0].isoformat())
        self._path.parent.mkdir(parents=True, exist_ok=True)
        half = self._path.with_suffix(".new")
        half.write_text(json.dumps(self.done))
        half.replace(self._path)

    def close(self) -> None:
        """All is done: the same command starts anew."""
        self._path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Outcome:
    """What one run did.

    Attributes:
        first: First day.
        last: Last day.
        run_id: The Dagster run.
        rows: Model to the rows that its days hold now; of one without days of its own, the table's.
        problem: Why it failed, or None.
    """

    first: date
    last: date
    run_id: str
    rows: dict[str, int]
    problem: str | None = None


def plan(platform: Platform, asked: argparse.Namespace) -> Backfill:
    """Choose models and days: the named models and all downstream of them, or all; all days that have a partition.

    Raises:
        TransformError: there is no such model, it has no days, or the days are none.
    """
    names: list[str] = asked.model
    for name in names:
        if name not in platform.models:
            raise TransformError(name, "does not exist.", remedy=f"Use one of {', '.join(platform.models)}.")
        if platform.models[name].partition_column is None:
            raise TransformError(name, "has no partitions.", remedy="Materialize it whole, in the Dagster UI.")
    chosen = set(names)
    for model in platform.models.values():  # Upstream comes before downstream.
        if model.partition_column and (not names or chosen & set(model.depends_on)):
            chosen.add(model.name)
    begin, end = platform.span()
    first, last = max(asked.first or begin, begin), min(asked.last or end, end)
    if first > last:
        raise TransformError("of this backfill", "has no days.", remedy=f"Choose days from {begin} to {end}.")
    return Backfill(tuple(name for name in platform.models if name in chosen), first, last, asked.tenant, asked.chunk)


def run(
    platform: Platform, backfill: Backfill, stretch: tuple[date, date], instance: dg.DagsterInstance
) -> list[Outcome]:
    """Rebuild one stretch of days: a Dagster run has either days or hours, so that each calendar has its own."""
    outcomes: list[Outcome] = []
    out: set[str] = set()
    for calendar, names in _by_calendar(platform, backfill.models):
        for name in names:
            if out & set(platform.models[name].depends_on):
                out.add(name)
        if models := [name for name in names if name not in out]:
            limits = (first_hour(stretch[0]), last_hour(stretch[1])) if calendar == "hour" else stretch
            outcomes.append(_run(backfill, stretch, models, [key_of(limit) for limit in limits], instance))
            if outcomes[-1].problem:
                out.update(models)  # What is made from them must wait; the others need not.
    return outcomes


def _by_calendar(platform: Platform, names: Iterable[str]) -> Iterator[tuple[Granularity | None, list[str]]]:
    """Models in as few groups of one calendar as there may be, upstream before downstream."""
    levels: dict[str, int] = {}
    groups: dict[tuple[int, Granularity | None], list[str]] = {}
    calendars = {name: calendar_of(platform.models, platform.models[name]) for name in names}
    for name, calendar in calendars.items():  # Upstream comes before downstream.
        upstream = [other for other in platform.models[name].depends_on if other in levels]
        levels[name] = max((levels[other] + (calendars[other] != calendar) for other in upstream), default=0)
        groups.setdefault((levels[name], calendar), []).append(name)
    for (_, calendar), group in sorted(groups.items(), key=lambda item: item[0][0]):
        yield calendar, group


def _run(
    backfill: Backfill, stretch: tuple[date, date], models: list[str], keys: list[str], instance: dg.DagsterInstance
) -> Outcome:
    tags = {RANGE_START: keys[0], RANGE_END: keys[1], REASON: backfill.reason()}
    result = (
        defs()
        .resolve_implicit_global_asset_job_def()
        .execute_in_process(
            instance=instance,
            asset_selection=[asset_key(name) for name in models],
            tags=tags | ({TENANT: backfill.tenant} if backfill.tenant else {}),
            run_config=QUIET,
            raise_on_error=False,
        )
    )
    rows = dict.fromkeys(models, 0)
    for event in result.get_asset_materialization_events():
        materialization = event.step_materialization_data.materialization
        counts = materialization.metadata
        if (count := counts.get("dagster/partition_row_count") or counts.get("dagster/row_count")) is not None:
            rows[".".join(materialization.asset_key.path)] += int(str(count.value))
    return Outcome(*stretch, result.run_id, rows, None if result.success else _problem(result))


def _problem(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.event_type_value == "STEP_FAILURE":
            failure = event.step_failure_data
            if failure.user_failure_data and failure.user_failure_data.description:
                return failure.user_failure_data.description
            return str(failure.error.message if failure.error else event.message).strip().splitlines()[0]
    refused = [check for check in result.get_asset_check_evaluations() if not check.passed and check.blocking]
    return "; ".join(f"{'.'.join(c.asset_key.path)}: {c.check_name} failed" for c in refused) or "the run failed"


def main() -> int:
    """Run the command; returns the exit code."""
    asked = _parser().parse_args()
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        return _backfill(asked, console)
    except FreshDataError as error:
        console.print(f"[red]✗[/red] {error.message} [dim]{error.remedy}[/dim]")
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; each day is whole, as it was or rebuilt. The same command continues.")
        return 130


def _backfill(asked: argparse.Namespace, console: Console) -> int:
    started, platform = time.monotonic(), current_platform()
    backfill = plan(platform, asked)
    home = platform.settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").is_file():
        shutil.copyfile(platform.settings.project / "dagster.yaml", home / "dagster.yaml")
    ledger = Ledger(platform.settings.home / "backfills", platform, backfill)
    if asked.restart:
        ledger.close()
        ledger.done.clear()
    todo = [stretch for stretch in backfill.stretches() if stretch[0].isoformat() not in ledger.done]
    outcomes: list[Outcome] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with dg.DagsterInstance.from_config(str(home)) as instance, Progress(*columns, console=console) as bars:
        task = bars.add_task("", total=len(backfill.stretches()), completed=len(ledger.done))
        for stretch in todo:
            bars.update(task, description=f"{stretch[0]} to {stretch[1]}")
            done = run(platform, backfill, stretch, instance)
            outcomes += done
            if not any(outcome.problem for outcome in done):
                ledger.note(stretch)
            bars.advance(task)
    failed = [outcome for outcome in outcomes if outcome.problem]
    if not failed:
        ledger.close()
    if asked.json:
        print(json.dumps([vars(outcome) for outcome in outcomes], default=str))  # noqa: T201 - what was asked for.
    else:
        _show(platform, backfill, outcomes, time.monotonic() - started)
    for outcome in failed:
        console.print(
            f"[red]✗[/red] {outcome.first} to {outcome.last}: {outcome.problem} [dim]Run {outcome.run_id}.[/dim]"
        )
    return 1 if failed else 0


def _show(platform: Platform, backfill: Backfill, outcomes: list[Outcome], seconds: float) -> None:
    table = Table("model", header_style="bold")
    for heading in ("days", "rows now"):
        table.add_column(heading, justify="right")
    done = [outcome for outcome in outcomes if outcome.problem is None]
    for name in backfill.models:
        mine = [outcome for outcome in done if name in outcome.rows]
        days = sum((outcome.last - outcome.first).days + 1 for outcome in mine)
        counts = [outcome.rows[name] for outcome in mine]
        # Runs share a month, and each tells the rows of all months.
        rows = sum(counts) if platform.models[name].granularity else max(counts, default=0)
        table.add_row(name, str(days), f"{rows:,}")
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"{backfill.reason()}: {len(done)} runs in {seconds:.0f} s. Each is in Dagster's run list, with its checks."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="freshdata backfill")
    parser.add_argument("model", nargs="*")
    parser.add_argument("--from", dest="first", type=date.fromisoformat)
    parser.add_argument("--to", dest="last", type=date.fromisoformat)
    parser.add_argument("--tenant")
    parser.add_argument("--chunk", type=int, default=31)
    parser.add_argument("--restart", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
