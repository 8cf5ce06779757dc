"""The engine that prints in capitals: a page is delivered at once, and paid for with the last one."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from comptoir.kinds.files import file_frame
from comptoir.link import Frame, ModelOffer, Usage
from comptoir.worker.engines.base import EngineError, EngineRequest, Finish
from comptoir.worker.engines.programs import Relay, relayed
from tests.kinds.press import read

LOOK_S = 0.01


class PressEngine:
    """With a *gate* it waits after its first page until there is a file of that name: a host in the middle of it."""

    name = "press"

    def __init__(self, *, gate: str = "", model: str = "press") -> None:
        self._gate = Path(gate) if gate else None
        self._model = model

    async def start(self) -> None:
        """Nothing to load."""

    async def models(self) -> list[ModelOffer]:
        """Return the one thing offered."""
        return [ModelOffer(self._model, ["press"], can_continue=True)]

    def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Print."""
        return relayed(request, self._work)

    async def close(self) -> None:
        """Nothing to free."""

    async def _work(self, request: EngineRequest, relay: Relay) -> Finish:
        if request.files is None:
            raise EngineError("no_files", "the worker hands no files to its engines")
        asked = read(request.body)
        pages = await relay.fetch(request.files, len(asked.inputs))
        for number, path in enumerate(pages):
            await relay.log("stdout", f"page {number}\n".encode())
            page = io.BytesIO(path.read_bytes().upper())
            made = await request.files.deliver(page, name=f"{asked.title}-{number}.txt", media="text/plain")
            await relay.say(file_frame(artifact=made))
            while self._gate is not None and not self._gate.exists():
                await asyncio.sleep(LOOK_S)
        result = msgspec.Raw(msgspec.json.encode({"pages": len(pages)}))
        await relay.say(file_frame(count=len(pages), result=result))
        return Finish("stop", Usage(completion_tokens=len(pages)))
