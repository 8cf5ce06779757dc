"""The files of a job on a folder alone, for engines without a coordinator."""

import hashlib
from pathlib import Path
from typing import BinaryIO

from comptoir.kinds.files import Artifact, Fetched
from comptoir.worker.engines.base import EngineError


class LocalFiles:
    """`JobFiles` whose inputs are given, and that keeps what is delivered in `delivered`.

    An input that is an `EngineError` is raised; *fetched* numbers count as addresses.
    """

    def __init__(
        self, folder: Path, inputs: list[bytes | EngineError], *, fetched: frozenset[int] = frozenset()
    ) -> None:
        self.folder = folder
        self.inputs = inputs
        self.delivered: list[tuple[Artifact, bytes]] = []
        self.refusal: EngineError | None = None
        """Raised by the next `deliver`."""
        self._fetched = fetched

    async def fetch(self, number: int) -> tuple[Path, Fetched | None]:
        content = self.inputs[number]
        if isinstance(content, EngineError):
            raise content
        path = self.folder / f"in-{number}"
        path.write_bytes(content)
        path.chmod(0o644)
        if number not in self._fetched:
            return path, None
        return path, Fetched(number, len(content), hashlib.sha256(content).hexdigest())

    async def deliver(self, content: BinaryIO, *, name: str, media: str = "") -> Artifact:
        if self.refusal is not None:
            raise self.refusal
        data = content.read()
        artifact = Artifact(name, f"file_{len(self.delivered)}", len(data), hashlib.sha256(data).hexdigest(), media)
        self.delivered.append((artifact, data))
        return artifact
