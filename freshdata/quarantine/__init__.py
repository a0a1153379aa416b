"""Rejected events: what there is, what each looks like, and how it is sent again."""

from freshdata.quarantine.events import Place, Problem, Quarantine, RejectedEvent

__all__ = ["Place", "Problem", "Quarantine", "RejectedEvent"]
