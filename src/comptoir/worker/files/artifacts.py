"""Artifacts on their way to the coordinator: tus 1.0, in parts that go on after a cut."""

import asyncio
import base64
import hashlib
import threading
import uuid
from collections.abc import AsyncIterator
from typing import BinaryIO

import msgspec

from comptoir.kinds.files import Artifact
from comptoir.kit.file_names import UNFIT
from comptoir.kit.ids import parse
from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.programs import disk_error
from comptoir.worker.files.calls import SILENCE_S, UNKNOWN, LeaseCalls, Trying, Unreached

READ_BYTES = 1024 * 1024
"""What is read, hashed and sent at a time."""
SENT_BYTES = 64 * 1024
"""What a coordinator has to take within `SILENCE_S`; one that stands still closes no connection by itself."""
PATCH_BYTES = 64 * 1024 * 1024
"""Most bytes of one request."""
UPLOADS_MAX = 3
"""How often an artifact is begun that the coordinator does not know any more."""

TUS = {"Tus-Resumable": "1.0.0"}
_PIECE = {**TUS, "Content-Type": "application/offset+octet-stream"}


class _Source:
    """What is uploaded, from its position to its end; hashed as far as it was read."""

    def __init__(self, content: BinaryIO) -> None:
        self._content = content
        self._start = content.tell()
        self.size = content.seek(0, 2) - self._start
        self._hash = hashlib.sha256()
        self.hashed = 0
        """Bytes that were read so far."""
        self.failed: EngineError | None = None
        """Why it can't be read."""
        self._turn = threading.Lock()
        """The last read of a request that was cut may still be under way, in its thread, when the next one begins."""

    @property
    def sha256(self) -> str:
        """Of all of it, once it was read."""
        assert self.hashed == self.size
        return self._hash.hexdigest()

    def read(self, at: int, size: int) -> bytes:
        """Return *size* bytes from *at*, which is no further than it was read before.

        Raises:
            EngineError: they can't be read; `failed` says so too.
        """
        with self._turn:
            return self._read(at, size)

    def _read(self, at: int, size: int) -> bytes:
        assert at <= self.hashed
        try:
            self._content.seek(self._start + at)
            block = self._content.read(size)
        except OSError as error:
            self.failed = disk_error(error)
            raise self.failed from error
        if len(block) < size:
            self.failed = EngineError("artifact_changed", "an artifact became shorter while it was delivered")
            raise self.failed
        end = at + size
        if end > self.hashed:
            self._hash.update(memoryview(block)[self.hashed - at :])
            self.hashed = end
        return block


async def deliver(calls: LeaseCalls, content: BinaryIO, *, name: str, media: str) -> Artifact:
    """Upload *content*; see `JobFiles.deliver`."""
    try:
        msgspec.convert({"name": name, "file": "", "size": 0, "sha256": "0" * 64, "media": media}, Artifact)
    except msgspec.ValidationError as error:
        raise _unfit(name) from error
    if UNFIT.search(name):
        raise _unfit(name)
    source = await asyncio.to_thread(_Source, content)
    trying = calls.trying()
    for left in reversed(range(UPLOADS_MAX)):
        file_id = await _begin(calls, trying, source, name=name, media=media)
        try:
            await _upload(calls, trying, source, file_id)
        except EngineError as error:
            if error.code != UNKNOWN or not left:
                raise
            # A coordinator that lost its last commits, or an upload that waited too long: it comes again.
            continue
        return Artifact(name, file_id, source.size, source.sha256, media)
    raise AssertionError("the last try returns or raises")


def _unfit(name: str) -> EngineError:
    return EngineError("artifact_name", f"an artifact can't be called {name!r}", fault="buyer")


async def _begin(calls: LeaseCalls, trying: Trying, source: _Source, *, name: str, media: str) -> str:
    """Begin an upload and return its file's id; where an answer was lost, it is asked for with the same key."""
    said = {"filename": name, "filetype": media} if media else {"filename": name}
    words = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in said.items())
    headers = {**TUS, "Upload-Length": str(source.size), "Upload-Metadata": words, "Idempotency-Key": uuid.uuid4().hex}
    while True:
        try:
            async with calls.request("POST", "/artifacts", headers=headers) as response:
                file_id = response.headers.get("Location", "").rpartition("/")[2]
                if parse("file", file_id) is None:
                    raise EngineError("coordinator_refused", "an upload began without a place", fault="coordinator")
                return file_id
        except Unreached as reason:
            await trying.again(reason)


async def _upload(calls: LeaseCalls, trying: Trying, source: _Source, file_id: str) -> None:
    """Send all of *source*, from wherever the coordinator has it."""
    at, sure = 0, True
    while at < source.size or not sure:
        try:
            if sure:
                at = await _send(calls, source, file_id, at)
                trying.progressed()
            else:
                there = await _offset(calls, file_id, most=source.hashed)
                if there > at:
                    trying.progressed()
                at, sure = there, True
        except Unreached as reason:
            if source.failed is not None:
                raise source.failed from None
            sure = False
            await trying.again(reason)


async def _offset(calls: LeaseCalls, file_id: str, *, most: int) -> int:
    async with calls.request("HEAD", f"/artifacts/{file_id}", headers=TUS) as response:
        text = response.headers.get("Upload-Offset", "")
        if not text.isascii() or not text.isdigit() or int(text) > most:
            raise EngineError("coordinator_refused", f"an upload is said to be at {text!r}", fault="coordinator")
        return int(text)


async def _send(calls: LeaseCalls, source: _Source, file_id: str, at: int) -> int:
    """Send one request's worth from *at*; return where the upload is then."""
    end = min(source.size, at + PATCH_BYTES)
    loop = asyncio.get_running_loop()

    async def pieces() -> AsyncIterator[memoryview]:
        for start in range(at, end, READ_BYTES):
            block = memoryview(await asyncio.to_thread(source.read, start, min(READ_BYTES, end - start)))
            for first in range(0, len(block), SENT_BYTES):
                patience.reschedule(loop.time() + SILENCE_S)
                yield block[first : first + SENT_BYTES]
        patience.reschedule(loop.time() + SILENCE_S)

    headers = {**_PIECE, "Upload-Offset": str(at), "Content-Length": str(end - at)}
    try:
        async with asyncio.timeout(SILENCE_S) as patience:
            async with calls.request("PATCH", f"/artifacts/{file_id}", headers=headers, data=pieces()):
                return end
    except TimeoutError as error:
        raise Unreached(f"it took nothing for {SILENCE_S:g} s") from error
