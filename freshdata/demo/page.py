"""The one page that the demo ends with."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from rich import box
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from freshdata.demo.outcome import Outcome
from freshdata.lake.progress import PartitionProgress

GOOD, BAD, DIM = "green", "red", "dim"
MOST_REASONS = 8
MOST_ROWS = 8
WIDEST_REASON = 58


def print_page(console: Console, outcome: Outcome) -> None:
    """Print the page."""
    console.print()
    console.rule(f"[bold]FreshData[/bold] · {outcome.title}")
    console.print(_events(outcome))
    console.print(Columns([_reasons(outcome), _layers(outcome)], padding=(0, 3)))
    console.print(_checks(outcome))
    console.print(_freshness(outcome))
    console.print(Columns([_answer(answer.title, answer.rows) for answer in outcome.answers], padding=(0, 3)))
    console.print(_reconciliation(outcome))
    console.print(_steps(outcome))
    console.print(_verdict(outcome))


def _table(title: str, *columns: str, numbers: Sequence[int] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold cyan", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number in numbers else "left")
    return table


def _mark(*, ok: bool) -> str:
    return f"[{GOOD}]✓[/{GOOD}]" if ok else f"[{BAD}]✗[/{BAD}]"


def _events(outcome: Outcome) -> RenderableType:
    columns = ("stream", "sent", "accepted", "late", "duplicates", "rejected")
    table = _table("Events", *columns, numbers=range(1, 6))
    for stream, done in outcome.progress.items():
        table.add_row(stream, *(f"{count:,}" for count in _counts(done)))
    return table


def _counts(done: PartitionProgress) -> tuple[int, ...]:
    return done.consumed, done.accepted, done.late, done.duplicates, done.rejected


def _reasons(outcome: Outcome) -> RenderableType:
    table = _table("Rejected, by reason", "events", "reason", numbers=(0,))
    common = Counter(outcome.reasons).most_common()
    for reason, count in common[:MOST_REASONS]:
        table.add_row(f"{count:,}", Text(_cut(reason)))
    if rest := sum(count for _, count in common[MOST_REASONS:]):
        table.add_row(f"{rest:,}", f"[{DIM}]{len(common) - MOST_REASONS} other reasons[/{DIM}]")
    return table


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST_REASON else f"{text[: WIDEST_REASON - 1]}…"


def _layers(outcome: Outcome) -> RenderableType:
    table = _table("Tables", "table", "rows", "files", numbers=(1, 2))
    for name, (rows, files) in outcome.tables.items():
        table.add_row(name, f"{rows:,}", f"{files:,}")
    return table


def _checks(outcome: Outcome) -> RenderableType:
    table = _table("Checks, as Dagster recorded them", "asset", "passed", "failed", numbers=(1,))
    for asset in sorted({check.asset for check in outcome.checks}):
        mine = [check for check in outcome.checks if check.asset == asset]
        failed = [check for check in mine if not check.passed]
        names = ", ".join(f"{check.name} ({check.severity.lower()})" for check in failed)
        passed = f"[{GOOD}]{len(mine) - len(failed)}[/{GOOD}] of {len(mine)}"
        table.add_row(asset, passed, f"[yellow]{names}[/yellow]" if names else "")
    return table


def _freshness(outcome: Outcome) -> RenderableType:
    lines: list[RenderableType] = []
    colors = {"fresh": GOOD, "late": BAD, "idle": DIM}
    for stream, freshness in outcome.freshness.items():
        text = Text(f"{stream} ", style="bold")
        for tenant in sorted(freshness.tenants, key=lambda tenant: tenant.lag):
            text.append(f" {tenant.tenant} ", style=colors[tenant.status])
            text.append(_short(tenant.lag), style=DIM)
        sla = f"   SLA {_short(freshness.tenants[0].sla)}" if freshness.tenants else ""
        lines.append(text.append(sla, style=DIM))
    now = f"{outcome.now:%Y-%m-%d %H:%M} UTC"
    heading = f"[bold cyan]Freshness of each tenant[/bold cyan], newest event before {now} on the replay's clock"
    return Group(heading, *lines, "")


def _short(duration: timedelta) -> str:
    minutes = int(duration.total_seconds() // 60)
    if minutes < 60:
        return f"{minutes}m"
    return f"{minutes // 60}h" if minutes < 48 * 60 else f"{minutes // 1440}d"


def _answer(title: str, rows: list[dict[str, object]]) -> RenderableType:
    names = list(rows[0]) if rows else ["no rows"]
    numeric = [n for n, name in enumerate(names) if rows and isinstance(rows[0][name], int | float)]
    table = _table(title, *names, numbers=numeric)
    for row in rows[:MOST_ROWS]:
        table.add_row(*(f"{value:,.1f}" if isinstance(value, float) else str(value) for value in row.values()))
    return table


def _reconciliation(outcome: Outcome) -> RenderableType:
    table = _table("Reconciliation", "", "claim", "ledger or source", "lake")
    for check in outcome.reconciliation:
        table.add_row(_mark(ok=check.ok), check.claim, check.expected, check.found)
    return table


def _steps(outcome: Outcome) -> RenderableType:
    text = Text()
    for name, seconds in outcome.steps:
        text.append(f"{name} ").append(f"{seconds:.1f} s   ", style=DIM)
    total = sum(seconds for _, seconds in outcome.steps)
    return Group("[bold cyan]Time[/bold cyan]", text.append(f"total {total:.0f} s", style="bold"), "")


def _verdict(outcome: Outcome) -> RenderableType:
    if outcome.ok:
        headline = f"[{GOOD}]{outcome.claim}[/{GOOD}]"
    else:
        lines = "\n".join(f"[{BAD}]✗[/{BAD}] {problem}" for problem in outcome.problems)
        headline = f"[{BAD}]Not everything holds.[/{BAD}] The log files are in {outcome.logs}.\n{lines}"
    hints = (f"[bold]{escape(command)}[/bold]   {what}" for command, what in outcome.hints.items())
    return Panel(
        Group(headline, "", *hints), title="What next", title_align="left", border_style=GOOD if outcome.ok else BAD
    )
