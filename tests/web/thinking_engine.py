"""An engine that is slow to begin, and thinks before it answers; the test says when."""

import asyncio
from collections.abc import AsyncIterator

from comptoir.link import Frame, ModelOffer, Usage
from comptoir.worker.engines.base import EngineRequest, Finish


class ThinkingEngine:
    """Waits, thinks, waits, answers."""

    name = "thinking"
    may_think = asyncio.Event()
    may_answer = asyncio.Event()

    async def start(self) -> None:
        """Nothing to load."""

    async def models(self) -> list[ModelOffer]:
        """Return the one model."""
        return [ModelOffer("thinker", ["chat"])]

    async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Yield thoughts and answer, each when it may."""
        await self.may_think.wait()
        yield Frame("", 1, b'{"delta":{"reasoning_content":"let me "}}')
        yield Frame("", 1, b'{"delta":{"reasoning_content":"see"}}')
        await self.may_answer.wait()
        yield Frame("done", 1)
        yield Finish("stop", Usage(1, 3))

    async def close(self) -> None:
        """Nothing to free."""
