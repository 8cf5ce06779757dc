"""Dispatch: the verbs of a job's life, one file each, and the only code that touches two rooms.

Read it in this order: `submit` (accept and hold) -> `assign` (give to a host) -> `stream` (take frames) -> `advance` (on to the
next container of a chain) -> `settle` (end and pay), beside them `cancel`, `expire`, `recover`, `drain` and `onboard`.
No SQL, no HTTP in here. `Core` is what every verb works on.
"""

from comptoir.dispatch.core import Core, Membership, State
from comptoir.dispatch.peers import ClusterStatus, Peers
from comptoir.dispatch.submit import Order

__all__ = ["ClusterStatus", "Core", "Membership", "Order", "Peers", "State"]
