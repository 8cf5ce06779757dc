"""Errors that stop a worker: every message says what happened and what its owner can do about it."""

from comptoir.kit.errors import Refusal


class WorkerError(Refusal):
    """The worker can't start or continue."""


class KeyRefused(WorkerError):
    """The coordinator does not accept the host key (401 or 403)."""


class HostForgotten(KeyRefused):
    """The coordinator retired this host, which nobody had heard for too long; it may register anew."""


class LinkRefused(WorkerError):
    """The coordinator closed the link for good (version, ban)."""


class RegistrationRefused(WorkerError):
    """The coordinator refused the registration, and a retry won't help."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class StateUnusable(WorkerError):
    """The state file can't be read, written or locked."""
