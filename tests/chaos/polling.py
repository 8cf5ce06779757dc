"""What hosts that poll have in common, whatever they speak and however they behave."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from tests.chaos.wire import GONE, Asking, Choose

SILENCE_S = 25.0


class PollingHost:
    """A host that asks for work, over and over; killed, it just stops."""

    def __init__(self, name: str, choose: Choose, *, seed: int) -> None:
        self.name = name
        self.key = ""
        self.host_id = ""
        self._choose = choose
        self._dice = random.Random(f"{name}-{seed}")
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    def _connect(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=SILENCE_S)
        self._session = aiohttp.ClientSession(timeout=timeout)

    async def _register(self, path: str, body: dict[str, Any]) -> None:
        key = f"register-{self.name}-0123456789"
        _, made = await self._asking().until("POST", path, good=(201,), body=body, idempotency_key=key)
        self.key, self.host_id = str(made["api_key"]), str(made["host_id"])

    async def stop(self) -> None:
        """Stop where it stands; its connections break."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._session is not None:
            await self._session.close()

    def _asking(self) -> Asking:
        assert self._session is not None
        return Asking(self._session, self._choose, key=self.key, dice=self._dice)

    async def _poll(self, path: str, body: dict[str, Any], work: Callable[[Any], Awaitable[None]]) -> None:
        """Ask at *path* for ever, and do the *work* that is given."""
        while True:
            with contextlib.suppress(*GONE):
                async with self._asking().open("POST", path, body=body) as answer:
                    if answer.status == 200:
                        await work(await answer.json())
                        continue
                    if answer.status == 204:
                        continue
            await asyncio.sleep(0.1)
