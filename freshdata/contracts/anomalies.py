"""Read and check what a contract says of anomalies: how unusual a day may be before the reader is warned."""

from collections.abc import Iterable
from typing import Any

from freshdata.contracts.model import AnomalyRules, Enrichment
from freshdata.errors import ContractError

DEVIATIONS = {"volume": "volume", "nullShare": "nulls", "distribution": "distribution"}
FORM = "Write {volume: NUMBER, nullShare: NUMBER, distribution: NUMBER, ignore: [COLUMN]}, or some of these."


def read_anomalies(file: str, given: Any, columns: Iterable[str], enrichments: Iterable[Enrichment]) -> AnomalyRules:
    """What counts as unusual of a stream's days; the defaults where the contract says nothing.

    Args:
        file: What complaints are about.
        given: The ``anomalies`` property.
        columns: The stream's own fields.
        enrichments: What the worker adds to them.

    Raises:
        ContractError: the property has another form, a number of deviations is none above 0, or a column to ignore is
            none of the stream's.
    """
    if given is None:
        return AnomalyRules()
    if not isinstance(given, dict) or not given.keys() <= {*DEVIATIONS, "ignore"}:
        raise ContractError(file, f"anomalies is {given!r}.", remedy=FORM)
    deviations = {ours: given[theirs] for theirs, ours in DEVIATIONS.items() if theirs in given}
    for theirs, ours in DEVIATIONS.items():
        value = deviations.get(ours, 1)
        # Not isinstance: YAML's `true` would pass as the number 1.
        if type(value) not in (int, float) or not 0 < value < float("inf"):
            raise ContractError(
                file,
                f"anomalies.{theirs} is {value!r}.",
                remedy="Write how many deviations a day may be off: a number above 0, larger to be warned less.",
            )
    ignored, known = (
        given.get("ignore", []),
        {*columns, *(name for each in enrichments for name in each.columns.values())},
    )
    if not isinstance(ignored, list) or not {*map(str, ignored)} <= known:
        raise ContractError(
            file, f"anomalies.ignore is {ignored!r}.", remedy=f"List columns of the stream: {', '.join(sorted(known))}."
        )
    return AnomalyRules(**{ours: float(value) for ours, value in deviations.items()}, ignored=tuple(map(str, ignored)))
