"""Read and check what a contract says of its owner's contact and of its own end."""

from datetime import date
from typing import Any

from open_data_contract_standard.model import OpenDataContractStandard

from freshdata.contracts.model import Lifecycle
from freshdata.errors import ContractError

# The standard's own names of service levels.
ENDS = {"endOfSupport": "end_of_support", "endOfLife": "end_of_life"}


def read_contact(odcs: OpenDataContractStandard) -> str:
    """Where to reach a contract's owner: its first support channel, else its team's first member; or nothing."""
    for channel in odcs.support or []:
        return str(channel.url or channel.channel or "")
    members = getattr(odcs.team, "members", None) or []
    return next((str(member.username) for member in members if member.username), "")


def read_lifecycle(file: str, odcs: OpenDataContractStandard) -> Lifecycle:
    """Until when a contract is supported.

    Raises:
        ContractError: a date is none.
    """
    ends: dict[str, Any] = {}
    for item in odcs.slaProperties or []:
        if item.property in ENDS:
            try:
                ends[ENDS[item.property]] = date.fromisoformat(str(item.value))
            except ValueError as error:
                raise ContractError(
                    file, f"{item.property} is {item.value!r}.", remedy="Write a date such as 2027-01-31."
                ) from error
    return Lifecycle(deprecated=odcs.status in ("deprecated", "retired"), **ends)
