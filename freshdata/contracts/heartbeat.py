"""Read and check how long a tenant may be silent, where its stream's contract says so."""

from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError

from freshdata.contracts.model import Heartbeat
from freshdata.errors import ContractError

ISO_DURATION = TypeAdapter(timedelta)
FORM = "Write a duration such as PT6H, or {default: PT6H, tenants: {TENANT: P2D}}."


def read_duration(file: str, name: str, value: Any) -> timedelta:
    """A duration of a contract.

    Args:
        file: What complaints are about.
        name: What the duration is of.
        value: As it is written.

    Raises:
        ContractError: it is no ISO 8601 duration.
    """
    try:
        return ISO_DURATION.validate_python(str(value))
    except ValidationError as error:
        raise ContractError(file, f"{name} is {value!r}.", remedy="Write an ISO 8601 duration such as PT6H.") from error


def read_heartbeat(file: str, given: Any, sla: timedelta, idle_after: timedelta) -> Heartbeat | None:
    """How long a stream's tenants may be silent; None when the contract does not say.

    Args:
        file: What complaints are about.
        given: The ``heartbeat`` property.
        sla: The stream's freshness SLA.
        idle_after: From when on a silent tenant is not expected any more.

    Raises:
        ContractError: the property has another form, or a tenant could never be late by it.
    """
    if given is None:
        return None
    stated = given if isinstance(given, dict) else {"default": given}
    tenants = stated.get("tenants", {})
    if not stated.keys() <= {"default", "tenants"} or not isinstance(tenants, dict):
        raise ContractError(file, f"heartbeat is {given!r}.", remedy=FORM)
    if unquoted := [name for name in tenants if not isinstance(name, str)]:
        # YAML reads a tenant named NO as false, and 007 as a number.
        raise ContractError(file, f"heartbeat names the tenant {unquoted[0]!r}.", remedy="Quote its name.")
    heartbeat = Heartbeat(
        read_duration(file, "heartbeat", stated["default"]) if "default" in stated else sla,
        {name: read_duration(file, f"heartbeat of {name}", value) for name, value in tenants.items()},
    )
    for name, longest in {"": heartbeat.longest, **heartbeat.tenants}.items():
        of = f" of {name}" if name else ""
        if longest <= timedelta(0):
            raise ContractError(file, f"heartbeat{of} is not above zero.", remedy="Write a longer duration.")
        if max(longest, sla) >= idle_after:
            raise ContractError(
                file,
                f"heartbeat{of} leaves no time at which a silent tenant is late: it is idle after {idle_after}.",
                remedy="Raise tenantIdleAfter above heartbeat and freshness SLA, or shorten these.",
            )
    return heartbeat
