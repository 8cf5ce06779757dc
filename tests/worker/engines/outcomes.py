"""What becomes of one order at an engine of a kind with files."""

from pathlib import Path
from typing import TypeVar

import msgspec

from comptoir.kinds.files import Artifact, extra_of
from comptoir.link import Frame
from comptoir.worker.engines.base import Engine, EngineError, EngineRequest, Finish
from tests.worker.local_files import LocalFiles

S = TypeVar("S")


class Outcome(msgspec.Struct):
    """Filled by `carry_out`: an engine ends with a finish or an error."""

    request: EngineRequest
    frames: list[Frame] = []
    finish: Finish | None = None
    error: EngineError | None = None
    delivered: list[tuple[Artifact, bytes]] = []

    def result_as(self, shape: type[S]) -> S:
        """Return the result in the last frame."""
        assert self.finish is not None, self.error
        result = extra_of(self.frames[-1]).result
        assert isinstance(result, msgspec.Raw)
        return msgspec.json.decode(result, type=shape)


Filled = TypeVar("Filled", bound=Outcome)


async def carry_out(engine: Engine, outcome: Filled) -> Filled:
    """Follow the order of *outcome* to its end, and fill it."""
    files = outcome.request.files
    assert isinstance(files, LocalFiles)
    try:
        async for item in engine.run(outcome.request):
            if isinstance(item, Finish):
                outcome.finish = item
            else:
                outcome.frames.append(item)
    except EngineError as error:
        outcome.error = error
    outcome.delivered = files.delivered
    return outcome


def runs_left(folder: Path) -> list[str]:
    """Return what is left of sandbox runs below the folder of an engine."""
    return [each.name for each in folder.glob("worker_*/[0-9]*")]
