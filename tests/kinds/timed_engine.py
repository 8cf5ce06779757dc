"""An engine whose work takes as long as a test lets it, and which counts as the test says."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from comptoir.kinds.files import WorkProgress, file_frame
from comptoir.link import Frame, ModelOffer, Usage
from comptoir.worker.engines.base import EngineRequest, Finish

STEP_S = 0.01


class TimedEngine:
    """Works until the file *until* exists, and shows that it lives meanwhile."""

    name = "timed"

    def __init__(self, *, until: str = "", beyond_ms: int = 0, busy_ms: int = 0) -> None:
        """*beyond_ms* is what it counts beyond the time that passed."""
        self._until, self._beyond_ms, self._busy_ms = Path(until), beyond_ms, busy_ms

    async def start(self) -> None:
        """Nothing to load."""

    async def models(self) -> list[ModelOffer]:
        """Return the one thing offered."""
        return [ModelOffer("m", ["timed"], can_continue=True)]

    async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Yield progress, then the result with the time that it took."""
        began = time.monotonic()
        yield file_frame(progress=WorkProgress(note="begins"))
        while not self._until.exists():
            await asyncio.sleep(STEP_S)
            yield file_frame(progress=WorkProgress(count=int((time.monotonic() - began) * 1000)))
        took_ms = int((time.monotonic() - began) * 1000) + self._beyond_ms
        yield file_frame("", took_ms, result=msgspec.Raw(b"0.5"), finish_reason="stop")
        yield Finish("stop", Usage(self._busy_ms, took_ms))

    async def close(self) -> None:
        """Nothing to free."""
