"""A request's body on its way into a file: received a part at a time, while the part before is written.

Memory is counted in `HttpTraffic.uploads`: at most two parts an upload, and what finds no room waits for others to be
written.
"""

import asyncio
import contextlib
from typing import Protocol

from comptoir.blobs import PART_BYTES, Blob, Blobs, Upload
from comptoir.dispatch import Core
from comptoir.dispatch.files import Files
from comptoir.gateway.traffic import Connections
from comptoir.kit.errors import Refusal
from comptoir.kit.http import ByteBudget, Request
from comptoir.kit.ratelimit import address_key

PART_S = 5.0
"""How long a part is collected before it is written however small it is: a slow client has little in memory, and loses
little where its connection breaks."""

ROOM_S = 20.0
"""How long an upload waits for room in memory; then 503, and it can go on later."""


class Source(Protocol):
    """What brings the bytes: the body itself, or a file in a form."""

    async def read(self, *, within_s: float | None = None) -> bytes:
        """Return some more, empty at the end.

        Raises:
            TimeoutError: nothing came for *within_s* seconds.
            Refusal: it broke off, is too large, or is not what it should be.
        """
        ...


async def fill(core: Core, request: Request, source: Source, *, blobs: Blobs, blob: Blob, whole: bool) -> Blob:
    """Bring what *source* has into an upload; return it as it is then: the file, if that was all of it.

    Args:
        whole: the end of *source* is the end of the file, and what breaks off is given up. Otherwise what came stays,
            and another request goes on with it.

    Raises:
        What *source* raises, and what `Blobs.append` raises.
        Unavailable: there was no room in memory for `ROOM_S`.
    """
    filling = _Filling(blobs, blobs.resume(blob), core.state(Connections).traffic.uploads, request)
    before = blob.stored
    try:
        await filling.take(source)
        await filling.end(last=whole)
    except Refusal as cut:
        if whole:
            await filling.stop()
            with contextlib.suppress(Refusal):  # It is gone already, or will be given up when its time has passed.
                await blobs.delete(blob.id, owner_id=blob.owner_id)
            raise
        await filling.save(cut)
        raise
    finally:
        await filling.stop()
        blobs.pause(filling.upload)
        core.state(Files).count_in(filling.upload.blob.stored - before)
    return filling.upload.blob


class _Filling:
    """One request's upload, with the part that is collected and the one that is written."""

    def __init__(self, blobs: Blobs, upload: Upload, budget: ByteBudget, request: Request) -> None:
        self._blobs = blobs
        self.upload = upload
        self._budget = budget
        self._key = address_key(request.address)
        self._part = bytearray()
        self._counted = 0
        self._begun_s = 0.0
        """When the first bytes of the collected part came."""
        self._writing: asyncio.Task[None] | None = None

    async def take(self, source: Source) -> None:
        """Receive all that *source* has; the last part is still in memory, and the one before may be."""
        loop = asyncio.get_running_loop()
        while True:
            left_s = max(0.0, self._begun_s + PART_S - loop.time()) if self._part else None
            try:
                piece = await source.read(within_s=left_s)
            except TimeoutError:
                await self._write(last=False)
                continue
            if not piece:
                return
            await self._add(piece, loop.time())

    async def _add(self, piece: bytes, now_s: float) -> None:
        while piece:
            if not self._part:
                self._begun_s = now_s
            room = PART_BYTES - len(self._part)
            some, piece = piece[:room], piece[room:]
            if not self._budget.take(self._key, len(some)):
                if self._part:
                    await self._write(last=False)
                await self.written()
                await self._budget.reserve(self._key, len(some), timeout_s=ROOM_S)
            self._part += some
            self._counted += len(some)
            if len(self._part) == PART_BYTES:
                await self._write(last=False)

    async def _write(self, *, last: bool) -> None:
        """Begin to write the part that was collected, when the one before is written."""
        await self.written()
        part, counted = self._part, self._counted
        self._part, self._counted = bytearray(), 0
        self._writing = asyncio.create_task(self._append(part, counted, last))

    async def _append(self, part: bytearray, counted: int, last: bool) -> None:
        try:
            await self._blobs.append(self.upload, part, last=last)
        finally:
            if counted:
                self._budget.give(self._key, counted)

    async def written(self) -> None:
        """Wait until nothing is being written.

        Raises:
            What `Blobs.append` raises.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    async def end(self, *, last: bool) -> None:
        """Write what is left."""
        await self.written()
        if (self._part or last) and not self.upload.blob.complete:
            await self._write(last=last)
            await self.written()

    async def save(self, cut: Refusal) -> None:
        """Write what came before *cut*, unless writing is what was refused."""
        try:
            await self.written()
            if self.upload.taken == self.upload.blob.stored:
                await self.end(last=False)
        except Refusal:
            raise cut from None

    async def stop(self) -> None:
        """Wait for what is being written, whatever becomes of it, and give all room back."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await asyncio.wait((writing,))
            if not writing.cancelled():
                writing.exception()  # Was raised before, or is less than what was.
        if self._counted:
            self._budget.give(self._key, self._counted)
            self._part, self._counted = bytearray(), 0
