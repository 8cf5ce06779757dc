"""What a store of objects does, and what can go wrong; apart from `stores`, which needs an extra."""

from collections.abc import AsyncGenerator
from typing import Protocol

from comptoir.kit.errors import Refusal, Unavailable

AGAIN_AFTER_S = 5.0
"""When somebody may come back who found the store out of reach."""

CALL_S = 30.0
"""How long one call of the store may take before it counts as out of reach: 4 MiB at 140 KiB a second."""

CHUNK_BYTES = 256 << 10
"""About how much of an object is read at a time."""


class StoreFull(Refusal):
    """The place where files are kept has no room left; what was stored before is safe."""

    def __init__(self) -> None:
        super().__init__("the trading post has no room for more files; what was stored before is safe, try again later")


class StoreAway(Unavailable):
    """The place where files are kept can't be reached, or does not do as it should; nothing is lost."""

    def __init__(self, doing: str, words: str) -> None:
        super().__init__(f"the trading post can't {doing} now; nothing is lost, try again", retry_after_s=AGAIN_AFTER_S)
        self.words = words
        """What the store said: for the log, as it may name folders and servers."""


class ObjectMissing(StoreAway):
    """An object is not where it was written: with several coordinators, each may have a folder of its own."""

    def __init__(self, doing: str) -> None:
        super().__init__(doing, "an object is missing; do all coordinators share the store (files_store)?")


class StoreUnusable(Exception):
    """The address of a store can't be understood, or the folder can't be made; said when it is opened."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"{address}: {reason}")
        self.address = address
        self.reason = reason


class FilesExtraMissing(Refusal):
    """Files need the extra ``comptoir[files]``, which is not installed at the trading post; *package* is missing."""

    def __init__(self, package: str) -> None:
        super().__init__(f"this trading post keeps no files: it needs the package {package} (comptoir[files])")
        self.package = package


class ObjectStore(Protocol):
    """Where objects are. A path has one slash: ``place/name``; an object is written once and never changed."""

    async def put(self, path: str, data: bytes | bytearray) -> None:
        """Write an object; it outlives a crash when this returns.

        Raises:
            StoreFull: there is no room; nothing of it is left.
            StoreAway: the store can't be reached, or does not do as it should.
        """
        ...

    def read(self, path: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from *start* up to *end* (exclusive, within the object), about `CHUNK_BYTES` at a time.

        Raises:
            ObjectMissing: it is not there.
            StoreAway: as for `put`, or the object is shorter than it was.
        """
        ...

    async def erase(self, place: str) -> None:
        """Erase all objects of a place, also half-written ones; nothing happens where there are none.

        Raises:
            StoreAway: as for `put`; some may be left.
        """
        ...

    async def erase_one(self, path: str) -> None:
        """Erase one object; nothing happens where there is none.

        Raises:
            StoreAway: as for `put`.
        """
        ...
