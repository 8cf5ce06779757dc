"""Dispatch: the verbs of a job's life, one file each, and the only code that touches more than one room.

Read it in this order: `submit` (accept and hold) -> `assign` (give to a host) -> `stream` (take frames) -> `advance`
(start the next stage) -> `settle` (end and pay); then `cancel`, `expire`, `recover`, `drain` and `onboard`.
It contains no SQL and no HTTP. Every verb works on a `Core`.
"""

from comptoir.dispatch.core import Core, Membership, State
from comptoir.dispatch.peers import ClusterStatus, Peers
from comptoir.dispatch.submit import Order

__all__ = ["ClusterStatus", "Core", "Membership", "Order", "Peers", "State"]
