"""The rendered report: what it says, that it is harmless, and how many are kept."""

from pathlib import Path

import pytest

from freshdata.quality import QualityReport, Rule, RuleResult, Suite, page
from freshdata.quality.bounds import Bounds
from freshdata.quality.page import write_page
from freshdata.quality.rules import Expectation, Query

RULES = (
    Rule("id.unique", "error", "", "", ("id",), Expectation("expect_column_values_to_be_unique", {"column": "id"})),
    Rule("late", "warning", "", "Few are late.", (), Query("SELECT count(*) FROM rows WHERE late", Bounds({"<": 9}))),
    Rule("set", "error", "", "", ("name",),
         Expectation("expect_column_values_to_be_in_set", {"column": "name", "value_set": ["<i>"]}), "own/x.json"),
)  # fmt: skip
RESULTS = (
    RuleResult("id.unique", "error", passed=True, bad=0, rows=1200),
    RuleResult("late", "warning", passed=False, bad=None, rows=1200, observed="12 (must be < 9)"),
    RuleResult("set", "error", passed=False, bad=1, rows=1200, sample=({"id": 7, "name": "<script>x</script>"},)),
)


def write(folder: Path, title: str = "gold.sums") -> Path:
    suite = Suite(title, RULES, ("id",))
    return write_page(folder, title, QualityReport(1200, RESULTS), suite, {"extent": "2013-01-01"})


def test_a_page_says_what_is_wrong_first_and_is_whole_in_itself(tmp_path: Path) -> None:
    text = write(tmp_path).read_text()
    rules = [text.index(f"<td>{rule}<br>") for rule in ("set", "late", "id.unique")]
    assert rules == sorted(rules)
    for said in (
        "name values must belong to this set: &lt;i&gt;.", "own/x.json", "&lt;script&gt;x&lt;/script&gt;",
        "Few are late.", "12 (must be &lt; 9)", "2013-01-01", "1,200",
    ):  # fmt: skip
        assert said in text
    for way_out in ("<script", "<i>", "src=", "href=", "@import", "url("):
        assert way_out not in text


def test_the_newest_pages_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "PAGES_KEPT", 3)
    pages = [write(tmp_path, title) for title in ("z", "a", "z", "b", "a")]
    assert sorted(tmp_path.iterdir()) == sorted(pages[2:])
