"""Settings come from the environment, and a wrong one is explained."""

import pytest

from freshdata.errors import ConfigError
from freshdata.settings import Settings, load_settings


def test_the_home_folder_is_the_instance_used_last(tmp_path, monkeypatch):
    monkeypatch.delenv("FRESHDATA_HOME", raising=False)
    monkeypatch.setenv("FRESHDATA_PROJECT", str(tmp_path))
    assert load_settings().home == tmp_path / ".freshdata" / "live"
    (tmp_path / ".freshdata").mkdir()
    (tmp_path / ".freshdata" / "current").write_text("demo\n")
    assert load_settings().home == tmp_path / ".freshdata" / "demo"
    monkeypatch.setenv("FRESHDATA_HOME", str(tmp_path / "elsewhere"))
    assert load_settings().home == tmp_path / "elsewhere"


def test_a_value_of_the_wrong_form_is_one_line_with_a_remedy(monkeypatch):
    monkeypatch.setenv("FRESHDATA_KAFKA_CONFIG", "not json")
    with pytest.raises(ConfigError, match=r"FRESHDATA_\*"):
        load_settings()


def test_settings_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="frozen"):
        Settings().kafka_bootstrap = "elsewhere:9092"
