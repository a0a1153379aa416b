"""Runs without the start of an interpreter: forked from a process that has imported everything already.

Optional, see ``FRESHDATA_WARM_RUNS``. A run is as isolated as one of Dagster's own launcher: a process of its own.
"""
