"""What an engine is: something that turns one OpenAI-style request body into numbered frames.

Add an engine: one module here with a class that satisfies `Engine`, one line in `registry.ENGINES`
(docs/adding/an-engine.md).
"""

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from comptoir.link import Frame, ModelOffer, Usage


class Finish(msgspec.Struct, frozen=True):
    """Last thing an engine yields for a request that went well."""

    finish_reason: str
    """``stop``, ``length``, ``tool_calls`` or ``content_filter`` (of choice 0)."""
    usage: Usage


class EngineRequest(msgspec.Struct, frozen=True):
    """One request as the engine sees it."""

    kind: str
    """``chat``, ``completion`` or ``embedding``."""
    model: str
    body: bytes
    """The buyer's JSON body (OpenAI shape), unknown fields included; never changed by the house."""
    prefix: tuple[Frame, ...] = ()
    """Frames already delivered by another host; the engine goes on after them. Only if ``can_continue``."""
    max_tokens: int = 0
    """Most tokens of the answer over all its choices; the loop cuts it there, an engine that stops by itself can say
    what it counted. 0: the body alone says."""


class EngineError(Exception):
    """The engine can't (go on to) answer. Attribution decides who pays and whose reputation moves."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        fault: str = "host",
        status: int = 0,
        body: bytes = b"",
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fault = fault
        self.status = status
        self.body = body
        self.retry_after_s = retry_after_s


class Engine(Protocol):
    """One source of answers. All methods are called on one event loop; long work belongs in a thread."""

    name: str

    async def start(self) -> None:
        """Load or connect. Raises EngineError with a message that says what to do."""
        ...

    async def models(self) -> list[ModelOffer]:
        """Return the models served now; prices are left 0, the worker's configuration fills them in."""
        ...

    def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Yield frames as they are made, then exactly one Finish.

        Closing the iterator (``aclose``) stops the work at the engine at once. Raises EngineError.
        """
        ...

    async def close(self) -> None:
        """Free everything; idempotent."""
        ...
