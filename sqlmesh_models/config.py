"""The project's configuration, also for the plain ``sqlmesh`` command: the instance that the environment names."""

from freshdata.settings import load_settings
from freshdata.transform.project import project_config

config = project_config(load_settings())
