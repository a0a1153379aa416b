"""Where results are kept: one section of ``RESULTS.md`` a benchmark, and what it ran on."""

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from freshdata.settings import PROJECT

RESULTS = Path(__file__).with_name("RESULTS.md")


def machine() -> dict[str, str]:
    """What a benchmark runs on, and the commit it measures."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    return {
        "commit": commit.stdout.strip() or "unknown",
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load before": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def _processor() -> str:
    """Vendor, family and model: of one kind of virtual machine, some have processors twice as fast as others."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return platform.processor() or platform.machine()
    pairs = (line.partition(":") for line in path.read_text().partition("\n\n")[0].splitlines())
    known = {name.strip(): value.strip() for name, _, value in pairs}
    parts = (
        known.get("model name"),
        *(f"{name.removeprefix('cpu ')} {known[name]}" for name in ("cpu family", "model") if name in known),
    )
    return " ".join(part for part in parts if part)


def write_section(
    name: str, heading: str, lines: Sequence[str], facts: Mapping[str, str], path: Path = RESULTS
) -> None:
    """Replace a benchmark's section of the results, or append it.

    Args:
        name: The benchmark's name.
        heading: The section's heading.
        lines: Its Markdown lines.
        facts: What it ran on, and with what.
        path: The Markdown file.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    about = ", ".join(f"{fact} {value}" for fact, value in facts.items()) + "."
    section = "\n".join([begin, f"## {heading}", "", *lines, "", about, end])
    text = path.read_text() if path.is_file() else "# Results\n"
    if begin not in text:
        text += f"\n{begin}\n{end}\n"
    head, rest = text.split(begin, 1)
    path.write_text(head + section + rest.split(end, 1)[1])
