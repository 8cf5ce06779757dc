"""Duties: what a coordinator does beside answering and must not stop doing, and what of it fails.

Loops and tasks go on after a failure, because one bad turn must not be the last. Without a word about it a coordinator
would answer, take work and confirm, while nobody ends its silent leases or keeps its record: so whatever goes on says
so here, and `dispatch.health` is unhealthy until it works again.
"""

from collections.abc import Mapping
from enum import StrEnum

from comptoir.dispatch.core import Core, State


class Duty(StrEnum):
    """What must go on."""

    SWEEP = "sweep"
    """Deadlines, silent hosts' leases and what is kept for a time are looked after."""
    RECORD = "record"
    """What was confirmed is counted outside the database (`kit.db.CommitRecord`)."""
    CLUSTER = "cluster"
    """The other coordinators are looked after, and hear of this one."""
    ACTS = "acts"
    """What operators decided is put in force. One act that could not be fails until a restart puts all in force."""
    ENDS = "ends"
    """Jobs' ends that waited for the database are written. One that could not be fails until a restart resumes it."""


WORDS = {
    Duty.SWEEP: "deadlines and silent hosts are not looked after",
    Duty.RECORD: "the commit record is not kept",
    Duty.CLUSTER: "the other coordinators are not looked after",
    Duty.ACTS: "an operator's act is not in force here: restart this coordinator",
    Duty.ENDS: "the end of a job could not be written: restart this coordinator",
}


class Duties(State):
    """Which duties fail, and why."""

    def __init__(self, core: Core) -> None:
        self._failing: dict[Duty, str] = {}

    @property
    def failing(self) -> Mapping[Duty, str]:
        """What each duty that fails comes to, in words for everybody: the log has the rest."""
        return self._failing

    def done(self, duty: Duty) -> None:
        """Note that *duty* works."""
        self._failing.pop(duty, None)

    def failed(self, duty: Duty, why: str = "") -> None:
        """Note that *duty* fails; *why* has neither paths nor anybody's data in it."""
        self._failing[duty] = f"{WORDS[duty]} ({why})" if why else WORDS[duty]
