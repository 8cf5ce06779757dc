"""One engine for many programs, and what became of each."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from comptoir.kinds.files import FileExtra, extra_of
from comptoir.kinds.python import Python
from comptoir.link import Frame
from comptoir.worker.engines.base import EngineRequest, Finish
from comptoir.worker.engines.python import PythonEngine
from tests.worker.local_files import LocalFiles


class Tried:
    """What a program's frames say."""

    def __init__(self, items: list[Frame | Finish], files: LocalFiles) -> None:
        self.frames = [each for each in items if isinstance(each, Frame)]
        (self.finish,) = [each for each in items if isinstance(each, Finish)]
        assert items[-1] is self.finish
        kind = Python()
        for frame in self.frames:
            if frame.extra:
                kind.check_extra(frame.extra)
        self.extras = [extra_of(frame) for frame in self.frames]
        self.files = {artifact.name: content for artifact, content in files.delivered}
        self.media = {artifact.name: artifact.media for artifact, _ in files.delivered}
        told = [each.artifact for each in self.extras if each.artifact is not None]
        assert told == [artifact for artifact, _ in files.delivered], "each file has its frame"

    def log(self, stream: str) -> str:
        return "".join(
            frame.text for frame, extra in zip(self.frames, self.extras, strict=True) if extra.stream == stream
        )

    @property
    def out(self) -> str:
        return self.log("stdout")

    @property
    def err(self) -> str:
        return self.log("stderr")

    @property
    def last(self) -> FileExtra:
        return self.extras[-1]

    @property
    def result(self) -> Any:
        assert self.last.result is not msgspec.UNSET, (self.last, self.err)
        return json.loads(bytes(self.last.result))

    @property
    def reason(self) -> str:
        """How it ended; the frame and the end say the same."""
        assert self.last.finish_reason == self.finish.finish_reason
        failed = self.last.failed
        assert (failed.reason if failed is not None else "stop") == self.finish.finish_reason
        return self.finish.finish_reason

    @property
    def message(self) -> str:
        return self.last.failed.message if self.last.failed is not None else ""

    @property
    def progress(self) -> list[tuple[float | None, str]]:
        return [(each.progress.done, each.progress.note) for each in self.extras if each.progress is not None]


def request_for(order: Mapping[str, Any], files: LocalFiles, **fields: Any) -> EngineRequest:
    return EngineRequest("python", "python", json.dumps(order).encode(), files=files, **fields)


@contextlib.contextmanager
def job_folder(folder: Path) -> Any:
    """Give the folder that a worker makes for a job."""
    made = Path(tempfile.mkdtemp(dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made)


async def attempt(engine: PythonEngine, folder: Path, order: Mapping[str, Any], *inputs: bytes, **fields: Any) -> Tried:
    """Run one order to its end; its inputs are named by it, or ``a``, ``b`` …"""
    with job_folder(folder) as made:
        files = LocalFiles(made, list(inputs))
        named = [{"name": "abcdefgh"[at], "file": f"file_{at}"} for at in range(len(inputs))]
        body = ({"inputs": named} if inputs else {}) | dict(order)
        items = [each async for each in engine.run(request_for(body, files, **fields))]
        return Tried(items, files)


@contextlib.asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[PythonEngine]:
    """Give an engine that has started."""
    options = {"slots": 2, "memory_mib": 1024, "cores": 1, "disk_mib": 4096} | options
    engine = PythonEngine(folder=folder / "runs", **options)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()
