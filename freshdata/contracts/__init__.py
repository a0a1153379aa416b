"""Data contracts: one for each stream or lookup; everything else is derived from them."""

from freshdata.contracts.loader import load_contract, load_contracts, stream_contract
from freshdata.contracts.model import Column, Contract, Enrichment, Heartbeat, StreamRules

__all__ = [
    "Column",
    "Contract",
    "Enrichment",
    "Heartbeat",
    "StreamRules",
    "load_contract",
    "load_contracts",
    "stream_contract",
]
