"""Names of environments, and who may work on one."""

import pytest

from freshdata.environments.records import environment_settings, locked, read_environment
from freshdata.errors import DeploymentError
from freshdata.settings import Settings


@pytest.mark.parametrize("name", ["", "Ann", "../ann", "ann__x", "_ann", "ann_", "1ann", "ann.b", "a" * 41])
def test_a_name_that_could_be_taken_for_another_is_refused(instance: Settings, name: str) -> None:
    with pytest.raises(DeploymentError, match="a name that none can have"):
        environment_settings(instance, name)


def test_an_environment_is_a_folder_of_the_instance(instance: Settings) -> None:
    assert environment_settings(instance, "ann_2").home == instance.home / "environments" / "ann_2"
    with pytest.raises(DeploymentError, match=r"the environments are: none.*freshdata plan ann"):
        read_environment(instance, "ann")


def test_one_at_a_time_works_on_an_environment(instance: Settings) -> None:
    with (
        locked(instance, "ann"),
        locked(instance, "bob"),
        pytest.raises(DeploymentError, match="ann is in use"),
        locked(instance, "ann"),
    ):
        pass
    with locked(instance, "ann"):
        pass
