"""Password hashes: argon2id in a small thread pool, so that hashing never blocks the event loop.

The defaults, 19 MiB and two passes, are OWASP's first choice for argon2id. Two at once bound the memory to 38 MiB and
leave cores to the loop; argon2 releases the interpreter's lock while it works.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import argon2

from comptoir.kit.errors import TooManyRequests

T = TypeVar("T")

HASHES_WAITING_MAX = 64
"""Hashes that may wait for a thread; at 15 to 40 ms each, the last waits about a second. More are refused."""

SALT_BYTES = 16
HASH_BYTES = 32


class Passwords:
    """Hashes and checks passwords, at most *threads_max* at once."""

    def __init__(self, *, memory_kib: int = 19_456, passes: int = 2, threads_max: int = 2) -> None:
        self._hasher = argon2.PasswordHasher(
            time_cost=passes,
            memory_cost=memory_kib,
            parallelism=1,
            hash_len=HASH_BYTES,
            salt_len=SALT_BYTES,
            type=argon2.Type.ID,
        )
        self._pool = ThreadPoolExecutor(threads_max, thread_name_prefix="comptoir-password")
        self._waiting_max = HASHES_WAITING_MAX + threads_max
        self._waiting = 0
        self._nobody: str | None = None

    async def hash(self, password: str) -> str:
        """Return the hash of *password* in PHC form.

        Raises:
            TooManyRequests: too many hashes wait.
        """
        return await self._run(self._hasher.hash, password)

    async def matches(self, stored: str | None, password: str) -> bool:
        """Tell whether *password* is the one that was hashed.

        Without a *stored* hash a dummy one is checked, so that the answer for an unknown user takes as long.

        Raises:
            TooManyRequests: too many hashes wait.
        """
        if stored is None:
            if self._nobody is None:
                self._nobody = await self.hash("nobody's password")
            await self._run(self._verify, self._nobody, password)
            return False
        return await self._run(self._verify, stored, password)

    def close(self) -> None:
        """Stop the threads; hashes in progress finish first."""
        self._pool.shutdown()

    async def _run(self, work: Callable[..., T], *args: str) -> T:
        if self._waiting >= self._waiting_max:
            raise TooManyRequests("too many passwords are being checked", retry_after_s=1.0)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *args))
        finally:
            self._waiting -= 1

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except argon2.exceptions.VerifyMismatchError:
            return False
