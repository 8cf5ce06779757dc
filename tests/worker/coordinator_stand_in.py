"""A small coordinator that speaks the link strictly: it records every violation and can cut the line anywhere."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from aiohttp import web
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from comptoir.kit.ids import public
from comptoir.link import (
    LINK_VERSION,
    Acks,
    Bye,
    Cancel,
    Done,
    Drain,
    Fail,
    Frame,
    Frames,
    FromCoordinator,
    FromWorker,
    HandIn,
    Have,
    Hello,
    Job,
    ModelOffer,
    Models,
    PulseAnswer,
    Report,
    Resources,
    Segment,
    Settled,
    Welcome,
    decode_from_worker,
    encode,
    hash_after,
    hash_start,
    segment_bytes,
)
from tests.tcp import stop

HOST_ID = public("host", b"H" * 16)
HOST_KEY = "hk_live_test"
FAR_FUTURE_MS = 4_000_000_000_000


def make_job(
    number: int,
    *,
    model: str = "trivial",
    body: bytes = b"{}",
    kind: str = "chat",
    deadline_ms: int = FAR_FUTURE_MS,
    start_seq: int = 0,
    prefix: list[Frame] | None = None,
    max_tokens: int = 0,
    left_ms: int = 0,
    grows_to: int = 0,
) -> Job:
    return Job(
        lease=b"L" + number.to_bytes(15, "big"),
        job_id=b"J" + number.to_bytes(15, "big"),
        kind=kind,
        model=model,
        body=body,
        deadline_ms=deadline_ms,
        start_seq=start_seq,
        prefix=prefix or [],
        max_tokens=max_tokens,
        left_ms=left_ms,
        grows_to=grows_to,
    )


class Attempt:
    """What the coordinator has of one lease."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.first = job.start_seq
        """Number of the first of *frames*; 0 after `lose_everything`."""
        self.frames: list[Frame] = []
        self.sent = False
        self.cancelled = False
        self.forgotten = False
        self.bound, self.final = job.max_tokens if job.grows_to else 0, False
        """What its worker is told when it comes back; 0: this coordinator is an older one."""
        self.done: Done | None = None
        self.fail: Fail | None = None
        self.closed = asyncio.Event()
        self.grew = asyncio.Event()

    @property
    def next_seq(self) -> int:
        return self.first + len(self.frames)

    def lose_everything(self) -> None:
        """Forget all frames, those before the job's start as well: another coordinator takes over with nothing."""
        self.first = 0
        self.frames.clear()

    @property
    def text(self) -> str:
        return "".join(frame.text for frame in self.frames)


class Coordinator:
    """Serves ``/link``, ``/link/pulse`` and ``/link/register`` on 127.0.0.1."""

    def __init__(self) -> None:
        self.url = ""
        self.attempts: dict[bytes, Attempt] = {}
        self.violations: list[str] = []
        self.hellos: list[Hello] = []
        self.offers: list[list[ModelOffer]] = []
        self.drains = 0
        self.resources: list[dict[str, bytes]] = []
        self.reports: list[Report] = []
        self.handed: asyncio.Queue[HandIn] = asyncio.Queue()
        self.connections = 0
        self.messages = 0
        self.verify_key: VerifyKey | None = None
        self.window_frames = 256
        self.pulse_s = 30.0
        self.acks = True
        self.settles = True
        self.linked = True
        self.bye: Bye | None = None
        self.handshake_status = 0
        self.register_statuses: list[int] = []
        self.registrations: list[dict[str, object]] = []
        self.authorizations: list[str] = []
        self.pulses: list[dict[str, object]] = []
        self.pulsed = asyncio.Event()
        self.connected = asyncio.Event()
        self.cut_here: Callable[[int], bool] = lambda boundary: False
        self.boundary = 0
        self.awake = asyncio.Event()
        """Not set: new connections get no answer, see `freeze`."""
        self.awake.set()
        self._socket: web.WebSocketResponse | None = None
        self._request: web.Request | None = None

    def submit(self, job: Job) -> Attempt:
        attempt = self.attempts[job.lease] = Attempt(job)
        return attempt

    async def push(self, job: Job) -> Attempt:
        """Submit and send at once if there is a connection."""
        attempt = self.submit(job)
        if self._socket is not None:
            attempt.sent = True
            await self.send(job)
        return attempt

    async def send(self, *messages: FromCoordinator) -> None:
        assert self._socket is not None
        await self._socket.send_bytes(encode(list(messages)))

    async def raise_bound(self, attempt: Attempt, max_tokens: int, *, final: bool = False) -> None:
        attempt.bound, attempt.final = max_tokens, final
        await self.send(Acks([Have(attempt.job.lease, attempt.next_seq, True, max_tokens, final)]))

    async def cancel(self, attempt: Attempt) -> None:
        attempt.cancelled = True
        await self.send(Cancel(attempt.job.lease, "buyer left"))

    def cut(self) -> None:
        """Break the connection the hard way."""
        assert self._request is not None and self._request.transport is not None
        self._request.transport.abort()

    def freeze(self) -> None:
        """Read and answer nothing any more, pings neither, with all connections open: as a stopped process
        (SIGSTOP)."""
        self.awake.clear()
        if self._request is not None and self._request.transport is not None:
            self._request.transport.pause_reading()  # type: ignore[attr-defined]

    def thaw(self) -> None:
        """Go on as if nothing had been."""
        self.awake.set()
        transport = self._request.transport if self._request is not None else None
        if transport is not None and not transport.is_closing():
            transport.resume_reading()  # type: ignore[attr-defined]

    async def link(self, request: web.Request) -> web.StreamResponse:
        await self.awake.wait()
        if self.handshake_status:
            return web.Response(status=self.handshake_status)
        if request.headers.get("Authorization") != f"Bearer {HOST_KEY}":
            return web.Response(status=401)
        socket = web.WebSocketResponse(compress=False, max_msg_size=64 * 1024 * 1024)
        await socket.prepare(request)
        self.connections += 1
        self._socket, self._request = socket, request
        try:
            await self._serve(socket)
        except (ConnectionError, aiohttp.ClientError):
            pass
        finally:
            if self._socket is socket:
                self._socket = None
                self.connected.clear()
        return socket

    async def _serve(self, socket: web.WebSocketResponse) -> None:
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.BINARY:
                self.violations.append(f"message of type {message.type}")
                return
            self.messages += 1
            if self._crossed():
                return
            replies: list[FromCoordinator] = []
            for one in decode_from_worker(message.data):
                replies += self._handle(one)
            if self._crossed():
                return
            if replies:
                await socket.send_bytes(encode(replies))
                if self._crossed():
                    return
            if self.bye is not None:
                await socket.send_bytes(encode([self.bye]))

    def _crossed(self) -> bool:
        """Count one boundary; cut there if the test wants it."""
        self.boundary += 1
        if self.cut_here(self.boundary):
            self.cut()
            return True
        return False

    def _handle(self, message: FromWorker) -> list[FromCoordinator]:
        if isinstance(message, Hello):
            return self._welcome(message)
        if isinstance(message, Models):
            self.offers.append(message.models)
            return []
        if isinstance(message, Drain):
            self.drains += 1
            return []
        if isinstance(message, Resources):
            self.resources.append(message.of)
            return []
        if isinstance(message, Report):
            self.reports.append(message)
            return []
        if isinstance(message, HandIn):
            self.handed.put_nowait(message)
            return []
        attempt = self.attempts.get(message.lease)
        if attempt is None or attempt.forgotten:
            return []
        if isinstance(message, Frames):
            return self._frames(attempt, message)
        if isinstance(message, Done) and message.end_seq != attempt.next_seq:
            self.violations.append(f"Done.end_seq {message.end_seq} but {attempt.next_seq} frames are here")
        if isinstance(message, Done):
            attempt.done = message
            self._verify(attempt, message)
        else:
            attempt.fail = message
        attempt.closed.set()
        state = "done" if attempt.done else "failed"
        settled = Settled(message.lease, public("job", attempt.job.job_id), state, 7, len(attempt.frames), 70)
        return [settled] if self.settles else []

    def _welcome(self, hello: Hello) -> list[FromCoordinator]:
        self.hellos.append(hello)
        have: list[Have] = []
        for one in hello.open:
            attempt = self.attempts.get(one.lease)
            known = attempt is not None and not attempt.forgotten
            bound = (attempt.bound, attempt.final) if attempt else (0, False)
            have.append(Have(one.lease, attempt.next_seq if attempt else 0, known, *bound))
        held = {one.lease for one in hello.open}
        jobs = []
        for lease, attempt in self.attempts.items():
            if lease not in held and not attempt.closed.is_set() and not attempt.forgotten:
                if attempt.frames:
                    self.violations.append("the worker forgot a lease that it had sent frames of")
                attempt.sent = True
                jobs.append(attempt.job)
        self.connected.set()
        return [Welcome(LINK_VERSION, HOST_ID, have, self.window_frames, self.pulse_s), *jobs]

    def _frames(self, attempt: Attempt, message: Frames) -> list[FromCoordinator]:
        if message.seq > attempt.next_seq:
            self.violations.append(f"gap: frames from {message.seq}, expected {attempt.next_seq}")
            return []
        repeated = attempt.next_seq - message.seq
        for mine, theirs in zip(attempt.frames[message.seq - attempt.first :], message.items, strict=False):
            if mine != theirs:
                self.violations.append("a repeated frame differs from the first one")
        attempt.frames += message.items[repeated:]
        attempt.grew.set()
        return [Acks([Have(message.lease, attempt.next_seq)])] if self.acks else []

    def _verify(self, attempt: Attempt, done: Done) -> None:
        """Check the running hash over what arrived, and the host's signature over the statement."""
        job = attempt.job
        chain = hash_start(job.job_id)
        own = attempt.frames[job.start_seq - attempt.first :]
        for frame in [*job.prefix[: attempt.first], *attempt.frames]:
            chain = hash_after(chain, frame)
        if chain != done.chain:
            self.violations.append("the chain does not match the frames")
        segment = Segment(
            job=public("job", job.job_id),
            attempt=public("att", job.lease),
            host=HOST_ID,
            model=job.model,
            input_sha256=hashlib.sha256(job.body).hexdigest(),
            first_frame=job.start_seq,
            end_frame=attempt.next_seq,
            chain=chain.hex(),
            prompt_tokens=done.usage.prompt_tokens,
            completion_tokens=done.usage.billed(sum(frame.tokens for frame in own)),
            finish_reason=done.finish_reason,
        )
        assert self.verify_key is not None
        try:
            self.verify_key.verify(segment_bytes(segment), done.signature)
        except BadSignatureError:
            self.violations.append("the signature does not match the statement")

    async def pulse(self, request: web.Request) -> web.Response:
        await self.awake.wait()
        if request.headers.get("Authorization") != f"Bearer {HOST_KEY}":
            return web.Response(status=401)
        self.pulses.append(msgspec.json.decode(await request.read()))
        self.pulsed.set()
        return web.Response(body=msgspec.json.encode(PulseAnswer(linked=self.linked)), content_type="application/json")

    async def register(self, request: web.Request) -> web.Response:
        await self.awake.wait()
        self.authorizations.append(request.headers.get("Authorization", ""))
        status = self.register_statuses.pop(0) if self.register_statuses else 201
        if status != 201:
            return web.json_response({"error": "no"}, status=status)
        body = msgspec.json.decode(await request.read())
        self.registrations.append(body)
        self.verify_key = VerifyKey(bytes.fromhex(body["public_key"]))
        return web.json_response({"host_id": HOST_ID, "api_key": HOST_KEY, "status": "active"}, status=201)


@asynccontextmanager
async def serve(coordinator: Coordinator, *, port: int = 0) -> AsyncIterator[Coordinator]:
    """Run *coordinator* on *port* (0: a free one) of 127.0.0.1."""
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_get("/link", coordinator.link)
    app.router.add_post("/link/pulse", coordinator.pulse)
    app.router.add_post("/link/register", coordinator.register)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
    await site.start()
    host, bound = runner.addresses[0][:2]
    coordinator.url = f"http://{host}:{bound}"
    try:
        yield coordinator
    finally:
        await stop(runner)
