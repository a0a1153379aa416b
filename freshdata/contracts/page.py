"""The contracts as one page for people: what there is, what it means, whose it is, and until when.

It needs no network.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from html import escape
from pathlib import Path
from typing import Any

from freshdata.contracts.model import Column, Contract

PAGE = "index.html"
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #8884; }
code { font-size: .92em; } dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dt { opacity: .7; } dd { margin: 0; } section { margin-top: 3rem; } .warning { color: #c60; font-weight: 600; }
"""


def write_page(contracts: Mapping[str, Contract], folder: Path, today: date) -> Path:
    """Write the page of some contracts into a folder; its path.

    Args:
        contracts: The contracts by name; each one's section has its name as anchor.
        folder: The folder; made if it is not there.
        today: Day by which what has ended is told.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PAGE
    rows = [
        [
            f'<a href="#{c.name}">{c.name}</a>',
            escape(c.version),
            escape(c.description),
            escape(c.owner),
            _warning(c, today),
        ]
        for c in contracts.values()
    ]
    sections = "".join(_section(contract, today) for contract in contracts.values())
    overview = _table(("contract", "version", "what it is", "owner", ""), rows)
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Data contracts</title><style>{STYLE}</style>'
        f"<h1>Data contracts</h1>{overview}{sections}</html>\n"
    )
    return path


def _section(contract: Contract, today: date) -> str:
    facts: dict[str, str] = {
        "owner": escape(contract.owner),
        "contact": escape(contract.contact),
        "table": f"<code>{contract.table}</code>",
        "primary key": escape(", ".join(contract.primary_key)),
    }
    if contract.stream:
        rules = contract.stream
        facts |= {
            "topic": f"<code>{escape(rules.topic)}</code>",
            "message key": escape(", ".join(rules.dedupe_key)),
            "event time": escape(rules.event_time_field),
            "fresh within": str(rules.freshness),
            "unknown fields": rules.unknown_fields,
            "compatibility": rules.compatibility,
        }
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items() if value)
    fields = _table(("field", "type", "required", "values", "meaning"), map(_field, contract.columns))
    promised = [[escape(rule)] for rule in _promises(contract)]
    rules_table = _table(("quality rules",), promised) if promised else ""
    return (
        f'<section id="{contract.name}"><h2>{contract.name} {escape(contract.version)}</h2>{_warning(contract, today)}'
        f"<p>{escape(contract.description)}</p><dl>{listed}</dl>{fields}{rules_table}</section>"
    )


def _field(column: Column) -> list[str]:
    sent = "" if column.source_name == column.name else f" (<code>{escape(column.source_name)}</code> in events)"
    older = f", before {', '.join(map(escape, column.aliases))}" if column.aliases else ""
    values = column.enum or [f"{name} {limit}" for name, limit in column.limits.items()]
    shown = ", ".join(map(str, values))
    gone = ' <span class="warning">deprecated</span>' if column.deprecated else ""
    name = f"<code>{column.name}</code>{sent}{older}{gone}"
    return [name, escape(str(column.type)), "yes" if column.required else "", escape(shown), escape(column.description)]


def _promises(contract: Contract) -> Iterable[str]:
    schema: Any = contract.odcs.schema_[0]
    for rule in [*(schema.quality or []), *(rule for each in schema.properties or [] for rule in each.quality or [])]:
        if rule.description:
            yield str(rule.description)


def _warning(contract: Contract, today: date) -> str:
    warning = contract.lifecycle.warning(today)
    return f'<span class="warning">{escape(warning)}</span>' if warning else ""


def _table(header: tuple[str, ...], rows: Iterable[list[str]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
