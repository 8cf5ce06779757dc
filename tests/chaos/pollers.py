"""A host that speaks Infrintia and polls: it asks for work, posts pieces, completes. Killed, it just stops."""

import asyncio
import contextlib
import random

import aiohttp
import msgspec

from tests.chaos.engine import MODEL, PROMPT_TOKENS, UNMARKED, Wanted, text_of
from tests.chaos.wire import GONE, Asking, Choose

POLLS = 3
"""Jobs at once."""

PRICE_USD = 0.00009
PIECES_MAX = 6
SILENCE_S = 25.0

LOST = (403, 404, 409, 410, 413, 422)
"""Statuses that say: this job is no longer yours, or never was."""


class Poller:
    """One polling host over all its lives; the key is kept, what it was working on is not."""

    def __init__(self, name: str, choose: Choose, *, seed: int) -> None:
        self.name = name
        self.completed: set[str] = set()
        """Jobs that a coordinator said this host completed."""
        self.key = ""
        self.host_id = ""
        self.lives = 0
        self._choose = choose
        self._dice = random.Random(f"{name}-{seed}")
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Register at the first start, and poll."""
        self.lives += 1
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=SILENCE_S)
        self._session = aiohttp.ClientSession(timeout=timeout)
        if not self.key:
            body = {
                "gpu": self.name,
                "models": [MODEL],
                "price_per_token": PRICE_USD,
                "slots": POLLS,
                "context_tokens": 100_000,
            }
            key = f"register-{self.name}-0123456789"
            _, made = await self._asking().until("POST", "/hosts/register", good=(201,), body=body, idempotency_key=key)
            self.key, self.host_id = str(made["api_key"]), str(made["host_id"])
        self._tasks = [asyncio.create_task(self._poll(number)) for number in range(POLLS)]

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

    async def _poll(self, number: int) -> None:
        while True:
            with contextlib.suppress(*GONE):
                body = {"host_id": self.host_id, "wait_s": 2}
                async with self._asking().open("POST", "/hosts/next-job", body=body) as answer:
                    if answer.status == 200:
                        given = await answer.json()
                        await self._work(given["job_id"], given["input_text"], number)
                        continue
                    if answer.status == 204:
                        continue
            await asyncio.sleep(0.1)

    async def _work(self, job: str, prompt: str, number: int) -> None:
        wanted = msgspec.json.decode(prompt, type=Wanted)
        mark = f"{self.name}-{self.lives}-{number}" if wanted.marked else UNMARKED
        who = {"host_id": self.host_id}
        asking, at = self._asking(), 0
        while at < wanted.frames:
            if wanted.trouble and at >= wanted.at:
                if wanted.trouble != "stalls":
                    fault = {"refuses": "buyer", "busy": "capacity"}.get(wanted.trouble, "host")
                    body = {**who, "error": wanted.trouble, "fault": fault}
                    await asking.until("POST", f"/hosts/fail-job/{job}", good=(200, *LOST), body=body)
                return
            end = min(wanted.frames, at + self._dice.randint(1, PIECES_MAX))
            if wanted.per_s:
                await asyncio.sleep((end - at) / wanted.per_s)
            pieces = [text_of(wanted.tag, n, mark) for n in range(at, end)]
            body = {**who, "seq": at, "tokens": pieces}
            status, _ = await asking.until("POST", f"/hosts/jobs/{job}/chunk", good=(200, *LOST), body=body)
            if status != 200:
                return
            at = end
        usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": wanted.frames}
        status, _ = await asking.until(
            "POST", f"/hosts/complete-job/{job}", good=(200, *LOST), body={**who, "usage": usage, "seq": wanted.frames}
        )
        if status == 200:
            self.completed.add(job)
