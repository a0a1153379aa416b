"""``python -m freshdata.cli``: the command, for processes that the platform starts itself."""

from freshdata.cli.main import main

main()
