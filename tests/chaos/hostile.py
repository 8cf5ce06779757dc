"""Hostile hosts of an episode: each brings some of a true answer and then does its deed, over and over, at the lowest
price.

They speak the native shape and poll. What they bring before their deed is the order's own, so what a buyer reads stays
checkable; what the deed is worth nothing must come of.
"""

import asyncio
import base64

import msgspec

from tests.chaos.engine import MODEL, UNMARKED, text_of, tokens_in, tokens_of, wanted_of
from tests.chaos.polling import PollingHost
from tests.chaos.wire import Choose

DEEDS = (
    "overclaims",  # nothing at all, counted as everything that was asked for, and a prompt of two thousand million
    "bad-extra",  # what no parser takes, beside a frame's text
    "empty-frames",  # frames without anything in them, as signs of life
    "stalls",  # silence
    "blames-buyer",  # "your request is wrong"
    "busy",  # "try somebody else", for ever
    "cheats-hash",  # another answer's hash
    "hangs-up",  # gone, and back for the next job
    "shouts",  # a finish reason of a hundred thousand characters
)

PRICE_UUSD_PER_MTOK = 40_000_000
"""Half of what the cheapest honest host asks."""

SLOTS = 2
PROMPT_TOKENS_MAX = 2**31 - 1
EMPTY_FRAMES = 100
EMPTY_S = 0.1
"""How often empty frames come: for ten seconds, twice an episode's lease."""

TAKEN = (200, 400, 403, 404, 409, 410, 413, 422)
"""Any answer at all: what a deed is told does not matter to it."""


class HostileHost(PollingHost):
    """One of them, named after its deed."""

    def __init__(self, deed: str, choose: Choose, *, seed: int) -> None:
        super().__init__(deed, choose, seed=seed)
        self.deed = deed
        self.given = 0
        """Jobs that it was given."""

    async def start(self) -> None:
        """Register, and ask for work."""
        self._connect()
        offer = {
            "name": MODEL, "kinds": ["chat"], "context_tokens": 100_000, "can_continue": True,
            "price_in_uusd_per_mtok": 1_000_000, "price_out_uusd_per_mtok": PRICE_UUSD_PER_MTOK,
        }  # fmt: skip
        await self._register("/house/hosts", {"transport": "poll", "gpu": self.deed, "models": [offer], "slots": SLOTS})
        poll = "/house/host/jobs/next"
        self._tasks = [asyncio.create_task(self._poll(poll, {"wait_s": 2}, self._serve)) for _ in range(SLOTS)]

    async def _serve(self, job: dict[str, object]) -> None:
        self.given += 1
        wanted = wanted_of(base64.b64decode(str(job["body"])))
        before = msgspec.convert(job["prefix"], list[dict[str, object]])
        seq, begun = len(before), sum(1 for frame in before if frame.get("text"))
        if self.deed in ("busy", "overclaims"):
            at = begun
        else:
            at = self._dice.randint(begun, max(begun, wanted.frames - 1))
        mark = f"hostile-{self.deed}-{self.given}" if wanted.marked else UNMARKED
        pieces = [{"text": text_of(wanted.tag, n, mark), "tokens": tokens_of(n)} for n in range(begun, at)]
        if pieces and not await self._frames(job, seq, pieces):
            return
        await self._do(job, seq + len(pieces), claimed=tokens_in(at, wanted.frames))

    async def _do(self, job: dict[str, object], at: int, *, claimed: int) -> None:
        deed = self.deed
        if deed == "overclaims":
            await self._frames(job, at, [{"text": "", "tokens": claimed}])
            usage = {"prompt_tokens": PROMPT_TOKENS_MAX, "completion_tokens": claimed}
            await self._tell(job, "done", end_seq=at + 1, usage=usage)
        elif deed == "bad-extra":
            extra = self._dice.choice((b"not json", b"[" * 500 + b"]" * 500, b'{"delta":7}', b'{"index":"\xff"}'))
            await self._frames(job, at, [{"text": "", "tokens": 0, "extra": base64.b64encode(extra).decode()}])
        elif deed == "empty-frames":
            for number in range(EMPTY_FRAMES):
                if not await self._frames(job, at + number, [{"text": "", "tokens": 0}]):
                    return
                await asyncio.sleep(EMPTY_S)
        elif deed == "blames-buyer":
            await self._tell(
                job, "fail", code="bad_request", message="your request is wrong", fault="buyer", status=400
            )
        elif deed == "busy":
            await self._tell(job, "fail", code="busy", message="somebody else", fault="capacity", retry_after_s=3600)
        elif deed == "cheats-hash":
            await self._tell(job, "done", end_seq=at, chain=base64.b64encode(bytes(32)).decode())
        elif deed == "shouts":
            await self._tell(job, "done", end_seq=at, finish_reason="stop" * 25_000)
        # Silence, and hanging up: nothing more is said of this job.

    async def _frames(self, job: dict[str, object], seq: int, items: list[dict[str, object]]) -> bool:
        return await self._tell(job, "frames", seq=seq, items=items) == 200

    async def _tell(self, job: dict[str, object], what: str, **said: object) -> int:
        path = f"/house/host/jobs/{job['job_id']}/{what}"
        status, _ = await self._asking().until("POST", path, good=TAKEN, body={"lease": job["lease"]} | said)
        return status
