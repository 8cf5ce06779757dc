"""Acts: who decided what about whom, when and why."""

from enum import StrEnum
from typing import NamedTuple

import msgspec

REASON_CHARS_MAX = 500
"""Longest reason: it stands in every refusal that the act causes."""


class Verb(StrEnum):
    """What was decided; stored as text, and a verb of a newer version is only shown."""

    HOST_SUSPEND = "host.suspend"
    """The host gets no jobs and its key is refused. -> host.resume, host.retire"""
    HOST_RESUME = "host.resume"
    """Lifts ``host.suspend``."""
    HOST_RETIRE = "host.retire"
    """For good: the host's keys are revoked; record and earnings stay."""
    USER_SUSPEND = "user.suspend"
    """The user's keys and password are refused, jobs are cancelled, and hosts suspended. -> user.resume"""
    USER_RESUME = "user.resume"
    """Lifts ``user.suspend``."""
    MODEL_QUARANTINE = "model.quarantine"
    """Nobody is offered the name, and nobody can buy it. -> model.release"""
    MODEL_RELEASE = "model.release"
    """Lifts ``model.quarantine``."""
    BOND_FORFEIT = "bond.forfeit"
    """The host's bond is the operator's; the reason names the evidence. Done once, and nothing that stays in force."""


LIFTED_BY: dict[Verb, tuple[Verb, ...]] = {
    Verb.HOST_SUSPEND: (Verb.HOST_RESUME, Verb.HOST_RETIRE),
    Verb.USER_SUSPEND: (Verb.USER_RESUME,),
    Verb.MODEL_QUARANTINE: (Verb.MODEL_RELEASE,),
}
"""What begins something that stays in force, and what ends it."""


class Author(NamedTuple):
    """Who decides."""

    id: bytes | None
    """The operator's user id; None: the coordinator itself."""
    name: str


COORDINATOR = Author(None, "the coordinator")
"""Who decides what follows from the settings alone."""


class Decision(NamedTuple):
    """An act about to be recorded."""

    id: bytes
    author: Author
    verb: Verb
    subject: str
    """``host_…``, ``usr_…``, or the name of a model."""
    reason: str
    at_ms: int


class Act(msgspec.Struct, frozen=True):
    """A recorded act."""

    number: int
    """1, 2, 3, … in the order of the commits."""
    id: bytes
    at_ms: int
    operator_id: bytes | None
    """None: the coordinator itself."""
    operator: str
    """The operator's name at that time."""
    verb: str
    subject: str
    reason: str
