"""The worker of commit 6daa2b3 (28 November 2026), cut down to what it says on the wire. Frozen: it is never edited.

Thousands of machines may run that worker while the coordinators become newer, and nobody can ask them to change. So this file is
what they are: the messages of that commit by position, its running hash, the statement that it signed, the body that it registered
with. It imports nothing of ours, and a test holds its bytes. What does not work with it is mended on the other side.

It answers a chat with the frames that *piece* gives for the body, one token each, and a container by adding its name to ``said``.
"""

import asyncio
import contextlib
import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import aiohttp
import msgspec
from nacl.signing import SigningKey

LINK_VERSION = 1
PROMPT_TOKENS = 7
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class Frame(msgspec.Struct, array_like=True, frozen=True, gc=False):
    text: str = ""
    tokens: Count = 1
    extra: bytes = b""


class Usage(msgspec.Struct, array_like=True, frozen=True):
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    details: Annotated[bytes, msgspec.Meta(max_length=64 * 1024)] = b""


class ContainerCard(msgspec.Struct, array_like=True, frozen=True):
    description: str = ""
    image: str = ""
    external: bool = True
    generates_proofs: bool = False
    allowed_ips: list[str] = []
    timeout_s: float = 180.0
    rate_requests: int = 0
    rate_period_s: float = 60.0
    accepted_payments: dict[str, str] = {}
    allowed_addresses: list[str] = []
    allowed_delegate_addresses: list[str] = []


class ModelOffer(msgspec.Struct, array_like=True, frozen=True):
    name: str
    kinds: list[str]
    context_tokens: int = 4096
    price_in_uusd_per_mtok: int = 0
    price_out_uusd_per_mtok: int = 0
    can_continue: bool = False
    fingerprint: str = ""
    container: ContainerCard | None = None


class OpenAttempt(msgspec.Struct, array_like=True, frozen=True):
    lease: bytes
    end_seq: Count


class Have(msgspec.Struct, array_like=True, frozen=True):
    lease: bytes
    next_seq: int
    known: bool = True


class Hello(msgspec.Struct, array_like=True, frozen=True, tag="hello"):
    version: int
    software: str
    slots: int
    models: list[ModelOffer]
    open: list[OpenAttempt]


class Frames(msgspec.Struct, array_like=True, frozen=True, tag="frames"):
    lease: bytes
    seq: Count
    items: list[Frame]


class Done(msgspec.Struct, array_like=True, frozen=True, tag="done"):
    lease: bytes
    end_seq: Count
    finish_reason: str
    usage: Usage
    chain: bytes
    signature: bytes


class Fail(msgspec.Struct, array_like=True, frozen=True, tag="fail"):
    lease: bytes
    code: str
    message: str
    fault: str
    status: int = 0
    body: bytes = b""
    retry_after_s: float = 0.0


class Models(msgspec.Struct, array_like=True, frozen=True, tag="models"):
    models: list[ModelOffer]
    slots: int


class Drain(msgspec.Struct, array_like=True, frozen=True, tag="drain"):
    pass


class Resources(msgspec.Struct, array_like=True, frozen=True, tag="resources"):
    of: dict[str, bytes]


class Report(msgspec.Struct, array_like=True, frozen=True, tag="report"):
    inquiry: int
    body: bytes


class Welcome(msgspec.Struct, array_like=True, frozen=True, tag="welcome"):
    version: int
    host_id: str
    have: list[Have]
    window_frames: int
    pulse_s: float


class Job(msgspec.Struct, array_like=True, frozen=True, tag="job"):
    lease: bytes
    job_id: bytes
    kind: str
    model: str
    body: bytes
    deadline_ms: int
    start_seq: int = 0
    prefix: list[Frame] = []
    chain: bytes = b""
    max_tokens: int = 0
    left_ms: int = 0


class Cancel(msgspec.Struct, array_like=True, frozen=True, tag="cancel"):
    lease: bytes
    reason: str


class Acks(msgspec.Struct, array_like=True, frozen=True, tag="acks"):
    have: list[Have]


class Settled(msgspec.Struct, array_like=True, frozen=True, tag="settled"):
    lease: bytes
    job_id: str
    state: str
    earned_uusd: int
    tokens: int
    balance_uusd: int


class Inquire(msgspec.Struct, array_like=True, frozen=True, tag="inquire"):
    inquiry: int
    container: str
    model_id: str


class Bye(msgspec.Struct, array_like=True, frozen=True, tag="bye"):
    reason: str
    reconnect_after_s: float


class ContainerRun(msgspec.Struct, frozen=True):
    containers: list[str]
    data: msgspec.Raw
    requires_proof: bool = False
    stream: bool = False


class Segment(msgspec.Struct, frozen=True):
    job: str
    attempt: str
    host: str
    model: str
    input_sha256: str
    first_frame: int
    end_frame: int
    chain: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str


FromWorker = Hello | Frames | Done | Fail | Models | Drain | Resources | Report
FromCoordinator = Welcome | Job | Cancel | Acks | Settled | Bye | Inquire
encode = msgspec.msgpack.Encoder().encode
decode_from_worker = msgspec.msgpack.Decoder(list[FromWorker]).decode
decode_from_coordinator = msgspec.msgpack.Decoder(list[FromCoordinator]).decode


def chain_start(job_id: bytes) -> bytes:
    return hashlib.sha256(b"comptoir-frames-1" + job_id).digest()


def chain_step(chain: bytes, frame: Frame) -> bytes:
    text = frame.text.encode()
    head = struct.pack(">III", len(text), frame.tokens, len(frame.extra))
    return hashlib.sha256(b"".join((chain, head, text, frame.extra))).digest()


def segment_bytes(segment: Segment) -> bytes:
    kind, payload = b"application/vnd.comptoir.segment.v1+json", msgspec.json.encode(segment)
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def spelled(offer: ModelOffer) -> dict[str, object]:
    """An offer as the registration spelled it: an object, and without a container no word of one."""
    said: dict[str, object] = msgspec.structs.asdict(offer)
    if offer.container is None:
        del said["container"]
    else:
        said["container"] = msgspec.structs.asdict(offer.container)
    return said


class Lease:
    """One job in hand: all its frames, those it came with too."""

    def __init__(self, job: Job) -> None:
        self.job, self.frames = job, list(job.prefix)
        self.chain = chain_start(job.job_id)
        for frame in job.prefix:
            self.chain = chain_step(self.chain, frame)
        assert len(job.prefix) == job.start_seq and job.chain in (b"", self.chain), "the prefix is not what it says"
        self.made = 0
        self.sent = job.start_seq
        self.end: Done | Fail | None = None

    def add(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.chain, self.made = chain_step(self.chain, frame), self.made + frame.tokens


class Worker:
    """One machine over all its connections; *piece* gives the text of a frame of the answer to a body, None behind the last."""

    def __init__(
        self, url: str, models: Sequence[ModelOffer], *, piece: Callable[[bytes, int], str | None], slots: int = 4
    ) -> None:
        self.url, self.models, self.piece, self.slots = url, list(models), piece, slots
        self.key = SigningKey.generate()
        self.host_id = self.api_key = ""
        self.jobs: list[Job] = []
        self.settled: list[Settled] = []
        self.stop_at = self.fail_at = -1
        """Before the frame of this number it waits for *go*, or fails; -1: never."""
        self.reached, self.go, self.linked = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.resumed = 0
        self._leases: dict[bytes, Lease] = {}
        self._runs: set[asyncio.Task[None]] = set()
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._draining = self._leaving = False

    async def register(self, session: aiohttp.ClientSession) -> None:
        """Become a host."""
        body = {
            "gpu": "NVIDIA H100", "vram_mib": 81_559, "models": [spelled(one) for one in self.models], "slots": self.slots,
            "public_key": self.key.verify_key.encode().hex(), "backend": "frozen", "software": "comptoir 0.1.0",
        }  # fmt: skip
        async with session.post(f"{self.url}/link/register", json=body) as answer:
            assert answer.status == 201, await answer.text()
            made = await answer.json()
        self.host_id, self.api_key = made["host_id"], made["api_key"]

    async def run(self) -> None:
        """Register, then link again and again until it has drained or is cancelled."""
        async with aiohttp.ClientSession() as session:
            if not self.api_key:
                await self.register(session)
            try:
                while not self._leaving:
                    with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                        await self._link(session)
                    self.linked.clear()
                    await asyncio.sleep(0.05)
            finally:
                for run in self._runs:
                    run.cancel()
                await asyncio.gather(*self._runs, return_exceptions=True)

    async def cut(self) -> None:
        """Lose the connection, with whatever is in hand kept."""
        assert self._socket is not None
        await self._socket.close()

    async def drain(self) -> None:
        """Take no more; leave when the last lease is settled."""
        self._draining = True
        await self._send(Drain())
        await self._leave_if_empty()

    async def _link(self, session: aiohttp.ClientSession) -> None:
        bearer = {"Authorization": f"Bearer {self.api_key}"}
        async with session.ws_connect(f"{self.url}/link", headers=bearer, max_msg_size=64 << 20) as socket:
            held = [OpenAttempt(one.job.lease, len(one.frames)) for one in self._leases.values()]
            await socket.send_bytes(encode([Hello(LINK_VERSION, "comptoir/0.1.0", self.slots, self.models, held)]))
            self._socket = socket
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.BINARY:
                    return
                for one in decode_from_coordinator(message.data):
                    await self._receive(session, one)

    async def _receive(self, session: aiohttp.ClientSession, message: FromCoordinator) -> None:
        if isinstance(message, Welcome):
            assert message.version == LINK_VERSION
            self.host_id = message.host_id
            for have in message.have:
                if not have.known:
                    self._leases.pop(have.lease, None)
                elif have.lease in self._leases:
                    self._leases[have.lease].sent = have.next_seq
                    self.resumed += 1
                    await self._flush(self._leases[have.lease])
            if any(offer.container is not None for offer in self.models):
                await self._send(Resources({one.name: b'{"ready":true}' for one in self.models if one.container}))
            bearer = {"Authorization": f"Bearer {self.api_key}"}
            async with session.post(f"{self.url}/link/pulse", json={"gpu": "NVIDIA H100"}, headers=bearer) as answer:
                assert (await answer.json())["status"] == "acknowledged"
            self.linked.set()
        elif isinstance(message, Job) and message.lease not in self._leases:
            self.jobs.append(message)
            lease = self._leases[message.lease] = Lease(message)
            run = asyncio.create_task(self._container(lease) if message.kind == "container" else self._chat(lease))
            self._runs.add(run)
            run.add_done_callback(self._runs.discard)
        elif isinstance(message, Settled):
            self._leases.pop(message.lease, None)
            self.settled.append(message)
            await self._leave_if_empty()
        elif isinstance(message, Cancel) and message.lease in self._leases:
            await self._end(self._leases[message.lease], "cancelled", Usage(0, self._leases[message.lease].made))
        elif isinstance(message, Inquire):
            await self._send(Report(message.inquiry, b'{"supported":true}'))
        elif isinstance(message, Bye):
            assert message.reconnect_after_s >= 0, message.reason
            await self.cut()

    async def _chat(self, lease: Lease) -> None:
        while (text := self.piece(lease.job.body, number := len(lease.frames))) is not None:
            if number == self.stop_at:
                self.reached.set()
                await self.go.wait()
            if number == self.fail_at:
                lease.end = Fail(lease.job.lease, "broken", "the engine broke", "host")
                await self._flush(lease)
                return
            if lease.end is not None:
                return
            lease.add(Frame(text))
            await self._flush(lease)
        details = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": lease.made}
        await self._end(lease, "stop", Usage(PROMPT_TOKENS, lease.made, json.dumps(details).encode()))

    async def _container(self, lease: Lease) -> None:
        run = msgspec.json.decode(lease.job.body, type=ContainerRun)
        given: Any = json.loads(lease.frames[-1].text if lease.frames else bytes(run.data))
        given["said"] = [*given.get("said", []), run.containers[len(lease.frames)]]
        lease.add(Frame(json.dumps(given), 1, b'{"finish_reason":"stop"}'))
        await self._end(lease, "stop", Usage(0, 1))

    async def _end(self, lease: Lease, finish_reason: str, usage: Usage) -> None:
        job = lease.job
        billed = min(lease.made, usage.completion_tokens) if usage.details else lease.made
        segment = Segment(
            job=f"job_{job.job_id.hex()}", attempt=f"att_{job.lease.hex()}", host=self.host_id, model=job.model,
            input_sha256=hashlib.sha256(job.body).hexdigest(), first_frame=job.start_seq, end_frame=len(lease.frames),
            chain=lease.chain.hex(), prompt_tokens=usage.prompt_tokens, completion_tokens=billed, finish_reason=finish_reason,
        )  # fmt: skip
        signature = self.key.sign(segment_bytes(segment)).signature
        lease.end = Done(job.lease, len(lease.frames), finish_reason, usage, lease.chain, signature)
        await self._flush(lease)

    async def _flush(self, lease: Lease) -> None:
        """Send what was not sent on this connection."""
        new, at = lease.frames[lease.sent :], lease.sent
        lease.sent = len(lease.frames)
        if new:
            await self._send(Frames(lease.job.lease, at, new))
        if lease.end is not None:
            await self._send(lease.end)

    async def _send(self, message: FromWorker) -> None:
        if self._socket is not None and not self._socket.closed:
            with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                await self._socket.send_bytes(encode([message]))

    async def _leave_if_empty(self) -> None:
        if self._draining and not self._leases:
            self._leaving = True
            await self.cut()
