"""Refusals of the moderation room: what an act in force forbids, and acts that can't be recorded."""

from comptoir.kit.errors import NotAllowed, Refusal


class ModerationRefusal(Refusal):
    """Root of this room's errors about acts."""


class Barred(NotAllowed):
    """An operator's act forbids it; *reason* is the operator's, *number* that of the act."""

    def __init__(self, message: str, *, reason: str, number: int) -> None:
        super().__init__(f"{message}: {reason} (act {number})")
        self.reason = reason
        self.number = number


class HostSuspended(Barred):
    """The host, or its owner, is suspended until an operator lifts it."""


class HostRetired(Barred):
    """An operator retired the host for good."""


class HostExpired(Barred):
    """The coordinator retired the host, which had been silent for too long; it may register again."""


class UserSuspended(Barred):
    """The user is suspended until an operator lifts it."""


class ModelQuarantined(Barred):
    """Nobody may buy the model, whoever offers it, until an operator releases its name."""


class NothingToLift(ModerationRefusal):
    """The subject is neither suspended nor quarantined."""


class AlreadyRetired(ModerationRefusal):
    """The host is retired, which is for good."""


class LastOperator(ModerationRefusal):
    """Without this operator nobody could lift anything any more."""
