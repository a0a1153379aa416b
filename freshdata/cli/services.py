"""``freshdata up``, ``down`` and ``status``."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freshdata.services.extras import Extra

if TYPE_CHECKING:
    from rich.console import Console

    from freshdata.services.status import Status
    from freshdata.settings import Settings

Speed = Annotated[float, typer.Option(min=0.001, help="Simulated seconds a second until the present is reached.")]
HistoryDays = Annotated[int, typer.Option(min=0, max=365, help="Days before today that are sent first.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port of the Dagster UI on 127.0.0.1.")]
With = Annotated[list[Extra] | None, typer.Option("--with", help="What else to start; repeat it for several.")]
Foreground = Annotated[bool, typer.Option("--foreground", help="Stay; Ctrl-C stops everything.")]


def up(
    *,
    speed: Speed = 3600,
    history_days: HistoryDays = 7,
    port: Port = 3000,
    extras: With = None,
    foreground: Foreground = False,
) -> None:
    """Start the platform and leave it running: the sample flows in as if it happened now."""
    from freshdata.cli.output import console
    from freshdata.services.extras import prepare
    from freshdata.services.instance import choose_instance, platform_state
    from freshdata.services.platform import LiveSample
    from freshdata.services.supervise import run_live
    from freshdata.settings import load_settings

    settings = choose_instance(load_settings(), "live")
    output = console()
    state = platform_state(settings)
    if state and state["ready"]:
        output.print(
            f"FreshData is already up: [bold]{state['web']}[/bold]  [dim]freshdata status · freshdata down[/dim]"
        )
        if absent := set(extras or ()) - {child["name"] for child in state["children"]}:
            output.print(f"[yellow]![/yellow] Without {', '.join(sorted(absent))}: stop it first, to start it with.")
    elif foreground:
        run_live(
            settings,
            LiveSample(speed, history_days),
            web_port=port,
            extras=extras or (),
            tell=lambda text: output.print(f"[cyan]▸[/cyan] {text}"),
            ready=lambda _: _show_ready(output, settings),
        )
        output.print("Stopped.")
    else:
        for extra in extras or ():
            prepare(settings, extra)
        _detach(settings, output, (str(speed), str(history_days), str(port), *(extras or ())))


def down() -> None:
    """Stop the platform."""
    from freshdata.cli.output import console
    from freshdata.services.instance import running_instances
    from freshdata.settings import load_settings

    settings = load_settings()
    output = console()
    running = running_instances(settings)
    for instance, pid in running:
        with output.status("Stopping"):
            _end(instance, pid)
        output.print(f"FreshData in {instance.home} is stopped; its data stays.")
    if not running:
        output.print("Nothing is running.")


def status(*, as_json: Annotated[bool, typer.Option("--json", help="Print the status as JSON.")] = False) -> None:
    """What runs, on which port, and how fresh each table is."""
    import json
    from dataclasses import asdict

    from freshdata.cli.output import console, json_value
    from freshdata.services.status import read_status
    from freshdata.settings import load_settings

    found = read_status(load_settings())
    if as_json:
        typer.echo(json.dumps(asdict(found), default=json_value))
    else:
        _show_status(console(), found)


def _detach(settings: "Settings", output: "Console", arguments: tuple[str, ...]) -> None:
    """Start the supervisor in a session of its own, and wait until it is ready or gives up."""
    import os
    import subprocess
    import sys

    from freshdata.errors import ServiceError
    from freshdata.services.instance import platform_state
    from freshdata.services.prerequisites import find_java, resolve_jars
    from freshdata.services.processes import read_json

    if not settings.kafka_bootstrap:  # Here, where a missing program is told at once and the download is seen.
        find_java()
        resolve_jars(settings)
    settings.logs.mkdir(parents=True, exist_ok=True)
    log = settings.logs / "platform.log"
    failure = settings.run_dir / "failure.json"
    failure.unlink(missing_ok=True)
    with log.open("ab") as file:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "freshdata.services.supervise", *arguments],
            env={**os.environ, "FRESHDATA_HOME": str(settings.home), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with output.status("Starting") as shown:
            while True:
                if supervisor.poll() is not None:
                    told = read_json(failure)
                    raise ServiceError(
                        "platform",
                        told.get("message", "The platform ended while starting."),
                        remedy=told.get("remedy", f"Its log is {log}."),
                    )
                state = platform_state(settings)
                if state and state["pid"] == supervisor.pid:
                    shown.update(f"Starting {state['step']}")
                    if state["ready"]:
                        break
                time.sleep(0.1)
    except KeyboardInterrupt:
        with output.status("Stopping"):
            supervisor.terminate()
            supervisor.wait()
        output.print("Stopped; nothing is left running.")
        raise typer.Exit(130) from None
    port = arguments[2]
    if not state["web"].endswith(f":{port}"):
        output.print(f"[yellow]Port {port} is busy: the Dagster UI took another.[/yellow]")
    _show_ready(output, settings)


def _end(settings: "Settings", pid: int) -> None:
    """Stop a supervisor and wait until it is gone."""
    import psutil

    from freshdata.errors import ServiceError

    try:
        process = psutil.Process(pid)
        process.terminate()
        process.wait(120)
    except psutil.NoSuchProcess:
        return
    except psutil.TimeoutExpired as error:
        raise ServiceError(
            "platform", f"The platform (pid {pid}) does not stop.", remedy=f"Its logs are in {settings.logs}."
        ) from error


def _show_ready(output: "Console", settings: "Settings") -> None:
    from freshdata.services.instance import platform_state

    state = platform_state(settings) or {"web": "", "children": []}
    output.print(f"[green]✓[/green] FreshData is up: [bold]{state['web']}[/bold]")
    _show_warnings(output, state)
    for child in state["children"]:
        if child["name"] == Extra.GATEWAY:
            output.print(f"  [dim]Gateway[/dim] http://127.0.0.1:{child['port']}/docs")
    output.print(
        "  [dim]Try[/dim] freshdata status\n"
        '  [dim]   [/dim] freshdata query "select * from gold.carrier_day order by flight_date desc limit 5"\n'
        "  [dim]   [/dim] freshdata down"
    )


def _show_warnings(output: "Console", state: dict[str, Any]) -> None:
    from rich.markup import escape

    for warning in state.get("warnings", ()):
        output.print(f"[yellow]![/yellow] {escape(warning)}")


def _show_status(output: "Console", found: "Status") -> None:
    from rich.table import Table

    clock = "simulated" if found.simulated else "system clock"
    output.print(f"[bold]{found.home}[/bold]  now {found.now:%Y-%m-%d %H:%M} UTC ({clock})")
    if found.platform is None:
        output.print(f"The platform is not running.{'' if found.kafka is None else f' Kafka: {found.kafka}'}")
    else:
        state = "up" if found.platform["ready"] else f"starting: {found.platform['step']}"
        output.print(
            f"Platform {state} (pid {found.platform['pid']})  UI {found.platform['web'] or '-'}  Kafka {found.kafka}"
        )
        children = Table("process", "pid", "port", "restarts", header_style="bold")
        for child in found.platform["children"]:
            children.add_row(child["name"], str(child["pid"]), str(child["port"] or ""), str(child["restarts"] or ""))
        output.print(children)
        _show_warnings(output, found.platform)
    _show_streams(output, found)
    if not found.tables:
        output.print("No tables yet.")
        return
    tables = Table("table", header_style="bold")
    for name in ("rows", "newest event", "lag"):
        tables.add_column(name, justify="right")
    for table in found.tables:
        newest = f"{table.newest_event:%Y-%m-%d %H:%M}" if table.newest_event else ""
        tables.add_row(table.table, _number(table.rows), newest, _duration(table.lag))
    output.print(tables)


def _show_streams(output: "Console", found: "Status") -> None:
    from rich.markup import escape
    from rich.table import Table

    from freshdata.freshness import describe

    streams = Table("stream", "topic", header_style="bold")
    for name in ("in Kafka", "consumed", "behind"):
        streams.add_column(name, justify="right")
    for stream in found.streams:
        numbers = (_number(value) for value in (stream.in_kafka, stream.consumed, stream.behind))
        streams.add_row(stream.stream, stream.topic, *numbers)
    output.print(streams)
    for stream in found.streams:
        if stream.freshness and stream.freshness.tenants:
            color = "green" if stream.freshness.passed else "red"
            output.print(f"[{color}]{stream.stream}[/{color}]: {escape(describe(stream.freshness))}")
    for stream in found.streams:
        if stream.deprecation:
            output.print(f"[yellow]![/yellow] {stream.stream}: {stream.deprecation}.")


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _duration(value: Any) -> str:
    if value is None:
        return ""
    minutes, seconds = divmod(max(0, int(value.total_seconds())), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number)[:20].strip() or "0 s"
