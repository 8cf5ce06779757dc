"""A host that speaks Infrintia and polls: it asks for work, posts pieces, completes. Killed, it just stops."""

import asyncio

import msgspec

from tests.chaos.engine import MODEL, PROMPT_TOKENS, UNMARKED, Wanted, text_of
from tests.chaos.polling import PollingHost
from tests.chaos.wire import Choose

POLLS = 3
"""Jobs at once."""

PRICE_USD = 0.00009
PIECES_MAX = 6

LOST = (403, 404, 409, 410, 413, 422)
"""Statuses that say: this job is no longer yours, or never was."""


class Poller(PollingHost):
    """One polling host over all its lives; the key is kept, what it was working on is not."""

    def __init__(self, name: str, choose: Choose, *, seed: int) -> None:
        super().__init__(name, choose, seed=seed)
        self.completed: set[str] = set()
        """Jobs that a coordinator said this host completed."""
        self.lives = 0

    async def start(self) -> None:
        """Register at the first start, and poll."""
        self.lives += 1
        self._connect()
        if not self.key:
            body = {
                "gpu": self.name,
                "models": [MODEL],
                "price_per_token": PRICE_USD,
                "slots": POLLS,
                "context_tokens": 100_000,
            }
            await self._register("/hosts/register", body)
        self._tasks = [asyncio.create_task(self._poll_as(number)) for number in range(POLLS)]

    async def _poll_as(self, number: int) -> None:
        async def work(given: dict[str, str]) -> None:
            await self._work(given["job_id"], given["input_text"], number)

        await self._poll("/hosts/next-job", {"host_id": self.host_id, "wait_s": 2}, work)

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
