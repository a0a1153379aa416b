"""A validation as one HTML page: nothing on it is loaded from elsewhere, and nothing runs."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any

from freshdata.files import replace_file
from freshdata.quality.report import QualityReport, RuleResult
from freshdata.quality.rules import Expectation, Rule
from freshdata.quality.suites import Suite

PAGES_KEPT = 200


@dataclass(frozen=True)
class _Line:
    rule: Rule
    result: RuleResult
    asks: str


def write_page(folder: Path, title: str, report: QualityReport, suite: Suite, facts: dict[str, str]) -> Path:
    """Render a validation into a folder of such pages, of which the oldest go.

    Args:
        folder: The folder.
        title: What was validated, for example ``silver.flight_events``; the file's name begins with it.
        report: The verdict.
        suite: What it was reached by.
        facts: What else to tell: which rows, which run.

    Returns:
        The page's file.
    """
    from jinja2 import Environment, PackageLoader

    now = datetime.now(UTC)
    lines = [_Line(rule, result, _asks(rule, result)) for rule, result in zip(suite.rules, report.results, strict=True)]
    # What is wrong first, errors before warnings.
    order = {"error": 0, "warning": 1, "info": 2}
    lines.sort(key=lambda line: (line.result.passed, order[line.rule.severity]))
    pages = Environment(loader=PackageLoader("freshdata.quality", ""), autoescape=True, trim_blocks=True)
    text = pages.get_template("page.html.jinja").render(title=title, report=report, lines=lines, facts=facts, now=now)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{title}-{now:%Y%m%dT%H%M%S%f}.html"
    replace_file(path, text)
    for old in sorted(folder.glob("*.html"), key=lambda page: page.name.rpartition("-")[2])[:-PAGES_KEPT]:
        old.unlink(missing_ok=True)  # Another run may have been first.
    return path


def _asks(rule: Rule, result: RuleResult) -> str:
    """What a rule asks: in Great Expectations' own words where it was broken, as their rendering takes time."""
    if result.passed or not isinstance(rule.check, Expectation):
        return str(rule.check)
    from great_expectations.expectations.registry import get_expectation_impl
    from great_expectations.render.renderer.inline_renderer import InlineRenderer

    config = get_expectation_impl(rule.check.type)(**rule.check.kwargs).configuration
    for content in InlineRenderer(render_object=config).get_rendered_content():
        value: dict[str, Any] = content.value.to_json_dict()
        if template := value.get("template"):
            words = {name: said["value"] for name, said in value.get("params", {}).items()}
            return Template(template).safe_substitute(words)
    return str(rule.check)
