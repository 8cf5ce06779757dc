"""The two stores of objects, both through obstore, which needs the extra ``comptoir[files]``.

Imported only when one is opened (`open_objects`).
"""

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import AsyncGenerator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from comptoir.kit.objects.types import (
    CALL_S,
    CHUNK_BYTES,
    ObjectMissing,
    ObjectStore,
    StoreAway,
    StoreFull,
    StoreUnusable,
)

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

log = logging.getLogger(__name__)

CONNECT_S = 3.0
"""How long a connection to an S3 server may take to be made."""

RETRIES_MAX = 2
"""How often a call to an S3 server is tried again, within `CALL_S`."""

ERASED_AT_ONCE = 256
"""Objects of a bucket that are erased with one request."""

FOLDER_MODE = 0o700
"""Of the folder of all objects: what strangers uploaded is for its owner's eyes."""

NO_ROOM = ("os error 27)", "os error 28)", "os error 122)")
"""How obstore ends the words for EFBIG, ENOSPC and EDQUOT."""


@contextlib.contextmanager
def _said(doing: str) -> Iterator[None]:
    """Turn what obstore raises into our errors, in one line and without what a server said at length."""
    try:
        yield
    except FileNotFoundError as error:
        log.warning("an object is missing: %s", _first_line(error))
        raise ObjectMissing(doing) from error
    except (TimeoutError, BaseError, OSError, ValueError) as error:
        words = _first_line(error) or f"no answer for {CALL_S:g} s"
        log.warning("the store of files could not %s: %s", doing, words)
        if any(end in words for end in NO_ROOM):
            raise StoreFull from error
        raise StoreAway(doing, words) from error


def _first_line(error: Exception) -> str:
    """Return what obstore says before it shows its internals."""
    return str(error).partition("\n")[0]


class _Objects:
    """What a folder and a bucket do the same way."""

    def __init__(self, store: LocalStore | S3Store) -> None:
        self._store = store

    async def read(self, path: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """As `ObjectStore.read`."""
        left = end - start
        with _said("read a file's bytes"):
            async with asyncio.timeout(CALL_S):
                found = await obstore.get_async(self._store, path, options={"range": (start, end)})
            chunks = aiter(found.stream(min_chunk_size=CHUNK_BYTES))
            while left > 0:
                async with asyncio.timeout(CALL_S):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    raise StoreAway("read a file's bytes", f"{left} bytes of an object are not there")
                left -= len(chunk)
                yield bytes(chunk)

    async def _write(self, path: str, data: bytes | bytearray) -> None:
        async with asyncio.timeout(CALL_S):
            await obstore.put_async(self._store, path, data, use_multipart=False)


class Folder(_Objects):
    """Objects as files: ``folder/place/name``."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnusable(str(folder), error.strerror or str(error)) from error
        super().__init__(LocalStore(folder))
        self._folder = folder

    async def put(self, path: str, data: bytes | bytearray) -> None:
        """As `ObjectStore.put`: written beside, synced, and named."""
        with _said("write a file's bytes"):
            await self._write(path, data)
            await asyncio.to_thread(self._sync, path)

    def _sync(self, path: str) -> None:
        """Have the file, its name and its folder's name outlive a crash of the machine."""
        file = self._folder / path
        for one in (file, file.parent, self._folder):
            opened = os.open(one, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)

    async def erase(self, place: str) -> None:
        """As `ObjectStore.erase`: what a killed process began to write is beside the objects, and goes with them."""
        with _said("erase a file's bytes"):
            await asyncio.to_thread(self._remove, place)

    def _remove(self, place: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._folder / place)

    async def erase_one(self, path: str) -> None:
        """As `ObjectStore.erase_one`."""
        with _said("erase a file's bytes"):
            await asyncio.to_thread((self._folder / path).unlink, missing_ok=True)


class Bucket(_Objects):
    """Objects of an S3 bucket, or below a prefix of one."""

    def __init__(self, url: str) -> None:
        client: ClientConfig = {
            "allow_http": True,
            "timeout": timedelta(seconds=CALL_S),
            "connect_timeout": timedelta(seconds=CONNECT_S),
        }
        retry: RetryConfig = {"max_retries": RETRIES_MAX, "retry_timeout": timedelta(seconds=CALL_S)}
        try:
            super().__init__(S3Store.from_url(url, client_options=client, retry_config=retry))
        except (BaseError, ValueError) as error:
            raise StoreUnusable(url, _first_line(error)) from error

    async def put(self, path: str, data: bytes | bytearray) -> None:
        """As `ObjectStore.put`."""
        with _said("write a file's bytes"):
            await self._write(path, data)

    async def erase(self, place: str) -> None:
        """As `ObjectStore.erase`."""
        with _said("erase a file's bytes"):
            chunks = aiter(obstore.list(self._store, prefix=place + "/", chunk_size=ERASED_AT_ONCE))
            while True:
                async with asyncio.timeout(CALL_S):
                    found = await anext(chunks, None)
                    if found is None:
                        return
                    await obstore.delete_async(self._store, [one["path"] for one in found])

    async def erase_one(self, path: str) -> None:
        """As `ObjectStore.erase_one`; S3 says nothing of one that is not there."""
        with _said("erase a file's bytes"):
            async with asyncio.timeout(CALL_S):
                await obstore.delete_async(self._store, path)


def open_store(address: str) -> ObjectStore:
    """As `open_objects`."""
    return Bucket(address) if address.startswith("s3://") else Folder(Path(address))
