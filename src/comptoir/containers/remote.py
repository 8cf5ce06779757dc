"""Containers of other coordinators' hosts: how many chains are under way there, and how to ask what they say."""

import asyncio
from typing import Protocol

from comptoir.dispatch import Core, State


class RemoteInquiries(Protocol):
    """What is asked of the other coordinators; `comptoir.cluster` where there are any."""

    def inquire(self, host_id: bytes, container: str, model_id: str) -> "asyncio.Future[bytes]":
        """Ask a container of a host elsewhere whether it supports a model; the answer is JSON, empty if none came."""
        ...


class NoRemoteInquiries:
    """No other coordinators."""

    def inquire(self, host_id: bytes, container: str, model_id: str) -> "asyncio.Future[bytes]":
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        answer.set_result(b"")
        return answer


class RemoteContainers(State):
    """What this coordinator knows of containers at others."""

    def __init__(self, core: Core) -> None:
        self.inquiries: RemoteInquiries = NoRemoteInquiries()
        self.staged_jobs = 0
        """Unfinished chains that other coordinators own, as they last told."""

    def inquire_over(self, talk: RemoteInquiries) -> None:
        """Tell and ask the others over *talk* from now on."""
        self.inquiries = talk

    def note_staged_jobs(self, chains: int) -> None:
        """Take over how many unfinished chains the others own now."""
        self.staged_jobs = chains
