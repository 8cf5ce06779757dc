"""Containers of other coordinators' hosts: how many chains are unfinished there, and how to query them."""

import asyncio
from typing import Protocol

from comptoir.dispatch import Core, State


class RemoteInquiries(Protocol):
    """Queries to the other coordinators; implemented by `comptoir.cluster`."""

    def inquire(self, host_id: bytes, container: str, model_id: str) -> "asyncio.Future[bytes]":
        """Ask a container of a remote host whether it supports a model; the answer is JSON, empty if none came."""
        ...


class NoRemoteInquiries:
    """No other coordinators."""

    def inquire(self, host_id: bytes, container: str, model_id: str) -> "asyncio.Future[bytes]":
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        answer.set_result(b"")
        return answer


class RemoteContainers(State):
    """What this coordinator knows about containers of others."""

    def __init__(self, core: Core) -> None:
        self.inquiries: RemoteInquiries = NoRemoteInquiries()
        self.staged_jobs = 0
        """Unfinished chains that other coordinators own, as they last reported."""

    def inquire_over(self, talk: RemoteInquiries) -> None:
        """Query the other coordinators over *talk* from now on."""
        self.inquiries = talk

    def note_staged_jobs(self, chains: int) -> None:
        """Set how many unfinished chains the others own now."""
        self.staged_jobs = chains
