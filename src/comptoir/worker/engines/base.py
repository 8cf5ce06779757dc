"""The contract of an engine, which turns one request body into numbered frames.

Continuing another host's frames (`EngineRequest.prefix`), for engines that offer ``can_continue``:

- The first frame follows the last delivered one exactly, to the character: nothing repeated, nothing omitted, no
  character split. Bounds and stop strings apply to the whole answer, prefix included.
- An answer that can't be continued is refused before the first frame: `cannot_continue`, which is nobody's fault
  (``capacity``), so that the coordinator can try another host or end the answer. An engine never guesses or restarts.
- `Finish.finish_reason` is that of the whole answer. `Finish.usage` is for this segment: ``completion_tokens`` of its
  own frames, ``prompt_tokens`` of the buyer's prompt without the prefix, whatever the engine had to process again.
- If the answer is complete with its prefix, the engine yields only `Finish`.

`tests/worker/engines/test_continuation_contract.py` checks every engine for this.

Add an engine: one module here with a class that satisfies `Engine`, one line in `registry.ENGINES`
(docs/adding/an-engine.md).
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

import msgspec

from comptoir.kinds.files import Artifact, Fetched
from comptoir.link import Frame, ModelOffer, Usage


class Finish(msgspec.Struct, frozen=True):
    """The last item that an engine yields for a successful request."""

    finish_reason: str
    """``stop``, ``length``, ``tool_calls`` or ``content_filter`` (of choice 0)."""
    usage: Usage


class JobFiles(Protocol):
    """The files of one job on this host, for engines of kinds with files (`comptoir.kinds.files.FileKind`).

    Everything in *folder* is erased when the job is over here and acknowledged.
    """

    @property
    def folder(self) -> Path:
        """A private folder on the host's disk, for inputs and whatever the engine keeps while it works."""
        ...

    async def fetch(self, number: int) -> tuple[Path, Fetched | None]:
        """Return input *number* of the order as a plain file below `folder`, with its hash and size checked.

        A file of the buyer's comes from the coordinator, under this job's lease, in parts that go on after a cut; an
        address is fetched through the guard for strangers' URLs. The name of the path is not the buyer's. Idempotent:
        fetched once.

        Returns:
            The path, and of an address what was fetched, to be said in a frame (`FileExtra.fetched`); None of a file.

        Raises:
            EngineError: it can't be had; the fault says whose doing that is.
        """
        ...

    async def deliver(self, content: BinaryIO, *, name: str, media: str = "") -> Artifact:
        """Upload an artifact from *content*'s current position to its end, and return it for a frame.

        In parts that go on after a cut; nothing is held whole in memory. Not idempotent: each call makes a file.

        Raises:
            EngineError: it can't be stored; ``buyer`` where the buyer's quota or limits are reached, or
                *name* is none (`kit.file_names.fit_name` makes it one).
        """
        ...


class EngineRequest(msgspec.Struct, frozen=True):
    """One request as the engine sees it."""

    kind: str
    """``chat``, ``completion``, ``embedding``, ``container``, or another by name."""
    model: str
    body: bytes
    """The buyer's JSON body (OpenAI shape), unknown fields included, never changed. Or `link.ContainerRun`."""
    prefix: tuple[Frame, ...] = ()
    """Frames already delivered by another host, after which the engine continues. Only with ``can_continue``, or, for a
    container, the outputs of those before it."""
    max_tokens: int = 0
    """Most tokens of the whole answer over all its choices, *prefix* included; the loop cuts it there, but an engine
    that stops by itself can report its count. 0: only the body limits it."""
    open_ended: bool = False
    """Whether the buyer named no bound: *max_tokens* is then as large as the whole context, with no room for the
    prompt. An engine that refuses what does not fit is better told none."""
    files: JobFiles | None = None
    """Of a kind with files: where they come from and go to."""


class EngineError(Exception):
    """The engine can't answer, or not continue. *fault* decides who pays and whose reputation changes."""

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
    """Return the refusal of an engine that can't continue the frames delivered by another host."""
    return EngineError("cannot_continue", f"the answer can't be gone on with here: {why}", fault="capacity")


class Engine(Protocol):
    """One source of answers. All methods are called on one event loop; long work belongs in a thread."""

    name: str

    async def start(self) -> None:
        """Load or connect. Raises EngineError with a message that says what to do."""
        ...

    async def models(self) -> list[ModelOffer]:
        """Return the models served now; prices are 0, and the worker sets them from its configuration."""
        ...

    def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Yield frames as they are produced, then exactly one Finish.

        Closing the iterator (``aclose``) stops the work at the engine at once. Raises EngineError.
        """
        ...

    async def close(self) -> None:
        """Free everything; idempotent."""
        ...


@runtime_checkable
class Continues(Protocol):
    """Additional methods of an engine that can detect how it continues another host's frames."""

    async def detect(self) -> None:
        """Detect it, once the engine has started and answered; `Engine.models` then reflects the result.

        Does not raise for a server that can't continue.
        """
        ...

    def continuation(self, model: str) -> str:
        """Return how *model* continues answers, in words for the host's owner; empty if it can't."""
        ...


@runtime_checkable
class ShowsLife(Protocol):
    """An additional method of an engine behind an address, at which one can look without asking it anything."""

    async def alive(self) -> bool:
        """Return whether anything is there. Takes at most a second, and costs the engine next to nothing."""
        ...


@runtime_checkable
class ReportsResources(Protocol):
    """Additional methods of an engine of containers: what they report about themselves, verbatim."""

    async def resources(self) -> dict[str, bytes]:
        """Return the JSON of ``GET /service-resources`` by container, without those that give no valid answer.

        Bounded in time (5 s) and size (64 KiB each). Does not raise for an unreachable container.
        """
        ...

    async def supports(self, container: str, model_id: str) -> bytes:
        """Return the JSON of ``GET /service-resources?model_id=``; empty if *container* gave no valid answer.

        Bounded as `resources`.
        """
        ...
