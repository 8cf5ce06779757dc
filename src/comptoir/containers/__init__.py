"""Containers: what selling runs of containers needs beyond the life of a job, and only that.

Owns: table ``recorded``; admission to a chain (`admit`), what containers report about themselves and about models
(`note_resources`, `model_support`), and the statuses that other programs report (`RecordedStatuses`).
Invariant: no package below knows of this one: a job of containers is an order, a hold and a settlement like any other.
Units: times in milliseconds since 1970 and monotonic seconds, sizes in bytes.
Knows: dispatch and the hosts; the cluster tells it what is elsewhere (`RemoteContainers`).
"""

from comptoir.containers.admit import admit
from comptoir.containers.errors import ContainerRefused
from comptoir.containers.inquire import ask_here, model_support
from comptoir.containers.recorded import (
    RECORDED_CONTAINERS_MAX,
    RECORDED_NAME_CHARS_MAX,
    RecordedStatuses,
    forgetting,
)
from comptoir.containers.remote import RemoteContainers
from comptoir.containers.resources import is_relayable, note_resources
from comptoir.containers.tables import TABLES

__all__ = [
    "RECORDED_CONTAINERS_MAX",
    "RECORDED_NAME_CHARS_MAX",
    "TABLES",
    "ContainerRefused",
    "RecordedStatuses",
    "RemoteContainers",
    "admit",
    "ask_here",
    "forgetting",
    "is_relayable",
    "model_support",
    "note_resources",
]
