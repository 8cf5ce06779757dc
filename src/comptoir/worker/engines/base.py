"""What an engine is: something that turns one OpenAI-style request body into numbered frames.

Going on from another host's frames (`EngineRequest.prefix`), for engines that offer ``can_continue``:

- The first frame is what follows the last delivered one, to the character: nothing again, nothing left out, no character
  in two pieces. Bounds and stop strings hold for the whole answer, prefix included.
- What can't be gone on with is refused before the first frame: `cannot_continue`, whose fault is nobody's (``capacity``), so
  that the coordinator can ask another host or end the answer honestly. Never a guess, never a new beginning.
- `Finish.finish_reason` is that of the whole answer. `Finish.usage` is of this segment: ``completion_tokens`` those of its
  own frames, ``prompt_tokens`` the buyer's prompt without the prefix, whatever the engine had to read again.
- An answer that was complete with its prefix gets its `Finish` alone.

`tests/worker/engines/test_continuation_contract.py` holds every engine to it.

Add an engine: one module here with a class that satisfies `Engine`, one line in `registry.ENGINES`
(docs/adding/an-engine.md).
"""

from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

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
    """``chat``, ``completion``, ``embedding``, ``container``, or another by name."""
    model: str
    body: bytes
    """The buyer's JSON body (OpenAI shape), unknown fields included, never changed. Or `link.ContainerRun`."""
    prefix: tuple[Frame, ...] = ()
    """Frames already delivered by another host; the engine goes on after them. Only if ``can_continue``, or, for a container,
    the outputs of those before it."""
    max_tokens: int = 0
    """Most tokens of the whole answer over all its choices, those of *prefix* included; the loop cuts it there, an engine that
    stops by itself can say what it counted. 0: the body alone says."""


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


def cannot_continue(why: str) -> EngineError:
    """Return the refusal of an engine that can't go on from the frames delivered by another host."""
    return EngineError("cannot_continue", f"the answer can't be gone on with here: {why}", fault="capacity")


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


@runtime_checkable
class Continues(Protocol):
    """What an engine has beside `Engine` that knows how it goes on from another host's frames."""

    async def detect(self) -> None:
        """Find it out, once the engine has started and answered; `Engine.models` says afterwards what was found.

        Never raises for a server that can't.
        """
        ...

    def continuation(self, model: str) -> str:
        """Return how *model* goes on, in words for the host's owner; empty when it does not."""
        ...


@runtime_checkable
class ReportsResources(Protocol):
    """What an engine of containers has beside `Engine`: what they say of themselves, word for word."""

    async def resources(self) -> dict[str, bytes]:
        """Return the JSON of ``GET /service-resources`` by container, without those that don't answer well.

        Bounded in time (5 s) and size (64 KiB each). Never raises for a container that is away.
        """
        ...

    async def supports(self, container: str, model_id: str) -> bytes:
        """Return the JSON of ``GET /service-resources?model_id=``; empty when *container* did not answer well.

        Bounded as `resources`.
        """
        ...
