# ruff: noqa: E501 (tables of texts)
"""Until when a contract is supported, whom to ask, and the page that tells people of it."""

import re
from dataclasses import replace
from datetime import date

import pytest
from typer.testing import CliRunner

from freshdata.cli.contract import app
from freshdata.contracts import load_contract, load_contracts
from freshdata.contracts.page import write_page
from freshdata.errors import ContractError
from freshdata.settings import PROJECT

FILE = PROJECT / "contracts" / "flight_events.odcs.yaml"
SLA = "slaProperties:\n"


@pytest.fixture
def flights(tmp_path):
    """Reads the flight contract with further service levels and another status."""

    def read(*levels, status="active", text=""):
        path = tmp_path / "flight_events.odcs.yaml"
        changed = FILE.read_text().replace("status: active", f"status: {status}") + text
        path.write_text(
            changed.replace(SLA, SLA + "".join(f"  - {{property: {n}, value: '{v}'}}\n" for n, v in levels))
        )
        return load_contract(path)

    return read


@pytest.mark.parametrize(
    ("levels", "status", "today", "warning"),
    [
        ([], "active", "2026-01-01", ""),
        ([("endOfSupport", "2026-06-30")], "active", "2026-06-30", ""),
        ([("endOfSupport", "2026-06-30")], "active", "2026-07-01", "its support ended on 2026-06-30"),
        ([("endOfSupport", "2026-06-30")], "deprecated", "2026-01-01", "it is deprecated, and supported until 2026-06-30"),
        ([], "deprecated", "2026-01-01", "it is deprecated"),
        ([("endOfSupport", "2026-06-30"), ("endOfLife", "2026-12-31")], "deprecated", "2027-01-01", "its life ended on 2026-12-31"),
    ],
)  # fmt: skip
def test_what_has_come_to_its_end_is_told_from_the_day_after(flights, levels, status, today, warning):
    assert flights(*levels, status=status).lifecycle.warning(date.fromisoformat(today)) == warning


def test_a_date_that_is_none_is_refused(flights):
    with pytest.raises(ContractError, match=r"endOfLife is 'soon'.*Write a date such as"):
        flights(("endOfLife", "soon"))


def test_the_contact_is_the_support_channel_else_the_team_s_first_member(flights):
    assert flights().contact == "flight-ops@freshdata.example"
    asked = flights(text="support:\n  - {channel: flights, url: 'https://chat.example/flights'}\n")
    assert asked.contact == "https://chat.example/flights"


def test_the_page_tells_of_every_contract_and_loads_nothing(tmp_path, flights):
    contracts = load_contracts(PROJECT / "contracts")
    contracts["flight_events"] = flights(("endOfSupport", "2026-06-30"))
    contracts["weather"] = replace(contracts["weather"], description="<script>")
    page = write_page(contracts, tmp_path / "pages", date(2026, 7, 1)).read_text()
    for contract in contracts.values():
        assert f'<section id="{contract.name}">' in page
        assert all(f"<code>{column.name}</code>" in page for column in contract.columns)
    assert "its support ended on 2026-06-30" in page
    assert "flight-ops@freshdata.example" in page
    assert "A flight leads somewhere else." in page
    assert not re.search(r"src=|href=\"(?!#)|url\(|@import|<script", page)


def test_lint_warns_and_the_command_writes_the_page(tmp_path, monkeypatch):
    folder = tmp_path / "project" / "contracts"
    folder.mkdir(parents=True)
    for path in (PROJECT / "contracts").iterdir():
        text = path.read_text()
        if path == FILE:
            text = text.replace(SLA, f"{SLA}  - {{property: endOfSupport, value: '2020-06-30'}}\n")
        (folder / path.name).write_text(text)
    monkeypatch.setenv("FRESHDATA_PROJECT", str(tmp_path / "project"))
    monkeypatch.setenv("FRESHDATA_HOME", str(tmp_path / "home"))
    result = CliRunner().invoke(app, ["lint"])
    assert result.exit_code == 0
    assert "flight_events: its support ended on 2020-06-30. Ask flight-ops@freshdata.example." in result.output
    assert CliRunner().invoke(app, ["catalog", "--folder", str(tmp_path / "out")]).exit_code == 0
    assert "its support ended" in (tmp_path / "out" / "index.html").read_text()
