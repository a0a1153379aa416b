"""The `freshdata` command."""
