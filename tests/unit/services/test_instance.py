"""Who owns an instance's folder, and what happens to one that another version made."""

import json
import subprocess
import sys

import pytest

from freshdata.api_keys import create_key, keys_file, read_keys
from freshdata.errors import AlreadyRunningError
from freshdata.services.instance import choose_instance, own_home, platform_file, platform_state
from freshdata.settings import Settings, current_instance


@pytest.fixture
def settings(tmp_path):
    return Settings(project=tmp_path).for_home(tmp_path / "home")


def test_a_second_owner_is_refused_and_told_the_first(settings):
    script = (
        "import sys\nfrom pathlib import Path\nfrom freshdata.settings import Settings\n"
        "from freshdata.services.instance import own_home\n"
        f"s = Settings().for_home(Path({str(settings.home)!r}))\n"
        "with own_home(s, keep_old=True):\n    print('mine', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(AlreadyRunningError) as raised, own_home(settings, keep_old=True):
            pass
        assert raised.value.pid == other.pid
        other.kill()
    with own_home(settings, keep_old=True):  # A killed owner's files are in nobody's way.
        pass


def test_data_of_this_layout_stays(settings):
    with own_home(settings, keep_old=True):
        (settings.home / "catalog.db").write_text("rows")
    with own_home(settings, keep_old=False):
        assert (settings.home / "catalog.db").read_text() == "rows"


@pytest.mark.parametrize("layout", [None, {"layout": 0}, {"layout": 99}, "not json"])
def test_another_layout_is_moved_aside_or_emptied(settings, layout):
    settings.home.mkdir()
    (settings.home / "catalog.db").write_text("rows")
    if layout:
        (settings.home / "layout.json").write_text(json.dumps(layout))
    told = []
    with own_home(settings, keep_old=True, tell=told.append):
        assert not (settings.home / "catalog.db").exists()
        moved = settings.home.with_name("home.old-1")
        assert (moved / "catalog.db").read_text() == "rows"
        assert str(moved) in told[0]
        with pytest.raises(AlreadyRunningError), own_home(settings, keep_old=True):
            pass
    (settings.home / "layout.json").unlink()
    (settings.home / "warehouse" / "gold").mkdir(parents=True)
    with own_home(settings, keep_old=False):
        assert not (settings.home / "warehouse").exists()


def test_keys_that_were_made_before_the_first_start_stay(settings):
    create_key(keys_file(settings), tenant="UA")
    with own_home(settings, keep_old=True):
        assert len(read_keys(keys_file(settings))) == 1


def test_a_fresh_instance_starts_from_nothing(settings):
    with own_home(settings, keep_old=False):
        (settings.home / "catalog.db").write_text("rows")
        settings.metrics_dir.mkdir(parents=True)
        (settings.metrics_dir / "worker.json").write_text("[]")
    with own_home(settings, keep_old=False, fresh=True):
        assert not (settings.home / "catalog.db").exists()
        assert [path.name for path in settings.run_dir.iterdir()] == ["lock"]


def test_a_dead_platforms_state_is_ignored(settings):
    platform_file(settings).parent.mkdir(parents=True)
    platform_file(settings).write_text(json.dumps({"pid": 1, "created": 0.0, "ready": True}))
    assert platform_state(settings) is None


def test_the_instance_chosen_last_is_the_one_meant(tmp_path):
    settings = Settings(project=tmp_path)
    assert choose_instance(settings, "demo").home == tmp_path / ".freshdata" / "demo"
    assert current_instance(settings.root) == "demo"
    assert settings.home == tmp_path / ".freshdata" / "demo"
    elsewhere = settings.for_home(tmp_path / "elsewhere")
    assert choose_instance(elsewhere, "live").home == tmp_path / "elsewhere"
    assert current_instance(settings.root) == "demo"
