"""The worker's end of the link: one WebSocket, reconnected with back-off, without losing or duplicating a frame.

A trading post may have several coordinators (`Addresses`): when one is lost, refuses, or falls silent, the next is
called within `RELINK_FIRST_S`, and the leases are resumed there.

Outgoing messages of one event-loop tick are sent as one WebSocket message. While the socket is slow, nothing is queued
here: frames stay in their `LeaseTable` until taken, and a full lease stops its engine.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import aiohttp
import msgspec

from comptoir.kit.clock import Clock
from comptoir.link import (
    LINK_VERSION,
    Acks,
    AskReceipts,
    Bye,
    Cancel,
    ConfirmedHead,
    Drain,
    FromCoordinator,
    FromWorker,
    Have,
    Hello,
    Inquire,
    Job,
    ModelOffer,
    Models,
    OpenAttempt,
    Settled,
    Welcome,
    decode_from_coordinator,
    encode,
)
from comptoir.worker import link_watch
from comptoir.worker.addresses import Addresses
from comptoir.worker.backoff import Backoff
from comptoir.worker.errors import HostForgotten, KeyRefused, LinkRefused
from comptoir.worker.events import Connected, OnEvent, Reconnecting, ignore
from comptoir.worker.handing_in import HandingIn
from comptoir.worker.leases import LeaseTable, WorkerLease
from comptoir.worker.link_watch import LinkWatch
from comptoir.worker.receipt_store import ReceiptStore
from comptoir.worker.refused import EXPIRED, SUSPENDED, why_no_link, why_refused
from comptoir.worker.resource_reporter import ResourceReporter

_log = logging.getLogger(__name__)

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""Largest WebSocket message, both ways."""

GATHER_S = 0.001
"""How long a busy link waits for more frames before it sends; adds at most this to a token's delay."""

BUSY_WINDOW_S = 0.01
BUSY_MESSAGES = 6
"""A link counts as busy in the window after one with so many messages."""

BATCH_BYTES_MAX = 1024 * 1024
"""Answer bytes put into one WebSocket message, unless a single frame is larger."""

CONNECT_TIMEOUT_S = 10.0
"""Most seconds for TCP, TLS and the WebSocket handshake together, and again between `Hello` and `Welcome`."""

CONNECT_SOON_S = 3.0
"""The same if another address can be called instead; doubled after every failed round of all addresses."""

STEADY_AFTER_S = 1.0
"""A lost connection that lasted this long is reopened at once; after a shorter one the worker waits as if refused."""

CLOSE_TIMEOUT_S = 1.0
"""Most seconds to wait for the other side's close frame."""

SUSPENDED_RETRY_S = 30.0
"""How often a suspended host asks whether it may serve again."""

LEAVE_S = 0.05
"""The same for a silent coordinator, which will not answer."""


class JobSink(Protocol):
    """What the uplink passes incoming messages to (the job loop)."""

    host_id: str

    def accept(self, job: Job) -> None: ...
    def cancel(self, message: Cancel) -> None: ...
    def settled(self, message: Settled) -> None: ...
    def drop(self, lease: bytes) -> None: ...
    def frames_gone(self, held: WorkerLease) -> None: ...


class _Lost(Exception):
    """This connection is over; the message says why."""

    def __init__(self, why: str, *, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class Uplink:
    """Keeps the link open until `close`. *key* is the host key, *software* this program's name in `Hello`; *receipts*,
    open, is where receipts are kept."""

    def __init__(
        self,
        *,
        addresses: Addresses,
        key: str,
        software: str,
        table: LeaseTable,
        jobs: JobSink,
        receipts: ReceiptStore | None = None,
        on_event: OnEvent = ignore,
        backoff: Backoff | None = None,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.connected = False
        self.pulse_s = asyncio.get_running_loop().create_future()
        """Resolves with the pulse interval of the first `Welcome`."""
        self._addresses = addresses
        self._patience_s = CONNECT_SOON_S if len(addresses.all) > 1 else CONNECT_TIMEOUT_S
        self._key = key
        self._software = software
        self._table = table
        self.telling = ResourceReporter(wake=table.nudge)
        """Sends what the containers report about themselves over this link."""
        self._handing = HandingIn(receipts, wake=table.nudge)
        self._jobs = jobs
        self._on_event = on_event
        self._backoff = backoff or Backoff()
        self._clock = clock or Clock()
        self._sleep = sleep
        self._models: list[ModelOffer] = []
        self._slots = 0
        self._offer_changed = False
        self._draining = False
        self._drain_sent = False
        self._closing = asyncio.Event()
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._connected_at_s = 0.0
        self._lived_s = 0.0
        self._silent = False
        self._cutting: asyncio.Task[bool] | None = None

    def offer(self, models: list[ModelOffer], slots: int) -> None:
        """Set what this host serves; sent in `Hello`, or in `Models` if the link is open."""
        self._models = models
        self._slots = slots
        self._offer_changed = True
        self._table.nudge()

    def drain(self) -> None:
        """Request no more jobs, now and after any reconnect."""
        self._draining = True
        self._table.nudge()

    def cut(self, *, alive_s: float) -> None:
        """Drop the connection and open a new one, if this one is older than *alive_s* (the other side lost it)."""
        socket = self._socket
        if socket is None or not self.connected or self._clock.monotonic_s() - self._connected_at_s < alive_s:
            return
        self._cutting = asyncio.get_running_loop().create_task(socket.close())

    async def close(self) -> None:
        """Close the connection; `run` returns."""
        self._closing.set()
        await self.telling.close()
        await self._handing.close()
        if self._socket is not None:
            await self._socket.close()

    async def run(self) -> None:
        """Connect, serve, reconnect; return after `close`.

        Raises:
            HostForgotten: the coordinator retired this host for its silence.
            KeyRefused: the coordinator answers 401 or 403 otherwise; while the host is suspended it is asked again.
            LinkRefused: it sent `Bye` with a negative time, or uses another version.
        """
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
            while not self._closing.is_set():
                try:
                    await self._connection(session)
                except _Lost as lost:
                    if self._closing.is_set():
                        return
                    # A restarting coordinator tells all its workers the same time; the jitter spreads them.
                    wait_s = lost.wait_s + self._until_next_s()
                    _log.info("link lost (%s), trying %s in %.2f s", lost, self._addresses.current, wait_s)
                    self._on_event(Reconnecting(wait_s, str(lost)))
                    await self._pause(wait_s)

    def _until_next_s(self) -> float:
        """Switch to the next address and return how long to wait before calling it."""
        lived = self._lived_s >= STEADY_AFTER_S
        self._backoff.lived(self._lived_s)
        if lived and len(self._addresses.all) > 1:
            self._patience_s = CONNECT_SOON_S
        if self._addresses.failed(lived=lived):
            return self._backoff.soon_s()
        self._patience_s = min(CONNECT_TIMEOUT_S, 2 * self._patience_s)
        return self._backoff.next_s()

    async def _pause(self, seconds: float) -> None:
        """Sleep, but no longer than until `close`."""
        sleeping = asyncio.ensure_future(self._sleep(seconds))
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait((sleeping, closing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            closing.cancel()

    async def _connection(self, session: aiohttp.ClientSession) -> None:
        """Run one connection to its end, which is always an exception."""
        self._lived_s = 0.0
        self._silent = False
        address = self._addresses.current + "/link"
        socket = await self._connect(session, address)
        self._socket = socket
        watch = LinkWatch(self._clock.monotonic_s)
        tasks: list[asyncio.Task[None]] = []
        try:
            if self._closing.is_set():
                raise _Lost("the worker stops")
            messages = await self._greet(socket, watch)
            self.connected = True
            self._connected_at_s = self._clock.monotonic_s()
            async with asyncio.timeout(None) as silence:
                loop = asyncio.get_running_loop()
                tasks += [
                    loop.create_task(self._send_all(socket)),
                    loop.create_task(self._watch(socket, watch, silence)),
                ]
                while True:
                    for message in messages:
                        self._receive(message)
                    messages = await _next_batch(socket, watch)
        except TimeoutError as error:
            raise _Lost(f"the coordinator at {address} was silent for {watch.patience_s:g} s") from error
        finally:
            if self.connected:
                self._lived_s = self._clock.monotonic_s() - self._connected_at_s
            self.connected = False
            self._socket = None
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            await _leave(socket, CLOSE_TIMEOUT_S + LEAVE_S if not self._silent else LEAVE_S)

    async def _watch(self, socket: aiohttp.ClientWebSocketResponse, watch: LinkWatch, silence: asyncio.Timeout) -> None:
        """Ping a quiet coordinator; end the connection when it stays silent."""
        while True:
            await asyncio.sleep(link_watch.TICK_S)
            if watch.tick():
                # Even if the ping can't be sent, the silence is still watched.
                with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                    async with asyncio.timeout(link_watch.TICK_S):
                        await socket.ping()
            if watch.silent:
                self._silent = True
                silence.reschedule(asyncio.get_running_loop().time())
                return

    async def _connect(self, session: aiohttp.ClientSession, address: str) -> aiohttp.ClientWebSocketResponse:
        try:
            async with asyncio.timeout(self._patience_s):
                return await session.ws_connect(
                    address,
                    headers={"Authorization": f"Bearer {self._key}"},
                    compress=0,
                    max_msg_size=MESSAGE_BYTES_MAX,
                    autoping=False,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
                )
        except aiohttp.WSServerHandshakeError as error:
            if error.status in (401, 403):
                raise await self._refused(session, address, error.status) from error
            raise _Lost(await why_no_link(session, address, error.status)) from error
        except TimeoutError as error:
            raise _Lost(f"no connection within {self._patience_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise _Lost(f"no connection: {error}") from error

    async def _refused(self, session: aiohttp.ClientSession, address: str, status: int) -> "_Lost | KeyRefused":
        """Return how to go on without a link: later if the operator may lift it, else not with this key."""
        why = await why_refused(session, address.removesuffix("/link"), self._key)
        if why.code in SUSPENDED:
            return _Lost(why.message, wait_s=SUSPENDED_RETRY_S)
        if why.code == EXPIRED:
            return HostForgotten(f"{address}: {why.message}")
        said = f": {why.message}" if why.message else ""
        return KeyRefused(
            f"{address} does not accept this host's key (HTTP {status}){said}. The host was removed or its key "
            "replaced: delete the state file and start again to register as a new host."
        )

    async def _greet(self, socket: aiohttp.ClientWebSocketResponse, watch: LinkWatch) -> list[FromCoordinator]:
        """Send `Hello`, resume the leases from `Welcome`; return the messages that came with it."""
        opened = [OpenAttempt(held.lease, held.end_seq) for held in self._table]
        self._offer_changed = False
        self._drain_sent = False
        self._handing.connected()
        handing = self._handing
        hello = Hello(LINK_VERSION, self._software, self._slots, self._models, opened, handing.heads, handing.keeps)
        await _send(socket, [hello])
        try:
            async with asyncio.timeout(self._patience_s):
                batch = await _next_batch(socket, watch)
        except TimeoutError as error:
            self._silent = True
            raise _Lost(f"no Welcome within {self._patience_s:g} s") from error
        first = batch[0] if batch else None
        if isinstance(first, Bye):
            self._receive(first)
        if not isinstance(first, Welcome):
            raise _Lost("the coordinator's first message was not Welcome")
        if first.version != LINK_VERSION:
            raise LinkRefused(
                f"the coordinator speaks version {first.version} of the link, this worker {LINK_VERSION}: "
                "upgrade the older of the two"
            )
        self._jobs.host_id = first.host_id
        self._table.set_window(first.window_frames)
        if not self.pulse_s.done():
            self.pulse_s.set_result(first.pulse_s)
        known = {have.lease: have for have in first.have}
        resumed = sum([self._resume(attempt.lease, known.get(attempt.lease)) for attempt in opened])
        self._on_event(Connected(first.host_id, resumed))
        self.telling.connected()
        if self._draining:
            self._table.nudge()
        return batch[1:]

    def _resume(self, lease: bytes, have: Have | None) -> bool:
        """Go on with a lease where the coordinator has it; return whether it lives on."""
        held = self._table.get(lease)
        if held is None:
            return False
        if have is None or not have.known:
            self._jobs.drop(lease)
            return False
        if not held.rewind(have.next_seq):
            self._jobs.frames_gone(held)
            return False
        if held.bound_max:
            # A coordinator that says no bound is older, and can't raise it.
            held.raise_bound(have.max_tokens, final=have.final or not have.max_tokens)
        self._table.touch(held)
        return True

    def _receive(self, message: FromCoordinator) -> None:
        if isinstance(message, Acks):
            for have in message.have:
                self._acknowledged(have)
        elif isinstance(message, Job):
            self._jobs.accept(message)
        elif isinstance(message, Settled):
            self._jobs.settled(message)
            self._handing.settled(message)
        elif isinstance(message, Cancel):
            self._jobs.cancel(message)
        elif isinstance(message, Inquire):
            self.telling.inquire(message)
        elif isinstance(message, ConfirmedHead):
            self._handing.head(message)
        elif isinstance(message, AskReceipts):
            self._handing.ask(message)
        elif isinstance(message, Bye):
            if message.reconnect_after_s < 0:
                raise LinkRefused(f"the coordinator ended the link for good: {message.reason}")
            raise _Lost(f"the coordinator said goodbye: {message.reason}", wait_s=message.reconnect_after_s)
        else:
            raise _Lost("the coordinator sent a second Welcome")

    def _acknowledged(self, have: Have) -> None:
        if not have.known:
            self._jobs.drop(have.lease)
            return
        held = self._table.get(have.lease)
        if held is not None:
            held.ack(have.next_seq)
            if have.max_tokens and held.bound_max:
                held.raise_bound(have.max_tokens, final=have.final)

    async def _send_all(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Send whatever there is, one batch per turn, until the socket fails."""
        gathering = _Gathering(asyncio.get_running_loop().time)
        try:
            while True:
                batch: list[FromWorker] = []
                if self._offer_changed:
                    self._offer_changed = False
                    batch.append(Models(self._models, self._slots))
                if self._draining and not self._drain_sent:
                    self._drain_sent = True
                    batch.append(Drain())
                batch += self.telling.take()
                batch += self._handing.take()
                batch += self._table.take(BATCH_BYTES_MAX)
                if batch:
                    await _send(socket, batch)
                await self._table.changed()
                if gathering.must_wait():
                    await asyncio.sleep(GATHER_S)
        except _Lost:
            # The receiving side reports the loss; closing makes sure that it notices.
            await socket.close()


class _Gathering:
    """Says when so many messages are sent that it is better to wait `GATHER_S` for company.

    A message costs both sides far more than a frame in it: of the coordinator's CPU for 64 streams of 50 tokens a
    second, each token a message of its own, half went into taking messages apart. A quiet link is never held up.
    """

    __slots__ = ("_busy", "_clock", "_count", "_until_s")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until_s = 0.0
        self._count = 0
        self._busy = False

    def must_wait(self) -> bool:
        """Count one message about to be sent; True: wait first."""
        now = self._clock()
        if now >= self._until_s:
            self._busy = self._count >= BUSY_MESSAGES and now < self._until_s + BUSY_WINDOW_S
            self._count = 0
            self._until_s = now + BUSY_WINDOW_S
        self._count += 1
        return self._busy


async def _send(socket: aiohttp.ClientWebSocketResponse, messages: list[FromWorker]) -> None:
    try:
        await socket.send_bytes(encode(messages))
    except (aiohttp.ClientError, OSError) as error:
        raise _Lost(f"sending failed: {error}") from error


async def _leave(socket: aiohttp.ClientWebSocketResponse, within_s: float) -> None:
    """Close *socket*, politely if it answers; aborted when that takes longer than *within_s*."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await socket.close()


async def _next_batch(socket: aiohttp.ClientWebSocketResponse, watch: LinkWatch) -> list[FromCoordinator]:
    while True:
        message = await socket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            watch.heard()
            break
        if message.type is aiohttp.WSMsgType.PONG:
            watch.ponged()
        elif message.type is aiohttp.WSMsgType.PING:
            watch.heard()
            with contextlib.suppress(aiohttp.ClientError, OSError):
                await socket.pong(message.data)
        else:
            raise _Lost(_why_closed(socket, message))
    try:
        return decode_from_coordinator(message.data)
    except msgspec.DecodeError as error:
        # A message this worker does not know comes from a newer coordinator or a broken one; both are worth a retry.
        with contextlib.suppress(aiohttp.ClientError, OSError):
            await socket.close(code=aiohttp.WSCloseCode.PROTOCOL_ERROR, message=b"not a message of the link")
        raise _Lost(f"the coordinator sent something that is not a message of the link: {error}") from error


def _why_closed(socket: aiohttp.ClientWebSocketResponse, message: aiohttp.WSMessage) -> str:
    if message.type is aiohttp.WSMsgType.TEXT:
        return "the coordinator sent text, the link is binary"
    if message.type is aiohttp.WSMsgType.ERROR:
        return f"the connection failed: {message.data}"
    reason = f" ({message.extra})" if message.extra else ""
    return f"the connection was closed, code {socket.close_code}{reason}"
