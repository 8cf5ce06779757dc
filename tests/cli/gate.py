"""An engine whose answers wait in the middle until the test lets them go on: nothing that is done meanwhile comes too
late.

``comptoir host --engine tests.cli.gate:GatedEngine,gate=FILE``. It answers with `FRAMES` numbered frames, and those
to `PROMPT` wait: what a worker asks when it measures its engine does not.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

from comptoir.link import Frame, ModelOffer, Usage
from comptoir.worker.engines.base import EngineRequest, Finish

MODEL = "gated"
PROMPT = "wait at the gate"
FRAMES = 40
OPEN = 20
"""Frames that come before the gate."""

LOOK_S = 0.02


class Gate:
    """A file: answers go on once it is there."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "gate"

    @property
    def engine(self) -> str:
        """The engine that waits for it, as the command line names it."""
        return f"tests.cli.gate:GatedEngine,gate={self.path}"

    def open(self) -> None:
        """Let all answers go on, and later ones too."""
        self.path.touch()


def told(text: str) -> list[int]:
    """Return the numbers of the frames in *text*, in their order."""
    return [int(number) for number in re.findall(r"\bframe-(\d+)", text)]


class GatedEngine:
    """Answers with numbered frames, of which some wait."""

    name = "gated"

    def __init__(self, *, gate: str) -> None:
        self._gate = Path(gate)

    async def start(self) -> None:
        """Nothing to load."""

    async def models(self) -> list[ModelOffer]:
        """Return the one model."""
        return [ModelOffer(name=MODEL, kinds=["chat"], context_tokens=100_000, can_continue=True)]

    async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Yield the frames after the prefix."""
        first, waits = len(request.prefix), PROMPT.encode() in request.body
        for number in range(first, FRAMES):
            while waits and number >= OPEN and not self._gate.exists():
                await asyncio.sleep(LOOK_S)
            yield Frame(f"frame-{number} ")
        yield Finish("stop", Usage(1, FRAMES - first))

    async def close(self) -> None:
        """Nothing to free."""
