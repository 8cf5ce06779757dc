"""An engine that does exactly what a test says."""

import asyncio
from collections.abc import AsyncIterator, Callable

from comptoir.link import Frame, ModelOffer, Usage
from comptoir.worker.engines.base import EngineRequest, Finish

Step = Frame | Finish | BaseException | asyncio.Event


class ScriptedEngine:
    """Plays *steps* for every request: yields frames and finishes, raises errors, waits for events."""

    name = "scripted"

    def __init__(self, *steps: Step, models: list[ModelOffer] | None = None) -> None:
        self.steps = steps
        self.offers = models or [ModelOffer(name="trivial", kinds=["chat"])]
        self.requests: list[EngineRequest] = []
        self.given = 0
        self.closed_streams = 0
        self.on_request: Callable[[EngineRequest], None] = lambda request: None
        self.ended = asyncio.Event()

    async def start(self) -> None:
        pass

    async def models(self) -> list[ModelOffer]:
        return self.offers

    async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        self.requests.append(request)
        self.on_request(request)
        try:
            for step in self.steps:
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    self.given += 1
                    yield step
        finally:
            self.closed_streams += 1
            self.ended.set()

    async def close(self) -> None:
        pass


def answer(*texts: str, reason: str = "stop") -> list[Step]:
    """Return steps that say *texts*, a token each, and finish."""
    return [*(Frame(text) for text in texts), Finish(reason, Usage(3, len(texts)))]
