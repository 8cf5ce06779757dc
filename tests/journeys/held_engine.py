"""An engine that stops half-way through each answer until the test says go on."""

import asyncio
from collections.abc import AsyncIterator

import msgspec

from comptoir.link import Frame, ModelOffer, Usage
from comptoir.worker.engines.base import EngineRequest, Finish


class _Wanted(msgspec.Struct):
    max_tokens: int


class HeldEngine:
    """Answers with ``max_tokens`` tokens, the second half of them once `go_on` is set."""

    name = "held"
    go_on = asyncio.Event()
    """Of the engine that was started last."""

    async def start(self) -> None:
        """Nothing to load."""
        type(self).go_on = asyncio.Event()

    async def models(self) -> list[ModelOffer]:
        """Return the one model."""
        return [ModelOffer("trivial", ["chat"])]

    async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Yield the constant answer."""
        most = msgspec.json.decode(request.body, type=_Wanted).max_tokens
        for number in range(most):
            if number == most // 2:
                await self.go_on.wait()
            yield Frame(" tok")
        yield Finish("stop", Usage(1, most))

    async def close(self) -> None:
        """Nothing to free."""
