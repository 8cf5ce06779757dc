"""Workers that misbehave on purpose: each speaks the link by hand, message by message, and breaks one rule of it.

For tests of the coordinator. A `ScriptedWorker` registers, links, answers jobs with numbered words (from a job's
``start_seq`` on, so an honest one also goes on from another host's frames) and does its *misdeed* after so many
frames of its own. It never comes back by itself: `ScriptedWorker.link` links again, naming the leases it still plays.
"""

import asyncio
import contextlib
import enum
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import msgspec

from comptoir.kit.ids import public
from comptoir.kit.signing import SigningKey
from comptoir.link import (
    LINK_VERSION,
    Bye,
    Cancel,
    Done,
    Fail,
    Frame,
    Frames,
    FromCoordinator,
    FromWorker,
    Hello,
    Job,
    ModelOffer,
    OpenAttempt,
    Segment,
    Settled,
    Usage,
    Welcome,
    decode_from_coordinator,
    encode,
    hash_after,
    hash_start,
    segment_bytes,
)
from comptoir.worker import register

WORDS = 12
"""Frames of a whole answer."""

PROMPT_TOKENS = 3

MODEL = ModelOffer(
    name="trivial",
    kinds=["chat", "completion"],
    context_tokens=8192,
    price_in_uusd_per_mtok=1_000_000,
    price_out_uusd_per_mtok=100_000_000,
    can_continue=True,
)
"""As `tests.post.Post.worker` offers it, so that both can serve one job."""


class Misdeed(enum.StrEnum):
    """What a worker does after its first *after* frames of a job; until then it is honest."""

    NONE = "none"
    """Nothing: the whole answer, rightly signed."""
    STALL = "stall"
    """Falls silent with the link up; goes on honestly once `ScriptedWorker.resume` is set."""
    DROP = "drop"
    """Breaks the TCP connection and does not come back by itself."""
    GAP = "gap"
    """Leaves out one frame."""
    REORDER = "reorder"
    """Sends the next two frames in the wrong order."""
    REPEAT = "repeat"
    """Sends the last frame a second time, which the link allows; then goes on."""
    REPEAT_OTHER = "repeat_other"
    """Sends the number of its last frame again with another text; what was taken first counts."""
    WRONG_CHAIN = "wrong_chain"
    """Ends with a running hash that is not that of its frames."""
    WRONG_SIGNATURE = "wrong_signature"
    """Ends with a signature of another key."""
    WRONG_END = "wrong_end"
    """Ends at one frame more than it sent."""
    TEXT = "text"
    """Sends a text message where only binary ones are spoken."""
    NOT_MSGPACK = "not_msgpack"
    """Sends bytes that are no message."""
    NOT_UTF8 = "not_utf8"
    """Sends a frame whose text is no UTF-8."""
    NEGATIVE_TOKENS = "negative_tokens"
    """Sends a frame that stands for fewer than no tokens, which is no message of the link."""
    TOO_MANY_TOKENS = "too_many_tokens"
    """Sends a frame that stands for a million tokens."""
    BELOW_ZERO = "below_zero"
    """Ends with a prompt of fewer than no tokens."""
    TOO_MANY = "too_many"
    """Ends with a prompt of more tokens than any database takes."""
    HELLO_AGAIN = "hello_again"
    """Says hello a second time."""
    OTHERS_LEASE = "others_lease"
    """Sends frames and an end for a lease that it does not hold; then ends its own honestly."""
    FAIL = "fail"
    """Says that its engine failed."""
    CANNOT_CONTINUE = "cannot_continue"
    """Answers honestly, but refuses every job that begins in the middle."""


def words(count: int = WORDS) -> list[Frame]:
    """Return a whole answer of *count* numbered words, a token each."""
    return [Frame(f"w{number} ") for number in range(count)]


class ScriptedWorker:
    """A linked host that answers with `words`, and does *misdeed* after *after* frames of each segment it plays."""

    def __init__(
        self,
        url: str,
        misdeed: Misdeed = Misdeed.NONE,
        *,
        after: int = 3,
        answer: list[Frame] | None = None,
        models: list[ModelOffer] | None = None,
        slots: int = 8,
    ) -> None:
        self.url = url
        self.misdeed = misdeed
        self.after = after
        self.answer = words() if answer is None else answer
        self.models = [MODEL] if models is None else models
        self.slots = slots
        self.host_id = ""
        self.jobs: list[Job] = []
        """Every job that came, the same one again if it was sent again."""
        self.settled: list[Settled] = []
        self.cancelled: list[Cancel] = []
        self.goodbyes: list[Bye] = []
        self.resume = asyncio.Event()
        """Set it to let a stalled worker go on."""
        self.misbehaved = asyncio.Event()
        """Set once the misdeed was done for the first time."""
        self.closed = asyncio.Event()
        """Set when the connection is over, whoever ended it."""
        self.changed = asyncio.Event()
        """Set at every message from the coordinator."""
        self._key = SigningKey.generate()
        self._api_key = ""
        self._session: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reader: asyncio.Task[None] | None = None
        self._plays: dict[bytes, asyncio.Task[None]] = {}
        self._sent: dict[bytes, int] = {}

    async def register(self) -> None:
        """Become a host of the coordinator."""
        offers = [register.offer_json(model) for model in self.models]
        answer = await register.register(
            self.url,
            register.Registration("CPU", 0, offers, self.slots, self._key.public_key.hex(), "scripted", "scripted/1"),
        )
        self.host_id, self._api_key = answer.host_id, answer.api_key

    async def link(self) -> None:
        """Link (again), naming the leases it still plays, and go on from where the coordinator is.

        A coordinator that says goodbye instead is noted in *goodbyes*.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession()
        address = self.url.rstrip("/") + "/link"
        headers = {"Authorization": f"Bearer {self._api_key}"}
        self.closed.clear()
        self._socket = await self._session.ws_connect(address, headers=headers, compress=0)
        opened = [OpenAttempt(lease, end) for lease, end in self._sent.items()]
        await self.send(Hello(LINK_VERSION, "scripted/1", self.slots, self.models, opened))
        batch = decode_from_coordinator(await self._socket.receive_bytes())
        welcome = batch[0]
        if isinstance(welcome, Bye):
            self.goodbyes.append(welcome)
            self.closed.set()
            return
        assert isinstance(welcome, Welcome), welcome
        known = {have.lease: have.next_seq for have in welcome.have if have.known}
        for lease in [lease for lease in self._sent if lease not in known]:
            self._sent.pop(lease)
            self._stop(lease)
        self._sent |= known
        self._reader = asyncio.create_task(self._read(self._socket, batch[1:]))

    async def send(self, *messages: FromWorker) -> None:
        """Send one batch as it is."""
        assert self._socket is not None
        await self._socket.send_bytes(encode(list(messages)))

    def forget(self) -> None:
        """Forget every lease, as a process that was started anew."""
        for play in self._plays.values():
            play.cancel()
        self._plays.clear()
        self._sent.clear()

    def drop(self) -> None:
        """Break the connection the hard way."""
        assert self._socket is not None
        transport = self._socket._response.connection and self._socket._response.connection.transport
        assert transport is not None
        transport.abort()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until *condition* holds, looked at whenever the coordinator has said something."""
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def close(self) -> None:
        """End everything."""
        tasks = [*self._plays.values(), *([self._reader] if self._reader else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._socket is not None:
            await self._socket.close()
        if self._session is not None:
            await self._session.close()

    # -- the coordinator's messages ------------------------------------------------------------------------------

    async def _read(self, socket: aiohttp.ClientWebSocketResponse, batch: list[FromCoordinator]) -> None:
        try:
            while True:
                for message in batch:
                    self._receive(message)
                self.changed.set()
                batch = decode_from_coordinator(await socket.receive_bytes())
        except (TypeError, ConnectionError, aiohttp.ClientError):
            # A close frame is no bytes: the connection is over.
            self.closed.set()
            self.changed.set()

    def _receive(self, message: FromCoordinator) -> None:
        if isinstance(message, Job):
            self.jobs.append(message)
            if message.lease not in self._plays:
                self._plays[message.lease] = asyncio.create_task(self._play(message))
        elif isinstance(message, Cancel):
            self.cancelled.append(message)
            self._stop(message.lease)
        elif isinstance(message, Settled):
            self.settled.append(message)
            self._sent.pop(message.lease, None)
            self._stop(message.lease)
        elif isinstance(message, Bye):
            self.goodbyes.append(message)

    def _stop(self, lease: bytes) -> None:
        play = self._plays.get(lease)
        if play is not None:
            play.cancel()

    # -- playing a job -------------------------------------------------------------------------------------------

    async def _play(self, job: Job) -> None:
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            if self.misdeed is Misdeed.CANNOT_CONTINUE and job.start_seq:
                self.misbehaved.set()
                await self.send(Fail(job.lease, "cannot_continue", "this engine can't go on", "capacity"))
                return
            frames = self.answer[job.start_seq :]
            self._sent[job.lease] = job.start_seq
            for number, frame in enumerate(frames):
                if number == self.after and await self._misbehave(job, frames, number):
                    return
                await self._frame(job, job.start_seq + number, frame)
            if len(frames) <= self.after and await self._misbehave(job, frames, len(frames)):
                return
            await self.send(self._done(job, frames))

    async def _frame(self, job: Job, seq: int, *frames: Frame) -> None:
        await self.send(Frames(job.lease, seq, list(frames)))
        self._sent[job.lease] = max(self._sent.get(job.lease, 0), seq + len(frames))
        await asyncio.sleep(0)

    async def _misbehave(self, job: Job, frames: list[Frame], number: int) -> bool:
        """Do the misdeed in the place of frame *number*; True when this job is over with it."""
        at = job.start_seq + number
        upcoming = frames[number:]
        over = True
        match self.misdeed:
            case Misdeed.NONE | Misdeed.CANNOT_CONTINUE:
                return False
            case Misdeed.STALL:
                self.misbehaved.set()
                await self.resume.wait()
                over = False
            case Misdeed.DROP:
                self.drop()
            case Misdeed.FAIL:
                await self.send(Fail(job.lease, "engine_failed", "the engine of this host failed", "host"))
            case Misdeed.GAP:
                await self.send(Frames(job.lease, at + 1, upcoming[1:2] or [Frame("gap")]))
            case Misdeed.REORDER:
                await self.send(
                    Frames(job.lease, at + 1, upcoming[1:2] or [Frame("late")]), Frames(job.lease, at, upcoming[:1])
                )
            case Misdeed.REPEAT:
                await self.send(Frames(job.lease, at - 1, frames[number - 1 : number]))
                over = False
            case Misdeed.REPEAT_OTHER:
                await self.send(Frames(job.lease, at - 1, [Frame("another ")]))
                over = False
            case Misdeed.OTHERS_LEASE:
                other = bytes(16)
                await self.send(Frames(other, 0, [Frame("mine")]), Fail(other, "x", "not mine to end", "buyer"))
                over = False
            case _:
                await self._send_nonsense(job, frames[:number], at)
        self.misbehaved.set()
        return over

    async def _send_nonsense(self, job: Job, sent: list[Frame], at: int) -> None:
        """Send what no honest worker ever sends, in the place of frame *at*."""
        socket = self._socket
        assert socket is not None
        match self.misdeed:
            case Misdeed.WRONG_CHAIN:
                await self.send(msgspec.structs.replace(self._done(job, sent), chain=hashlib.sha256(b"x").digest()))
            case Misdeed.WRONG_SIGNATURE:
                await self.send(self._done(job, sent, key=SigningKey.generate()))
            case Misdeed.WRONG_END:
                await self.send(msgspec.structs.replace(self._done(job, sent), end_seq=at + 1))
            case Misdeed.BELOW_ZERO:
                await self.send(msgspec.structs.replace(self._done(job, sent), usage=Usage(-1_000_000, len(sent))))
            case Misdeed.TOO_MANY:
                await self.send(msgspec.structs.replace(self._done(job, sent), usage=Usage(1 << 63, len(sent))))
            case Misdeed.TEXT:
                await socket.send_str('["frames"]')
            case Misdeed.NOT_MSGPACK:
                await socket.send_bytes(b"\xc1 no message")
            case Misdeed.NOT_UTF8:
                good = encode([Frames(job.lease, at, [Frame("MARK")])])
                await socket.send_bytes(good.replace(b"MARK", b"\xff\xfe\xfa\xc0"))
            case Misdeed.NEGATIVE_TOKENS:
                await self._frame(job, at, Frame("cheap ", -1_000_000))
            case Misdeed.TOO_MANY_TOKENS:
                await self._frame(job, at, Frame("dear ", 1_000_000))
            case Misdeed.HELLO_AGAIN:
                await self.send(Hello(LINK_VERSION, "scripted/1", self.slots, self.models, []))
            case _:
                raise AssertionError(f"no such misdeed: {self.misdeed}")

    def _done(self, job: Job, frames: list[Frame], *, key: SigningKey | None = None) -> Done:
        """Return the end of a segment of *frames*, signed as our own worker signs it."""
        if job.chain:
            chain = job.chain
        else:
            chain = hash_start(job.job_id)
            for frame in job.prefix:
                chain = hash_after(chain, frame)
        for frame in frames:
            chain = hash_after(chain, frame)
        tokens = sum(frame.tokens for frame in frames)
        segment = Segment(
            job=public("job", job.job_id),
            attempt=public("att", job.lease),
            host=self.host_id,
            model=job.model,
            input_sha256=hashlib.sha256(job.body).hexdigest(),
            first_frame=job.start_seq,
            end_frame=job.start_seq + len(frames),
            chain=chain.hex(),
            prompt_tokens=PROMPT_TOKENS,
            completion_tokens=tokens,
            finish_reason="stop",
        )
        signature = (key or self._key).sign(segment_bytes(segment))
        return Done(job.lease, segment.end_frame, "stop", Usage(PROMPT_TOKENS, tokens), chain, signature)


@asynccontextmanager
async def misbehaving(
    url: str,
    misdeed: Misdeed = Misdeed.NONE,
    *,
    after: int = 3,
    answer: list[Frame] | None = None,
    models: list[ModelOffer] | None = None,
    slots: int = 8,
) -> AsyncIterator[ScriptedWorker]:
    """Register and link a `ScriptedWorker` at the coordinator *url* until the block ends."""
    worker = ScriptedWorker(url, misdeed, after=after, answer=answer, models=models, slots=slots)
    try:
        await worker.register()
        await worker.link()
        yield worker
    finally:
        await worker.close()
