"""An engine that costs nothing, to measure and test everything around engines. Never offered to buyers by default.

``comptoir host --engine bench.trivial_engine:TrivialEngine,tokens=100``
"""

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec

from comptoir.link import Frame, ModelOffer, Usage
from comptoir.worker.engines.base import EngineRequest, Finish


class _Wanted(msgspec.Struct):
    max_tokens: int | None = None


class TrivialEngine:
    """Answers every chat and completion with *tokens* (or the request's ``max_tokens``) times *text*.

    *per_s* paces the frames on a fixed schedule; 0 gives them as fast as they are taken. With *stamp* each frame says
    when it was made (``time.monotonic_ns``, the same clock in every process of a machine) instead of *text*.
    """

    name = "trivial"

    def __init__(
        self, *, tokens: int = 100, per_s: float = 0.0, text: str = " tok", model: str = "trivial", stamp: bool = False
    ) -> None:
        self._tokens = tokens
        self._per_s = per_s
        self._text = text
        self._model = model
        self._stamp = stamp

    async def start(self) -> None:
        """Nothing to load."""

    async def models(self) -> list[ModelOffer]:
        """Return the one model."""
        return [ModelOffer(name=self._model, kinds=["chat", "completion"], context_tokens=1_000_000)]

    async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Yield the constant answer."""
        wanted = msgspec.json.decode(request.body, type=_Wanted).max_tokens
        tokens = self._tokens if wanted is None else wanted
        loop = asyncio.get_running_loop()
        due = loop.time()
        for _ in range(tokens):
            if self._per_s:
                due += 1 / self._per_s
                await asyncio.sleep(max(0.0, due - loop.time()))
            yield Frame(f"{time.monotonic_ns()}" if self._stamp else self._text)
        yield Finish("stop", Usage(prompt_tokens=1, completion_tokens=tokens))

    async def close(self) -> None:
        """Nothing to free."""
