"""The service of the room of files: begin, fill and complete uploads, read files, and erase what nothing needs."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from weakref import WeakValueDictionary

from comptoir.blobs import links, store
from comptoir.blobs.errors import BlobRefusal, ChecksumMismatch, FileTooLarge, OffsetMismatch, UnknownFile
from comptoir.blobs.names import check_media, check_name
from comptoir.blobs.store import PartRow
from comptoir.blobs.tables import FILES
from comptoir.blobs.types import KEEPER_CHARS_MAX, PART_BYTES, Blob, FileLimits, FilesStanding, FileUsage, Kept, MadeFor
from comptoir.kit.clock import Clock
from comptoir.kit.db import Database
from comptoir.kit.errors import InvalidField
from comptoir.kit.ids import new_id
from comptoir.kit.objects import ObjectMissing, ObjectStore

log = logging.getLogger(__name__)

EMPTY_SHA256 = hashlib.sha256().digest()

LIST_MAX = 200
"""Most files of one page."""

COLLECTED_MAX = 200
"""Most expired files that are collected, and places that are erased, in one sweep."""

SURE_MS = 600_000
"""How long after it was thrown away a place is erased for the second and last time: far longer than an object that was
being written then can take (`objects.CALL_S`)."""

RUNNING_MAX = 256
"""Uploads whose running hash is remembered between two requests; that of another is made anew, from what is stored."""

CHANGED_MAX = 5
"""How often a file is read again that changed while it was about to be deleted."""

KEEPERS_MAX = 500
"""Most keepers of one page."""


class Upload:
    """One request's view of an upload: where it is, and the hash so far. `Blobs.resume` makes it."""

    def __init__(self, blob: Blob, running: "hashlib._Hash | None") -> None:
        self.blob = blob
        """As it was last written."""
        self.running = running
        """SHA-256 of the first *taken* bytes; None: nobody here knows it, and with the last part all are hashed."""
        self.taken = blob.stored
        """As many as are stored, unless storing some has failed: then nothing more can be appended here."""


class Blobs:
    """Files of one trading post."""

    def __init__(self, db: Database, clock: Clock, *, objects: ObjectStore, limits: FileLimits, secret: bytes) -> None:
        """Serve what is in *db* and *objects*.

        Args:
            secret: 32 bytes that all coordinators share, for signed URLs.
        """
        self._db = db
        self._clock = clock
        self._objects = objects
        self._secret = secret
        self._hashing: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        """Uploads that are being hashed as a whole."""
        self._running: dict[bytes, tuple[int, hashlib._Hash]] = {}
        self.limits = limits

    # -- uploads -------------------------------------------------------------------------------------------------

    async def begin(
        self,
        *,
        owner_id: bytes,
        name: str,
        media: str = "",
        size: int | None = None,
        expected: bytes | None = None,
        file_id: bytes | None = None,
        making: MadeFor | None = None,
    ) -> Blob:
        """Begin an upload; its bytes count from now on. One of 0 bytes is a complete file at once.

        Idempotent by *file_id*: one that is there is returned as it is.

        Args:
            size: bytes to come; None: not known, and counted as they come.
            expected: SHA-256 of the whole, 32 bytes; None: not known.
            making: for whom it is made; kept until `release`, and deleted then unless it is wanted.

        Raises:
            InvalidField: name or media type is none.
            FileTooLarge: *size* is above ``file_bytes_max``.
            QuotaReached, FilesFull, MadeTooMuch: there is no room; nothing is written.
            ChecksumMismatch: 0 bytes are not what was expected.
        """
        check_name(name)
        check_media(media)
        if size is not None and size > self.limits.file_bytes_max:
            raise FileTooLarge(self.limits.file_bytes_max)
        now_ms = self._clock.now_ms()
        empty = size == 0
        if empty and expected not in (None, EMPTY_SHA256):
            assert expected is not None
            raise ChecksumMismatch(expected=expected, found=EMPTY_SHA256)
        lasts_ms = self.limits.kept_ms if empty else self.limits.upload_ms
        blob = Blob(
            id=file_id or new_id(), owner_id=owner_id, place=new_id(), name=name, media=media, size=size, stored=0,
            parts=0, sha256=EMPTY_SHA256 if empty else None, expected=expected, created_ms=now_ms,
            expires_ms=now_ms + lasts_ms if lasts_ms else None,
        )  # fmt: skip
        assert making is None or max(len(making.keeper), len(making.maker)) <= KEEPER_CHARS_MAX
        inserting = partial(store.insert, blob=blob, limits=self.limits, making=making)
        return await self._db.run(inserting, locks=store.locks_of(blob))

    def resume(self, blob: Blob) -> Upload:
        """Go on with an upload behind its last stored byte."""
        remembered = self._running.pop(blob.id, None)
        if remembered is not None and remembered[0] == blob.stored:
            return Upload(blob, remembered[1])
        return Upload(blob, None if blob.stored else hashlib.sha256())

    async def append(self, upload: Upload, data: bytes | bytearray, *, last: bool = False) -> None:
        """Store *data* behind what is there: 0 to `PART_BYTES`. Durable when it returns; *last* completes the file.

        Two requests may have one upload at hand: of two that append at the same place, one is refused, and its bytes
        are erased. With the last part of one whose hash is not known here, all that is stored is read and hashed, once:
        about a second a gigabyte, off the event loop.

        Args:
            last: nothing follows. Of an upload with a size, the last byte completes it by itself.

        Raises:
            UnknownFile: it was deleted, or given up.
            OffsetMismatch: another request has brought more of it meanwhile.
            FileTooLarge, TooManyParts, QuotaReached, FilesFull: with *data* it is beyond a limit.
            ChecksumMismatch: it is complete and not what was expected; the upload is given up.
            StoreFull, StoreAway: what was stored before stays, and the upload can go on later.
        """
        blob = upload.blob
        assert len(data) <= PART_BYTES and upload.taken == blob.stored
        upload.taken += len(data)
        last = last or upload.taken == blob.size
        part, path = None, ""
        if data:
            part = PartRow(blob.stored, len(data), new_id())
            path = _path(blob.place, part.object_id)
            writing = asyncio.create_task(self._objects.put(path, data))
            try:
                if upload.running is not None:
                    await asyncio.to_thread(upload.running.update, data)
            finally:
                await writing
        try:
            if last and upload.running is None:
                # One at a time: whoever comes second finds it complete, and does not hash it all again.
                lock = self._hashing.setdefault(blob.id, asyncio.Lock())
                async with lock:
                    upload.running = await self._hash(blob, data)
                    await self._count(upload, part, last=True)
            else:
                await self._count(upload, part, last=last)
        except BlobRefusal as refusal:
            if isinstance(refusal, ChecksumMismatch):
                await self._remove(blob)
            elif path:  # After any other error it may have been counted.
                await self._objects.erase_one(path)
            raise

    async def _hash(self, blob: Blob, data: bytes | bytearray) -> "hashlib._Hash":
        """Hash what is stored of an upload, and *data*, which completes it.

        Raises:
            OffsetMismatch: it has gone on meanwhile.
        """
        now = await self.find(blob.id)
        if now.complete or now.stored != blob.stored:
            raise OffsetMismatch(now.stored)
        running = hashlib.sha256()
        try:
            async for chunk in self.read(blob, 0, blob.stored):
                await asyncio.to_thread(running.update, chunk)
        except ObjectMissing:
            now = await self.find(blob.id)
            if now.complete:  # Its bytes were there before, so it refers to those now.
                raise OffsetMismatch(now.stored) from None
            raise
        await asyncio.to_thread(running.update, data)
        return running

    async def _count(self, upload: Upload, part: PartRow | None, *, last: bool) -> None:
        """Write that a part is stored, and with the *last* that the file is complete."""
        digest = upload.running.digest() if last and upload.running is not None else None
        new = store.NewPart(blob=upload.blob, part=part, sha256=digest, now_ms=self._clock.now_ms())
        adding = partial(store.add_part, new=new, limits=self.limits)
        upload.blob = await self._db.run(adding, locks=store.locks_of(upload.blob, digest))

    def pause(self, upload: Upload) -> None:
        """Remember where an upload is, for the request that goes on with it. Nothing of it is being appended."""
        if upload.running is not None and not upload.blob.complete and upload.taken == upload.blob.stored:
            self._running[upload.blob.id] = (upload.blob.stored, upload.running)
            if len(self._running) > RUNNING_MAX:
                del self._running[next(iter(self._running))]

    # -- files ---------------------------------------------------------------------------------------------------

    async def find(self, file_id: bytes, *, owner_id: bytes | None = None) -> Blob:
        """Return a file or an upload.

        Args:
            owner_id: whose it has to be; None: anybody's.

        Raises:
            UnknownFile: there is none, it has expired, or it is another's.
        """
        blob = await store.find(self._db, file_id, self._clock.now_ms())
        if blob is None or (owner_id is not None and blob.owner_id != owner_id):
            raise UnknownFile
        return blob

    async def find_all(self, file_ids: Sequence[bytes], *, owner_id: bytes) -> dict[bytes, Blob]:
        """Return those of *file_ids* (at most 1,000) that are complete files of *owner_id* and have not expired."""
        found = await store.find_all(self._db, file_ids, self._clock.now_ms(), of=owner_id)
        return {blob.id: blob for blob in found if blob.owner_id == owner_id and blob.complete}

    async def page(self, owner_id: bytes, *, limit: int, before: bytes | None = None) -> list[Blob]:
        """Return complete files of an owner, newest first: at most *limit* (1 to `LIST_MAX`), those before *before*."""
        limit = max(1, min(limit, LIST_MAX))
        return await store.page(self._db, owner_id, self._clock.now_ms(), limit=limit, before=before)

    async def usage(self, owner_id: bytes) -> FileUsage:
        """Return what an owner's files and uploads count."""
        return await store.usage(self._db, owner_id)

    async def standing(self) -> FilesStanding:
        """Return what all owners have together, uploads counted one by one: no read for a request."""
        return await store.standing(self._db)

    async def read(self, blob: Blob, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from *start* up to *end* (exclusive, at most ``blob.stored``), some 256 KiB at a time.

        Raises:
            StoreAway: they can't be read now, or were erased meanwhile.
        """
        at = start
        while at < end:
            found = await store.parts(self._db, blob.place, at, end)
            if not found or found[0].start > at:
                raise ObjectMissing("read a file's bytes")
            for part in found:
                upto = min(part.start + part.size, end)
                path = _path(blob.place, part.object_id)
                async with aclosing(self._objects.read(path, at - part.start, upto - part.start)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                at = upto

    async def delete(self, file_id: bytes, *, owner_id: bytes) -> None:
        """Delete a file or an upload of *owner_id*. Its bytes are erased when no other file has the same, and nothing
        keeps it; until then it counts.

        Raises:
            UnknownFile: as for `find`.
        """
        await self._remove(await self.find(file_id, owner_id=owner_id))

    async def _remove(self, blob: Blob) -> None:
        self._running.pop(blob.id, None)
        found: Blob | None = blob
        for _ in range(CHANGED_MAX):
            if found is None:
                return
            removing = partial(store.remove, blob=found, now_ms=self._clock.now_ms())
            if await self._db.run(removing, locks=store.locks_of(found)):
                return
            found = await store.find(self._db, blob.id, self._clock.now_ms())
        raise AssertionError("a file changes once: when its upload is complete")

    # -- what needs a file ---------------------------------------------------------------------------------------

    async def keep(self, file_id: bytes, *, owner_id: bytes, keeper: str) -> Blob:
        """Have a file's bytes stay until `release`, also when its owner deletes it or it expires; return it.

        Idempotent by file and keeper.

        Args:
            keeper: what needs it, such as ``job_…``: 1 to `KEEPER_CHARS_MAX` characters.

        Raises:
            UnknownFile: there is no such complete file of *owner_id*.
        """
        assert 1 <= len(keeper) <= KEEPER_CHARS_MAX
        blob = await self.find(file_id, owner_id=owner_id)
        keeping = partial(store.keep, blob=blob, keeper=keeper, now_ms=self._clock.now_ms())
        await self._db.run(keeping, locks=((FILES, [blob.id]),))
        return blob

    async def kept(self, file_id: bytes, keeper: str) -> Kept:
        """Return a file or an upload that *keeper* needs, also if its owner has deleted it or it has expired.

        Raises:
            UnknownFile: the keeper needs no such file.
        """
        found = await store.kept(self._db, [file_id], keeper)
        if not found:
            raise UnknownFile
        return found[0]

    async def kept_among(self, file_ids: Sequence[bytes], keeper: str) -> dict[bytes, Kept]:
        """Return those of *file_ids* that *keeper* needs, as `kept` does; looked up `KEEPERS_MAX` at a time."""
        found: list[Kept] = []
        for first in range(0, len(file_ids), KEEPERS_MAX):
            found += await store.kept(self._db, file_ids[first : first + KEEPERS_MAX], keeper)
        return {kept.blob.id: kept for kept in found}

    async def kept_by(self, keeper: str) -> list[tuple[bytes, str]]:
        """Return the files that *keeper* needs, each with its maker (`Kept.maker`)."""
        return await store.kept_by(self._db, keeper)

    async def keepers(self, *, after: str, longer_than_ms: int) -> list[str]:
        """Return the next `KEEPERS_MAX` keepers after *after*, in their order, that need something for that long."""
        before_ms = self._clock.now_ms() - longer_than_ms
        return await store.keepers(self._db, after=after, before_ms=before_ms, limit=KEEPERS_MAX)

    async def release(self, keeper: str, *, wanted: frozenset[bytes] = frozenset(), maker: str | None = None) -> None:
        """*keeper* needs no file any more. Idempotent.

        Args:
            wanted: what it made and its owner is to have; everything else that it made is gone for the owner at once,
                and collected with what has expired.
            maker: end only what this one of its makers made and is not *wanted*; the keeper goes on with the rest.
        """
        now_ms = self._clock.now_ms()
        await self._db.run(partial(store.release, keeper=keeper, wanted=wanted, maker=maker, now_ms=now_ms))

    async def give_up(self, kept: Kept, keeper: str) -> bool:
        """Delete what *keeper* was making, so that nothing of it counts any more; False: it is complete, and stays."""
        giving_up = partial(store.give_up, file_id=kept.blob.id, keeper=keeper)
        if not await self._db.run(giving_up, locks=((FILES, [kept.blob.id]),)):
            return False
        await self._remove(kept.blob)
        return True

    # -- what nothing needs --------------------------------------------------------------------------------------

    async def collect(self) -> tuple[int, int]:
        """Delete what has expired, and erase what nothing refers to; return (files, places). Bounded; call it again.

        Raises:
            Unavailable: the database, or the store, is out of reach; nothing is lost, and the next call goes on.
        """
        now_ms = self._clock.now_ms()
        expired = await store.expired(self._db, now_ms, COLLECTED_MAX)
        collecting = [
            self._db.run(partial(store.collect, blob=blob, now_ms=now_ms), locks=store.locks_of(blob))
            for blob in expired
        ]
        gone = sum(await asyncio.gather(*collecting))
        places = await store.trash(self._db, now_ms - SURE_MS, COLLECTED_MAX)
        for place, since_ms in places:
            await self._objects.erase(place.hex())
            if since_ms <= now_ms - SURE_MS:
                await self._db.run(partial(store.forget_place, place=place))
            else:
                await self._db.run(partial(store.mark_erased, place=place, now_ms=now_ms))
        return gone, len(places)

    # -- links ---------------------------------------------------------------------------------------------------

    def sign(self, blob: Blob, *, lasts_s: int) -> tuple[int, str]:
        """Return until when (milliseconds since 1970) and with which signature anybody may read a file.

        Args:
            lasts_s: seconds; 1 to `links.LINK_S_MAX`, and never longer than the file itself.

        Raises:
            InvalidField: it is out of bounds.
        """
        if not 1 <= lasts_s <= links.LINK_S_MAX:
            raise InvalidField("lasts_s", f"must be between 1 and {links.LINK_S_MAX}")
        until_ms = self._clock.now_ms() + lasts_s * 1000
        if blob.expires_ms is not None:
            until_ms = min(until_ms, blob.expires_ms)
        return until_ms, links.signature(self._secret, blob.id, until_ms)

    def check(self, file_id: bytes, *, until_ms: int, signature: str) -> None:
        """Check a signed URL.

        Raises:
            FileLinkRefused: it has expired, or was not signed here, or for another file or time.
        """
        links.check(self._secret, file_id, until_ms=until_ms, given=signature, now_ms=self._clock.now_ms())


def _path(place: bytes, object_id: bytes) -> str:
    return f"{place.hex()}/{object_id.hex()}"
