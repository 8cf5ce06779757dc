"""The engine that makes echoes, one repetition a frame; it goes on from another host's frames."""

import asyncio
from collections.abc import AsyncIterator

from comptoir.link import Frame, ModelOffer, Usage
from comptoir.worker.engines.base import EngineRequest, Finish
from tests.kinds.echo import read


def pieces(body: bytes, *, have: int = 0) -> list[Frame]:
    """Return the frames of an output behind the first *have* of them."""
    asked = read(body)
    return [Frame(asked.text, len(asked.text.encode()))] * (asked.times - have)


class EchoEngine:
    """Says what it is asked to. With *stops_after* it stands still behind so many pieces: a host that is about to be
    lost."""

    name = "echo"

    def __init__(self, *, stops_after: int = 0, model: str = "parrot") -> None:
        self._stops_after = stops_after
        self._model = model

    async def start(self) -> None:
        """Nothing to load."""

    async def models(self) -> list[ModelOffer]:
        """Return the one thing offered."""
        return [ModelOffer(self._model, ["echo"], can_continue=True)]

    async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Yield the pieces that are still to come."""
        made = 0
        for number, frame in enumerate(pieces(request.body, have=len(request.prefix)), 1):
            yield frame
            made += frame.tokens
            if number == self._stops_after:
                await asyncio.Event().wait()
        yield Finish("stop", Usage(completion_tokens=made))

    async def close(self) -> None:
        """Nothing to free."""
