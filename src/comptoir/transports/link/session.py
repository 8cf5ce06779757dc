"""One worker's WebSocket: decode what it sends, act on it, send batches back, resume the leases it still holds."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from comptoir.containers import is_relayable, note_resources
from comptoir.dispatch.artifacts import FilesUnseen, look_while_away
from comptoir.dispatch.assign import assign_waiting, revoke_lease
from comptoir.dispatch.core import Core
from comptoir.dispatch.deferred_settlements import DeferredSettlements, retry_when_db_returns
from comptoir.dispatch.errors import AnswerTooLarge, BadFrame, BadSegment, FramesOutOfOrder
from comptoir.dispatch.extend import extend_if_due, output_limit, tell_bound
from comptoir.dispatch.hand_in import HandedIn
from comptoir.dispatch.hedge import heard
from comptoir.dispatch.lost_commits import HeadVerdict, LostCommits
from comptoir.dispatch.second_host import Hedges
from comptoir.dispatch.stream import complete, fail, fail_as_reported, leased_job, take_frames, unfit
from comptoir.dispatch.watch import link_dropped
from comptoir.events import LossEnded, ReceiptsWanted
from comptoir.hosts import SLOTS_MAX, Host, UnknownHost, check_offer
from comptoir.jobs import AttemptState, Fault, Lease, LiveJob, NotYourLease
from comptoir.kinds import Kinds, Resume
from comptoir.kit.errors import InvalidField, Refusal, Unavailable
from comptoir.kit.ids import public
from comptoir.link import (
    LINK_VERSION,
    RECEIPT_BYTES_MAX,
    Acks,
    Bye,
    Cancel,
    ConfirmedHead,
    Done,
    Drain,
    Fail,
    Frames,
    FromCoordinator,
    FromWorker,
    HandIn,
    Have,
    Hello,
    Inquire,
    Job,
    Models,
    Report,
    Resources,
    Settled,
    SignedReceipt,
    Welcome,
    decode_from_worker,
    encode,
)
from comptoir.receipts import Receipt
from comptoir.transports.job_message import bound_of, job_message
from comptoir.transports.link.collecting import Collecting

log = logging.getLogger(__name__)

OUTBOX_MESSAGES_MAX = 100_000
"""Messages waiting for one worker's socket; a worker that reads more slowly is cut off and resumes by reconnecting."""

HEAD_EVERY_S = 2.0
"""How often a worker for which something is settled is sent the head, which is signed once a second."""

ACK_EVERY_S = 0.05
"""How long acknowledgements are batched: far shorter than a worker takes to fill its window."""

INQUIRIES_MAX = 1_000
"""Most unanswered questions to one host's containers; further ones are not sent."""

SUSPENDED_RETRY_S = 30.0
"""When a suspended host is told to come back and see whether it may serve again."""

HELLO_WITHIN_S = 10.0
"""How long a new connection may take to send hello."""

VIOLATION = 1002
"""Close code of a worker that breaks the protocol."""


class Session:
    """The channel to one linked host; a host's newest connection replaces the previous one."""

    def __init__(self, core: Core, host: Host, socket: WebSocket) -> None:
        self._core = core
        self._host = host
        self._socket = socket
        self._outbox: list[FromCoordinator] = []
        self._wake: asyncio.Event = asyncio.Event()
        self._acks: dict[bytes, int] = {}
        self._ack_timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.open = False
        self._hedged = core.state(Hedges).by_lease
        self._inquiries: dict[int, asyncio.Future[bytes]] = {}
        self._inquired = 0
        self._keeps_receipts = self._linked_in_loss = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._settled_s = 0.0
        """When a receipt was sent last."""
        self._head = b""
        """The last head that the worker was sent."""
        self._collecting = Collecting(core, host.id)

    # -- HostChannel
    # ----------------------------------------------------------------------------------------------------

    def send_job(self, job: LiveJob, lease: Lease) -> bool:
        """Put the job in the outbox; False if the socket is closed."""
        if not self.open:
            return False
        self.post(self._job(job, lease))
        return True

    def _job(self, job: LiveJob, lease: Lease) -> Job:
        grows_to = output_limit(self._core, job, lease) if job.grows else 0
        return job_message(job, lease, now_ms=self._core.common_ms(), grows_to=grows_to)

    def raise_bound(self, job: LiveJob, lease: Lease) -> None:
        """Tell the worker how long the answer may be by now."""
        self.post(Acks([_have(job, lease.id)]))

    def cancel(self, lease: Lease, reason: str) -> None:
        """Tell the worker to stop a lease."""
        self.post(Cancel(lease.id, reason))

    def settled(
        self,
        job: LiveJob,
        lease: Lease,
        *,
        state: str,
        earned_uusd: int,
        balance_uusd: int,
        promo_uusd: int = 0,
        receipt: Receipt | None = None,
    ) -> None:
        """Tell the worker that it may forget a lease, and what it earned."""
        self._acks.pop(lease.id, None)
        # A lease in a chain of containers is one run, however many the job has.
        whole = int(state == AttemptState.DONE or earned_uusd > 0)
        made = whole if job.kind.staged else job.usage.completion_tokens
        kept: SignedReceipt | None = None
        if receipt is not None and self._keeps_receipts and len(receipt.payload) <= RECEIPT_BYTES_MAX:
            kept = SignedReceipt(receipt.keyid, receipt.payload, receipt.signature)
            self._settled_s = self._loop.time()
            if self._head_timer is None:
                self._head_timer = self._loop.call_later(HEAD_EVERY_S, self._send_head)
        self.post(Settled(lease.id, public("job", job.id), state, earned_uusd, made, balance_uusd, promo_uusd, kept))

    def turn_away(self, reason: str, *, for_good: bool) -> None:
        """Say goodbye, and why; a suspended host asks again from time to time whether it may serve."""
        self.post(Bye(reason, -1.0 if for_good else SUSPENDED_RETRY_S))
        self.open = False

    def inquire(self, container: str, model_id: str) -> "asyncio.Future[bytes]":
        """Ask a container of this host whether it supports a model; the answer is JSON, empty if it gave none."""
        answer: asyncio.Future[bytes] = self._loop.create_future()
        if not self.open or len(self._inquiries) >= INQUIRIES_MAX:
            answer.set_result(b"")
            return answer
        self._inquired = number = self._inquired + 1
        self._inquiries[number] = answer
        # Also if nobody waits for the answer any more.
        answer.add_done_callback(lambda _: self._inquiries.pop(number, None))
        self.post(Inquire(number, container, model_id))
        return answer

    def collect_receipts(self) -> None:
        """Have the worker hand in what it keeps of the receipts that the database lost, if it keeps any."""
        if self.open and self._keeps_receipts:
            self._collecting.begin(self.post)

    def link_anew(self) -> None:
        """Have a worker that linked while commits were missing compare its leases with the jobs that were resumed."""
        if self._linked_in_loss:
            self._linked_in_loss = False
            self.post(Bye("jobs are resumed", 0.0))
            self.open = False

    def post(self, message: FromCoordinator) -> None:
        """Queue one message; all of one loop tick leave as one WebSocket message."""
        if len(self._outbox) >= OUTBOX_MESSAGES_MAX:
            self.open = False
        self._outbox.append(message)
        self._wake.set()

    # -- life ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the connection until it ends; open leases wait for the worker to reconnect."""
        await self._socket.accept()
        try:
            if not await self._greet():
                return
            sender = self._loop.create_task(self._send_forever())
            try:
                await self._receive_forever()
            finally:
                sender.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await sender
        except (WebSocketDisconnect, TimeoutError, OSError) as gone:
            log.debug("link of %s ended: %s", public("host", self._host.id), gone)
        finally:
            self._leave()

    async def _greet(self) -> bool:
        async with asyncio.timeout(HELLO_WITHIN_S):
            messages = await self._read()
        if len(messages) != 1 or not isinstance(messages[0], Hello):
            await self._refuse("the first message must be hello", reconnect_after_s=-1.0)
            return False
        hello = messages[0]
        if hello.version != LINK_VERSION:
            reason = f"this coordinator speaks version {LINK_VERSION} of the link, you speak {hello.version}"
            await self._refuse(reason, reconnect_after_s=-1.0)
            return False
        try:
            _check_offer(hello, self._core.jobs.kinds)
        except InvalidField as invalid:
            await self._refuse(f"the offer can't be taken: {invalid}", reconnect_after_s=-1.0)
            return False
        core, host = self._core, self._host
        try:
            await self._judge_heads(hello.heads)
            await core.peers.welcome(host.id, [attempt.lease for attempt in hello.open])
        except Unavailable as outage:
            # If told that a lease is unknown, the worker would drop frames that nobody else has.
            await self._refuse(outage.message, reconnect_after_s=outage.retry_after_s)
            return False
        if core.fleet.find(host.id) is None:
            # Suspended or retired since its key was looked up: that is said with its next try.
            await self._refuse("this host may not serve here any more")
            return False
        earlier = core.channels.get(host.id)
        if isinstance(earlier, Session):
            earlier.post(Bye("another connection of this host took over", -1.0))
            earlier.open = False
        settings = core.settings
        core.fleet.replace_offer(host.id, tuple(hello.models), hello.slots)
        have, unsent = self._compare(hello)
        welcome = Welcome(LINK_VERSION, public("host", host.id), have, settings.window_frames, settings.pulse_s)
        await self._socket.send_bytes(encode([welcome, *unsent]))
        self.open = True
        self._keeps_receipts = hello.keeps_receipts
        core.channels[host.id] = self
        core.fleet.mark_linked(host.id)
        for job in core.jobs.live.leases_of(host.id):
            # A raise may have been written meanwhile, and its worker may wait at the bound with nothing left to send.
            tell_bound(core, job)
            extend_if_due(core, job)
        log.info(
            "host %s is linked: %s", public("host", host.id), ", ".join(m.name for m in hello.models) or "no model"
        )
        self._linked_in_loss = core.db.lost
        if self._linked_in_loss:
            self.collect_receipts()
        assign_waiting(core, host.id)
        return True

    async def _judge_heads(self, heads: list[bytes]) -> None:
        """Hear what the worker was told that this trading post has confirmed; if it was more, commits are missing."""
        core = self._core
        for statement in heads:
            verdict = await core.state(LostCommits).judge_head(statement)
            if verdict is HeadVerdict.LOST:
                log.critical("host %s brings a head beyond what the database has", public("host", self._host.id))
                core.events.publish(ReceiptsWanted())

    def _compare(self, hello: Hello) -> tuple[list[Have], list[FromCoordinator]]:
        """Compute how many frames we have of each lease that the worker holds; find leases it never got."""
        core, mine = self._core, {}
        for job in core.jobs.live.leases_of(self._host.id):
            assert job.lease is not None
            mine[job.lease.id] = job
            job.lease.relink(core.clock.monotonic_s())
        held = {attempt.lease: attempt.end_seq for attempt in hello.open}
        leaving, lost = {lease.id for lease in core.jobs.live.leaving}, core.db.lost
        have = [
            _have(mine[lease], lease)
            if lease in mine
            # The write that closes it may still fail; then the lease is this host's again. While commits are missing,
            # jobs are not resumed: the worker keeps what it has until then, its bound too (1 is below any).
            else Have(lease, held[lease] if lease in leaving or lost else 0, lease in leaving or lost, max_tokens=1)
            for lease in held
        ]
        unsent: list[FromCoordinator] = []
        for lease_id, job in mine.items():
            lease = job.lease
            if lease is None or job.closing:
                continue
            if lease_id in held:
                lease.note_frames_at_worker(held[lease_id])
            elif len(job.frames) > lease.first_frame or lease.revived or job.kind.resume(job) is Resume.NEVER:
                # An earlier process of this host began the answer (or may have, with side effects), so it can't be
                # started again under the same lease.
                fault = Fault.COORDINATOR if lease.revived else Fault.HOST
                core.background.spawn(
                    revoke_lease(core, job, lease, "the host came back without the job", fault=fault, again=True)
                )
            else:
                lease.begin(core.clock.monotonic_s())
                unsent.append(self._job(job, lease))
        return have, unsent

    def _leave(self) -> None:
        self.open = False
        self._collecting.end()
        if self._head_timer is not None:
            self._head_timer.cancel()
        for answer in self._inquiries.values():
            if not answer.done():
                answer.set_result(b"")
        self._inquiries.clear()
        core, host = self._core, self._host
        if core.channels.get(host.id) is self:
            del core.channels[host.id]
            core.fleet.unlinked(host.id)
            link_dropped(core, host.id)
            log.info("host %s lost its link", public("host", host.id))

    async def _refuse(self, reason: str, *, reconnect_after_s: float = 1.0) -> None:
        """Close the connection; below 0 the worker must not reconnect, because the result would be the same."""
        await self._socket.send_bytes(encode([Bye(reason, reconnect_after_s)]))
        await self._socket.close(VIOLATION, reason[:120])

    # -- in ------------------------------------------------------------------------------------------------------

    async def _read(self) -> list[FromWorker]:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005), message.get("reason"))
        data = message.get("bytes")
        if data is None:
            raise ProtocolBroken("only binary messages are spoken here")
        try:
            return decode_from_worker(data)
        except msgspec.DecodeError as error:
            raise ProtocolBroken(f"not a message of the link: {error}") from error

    async def _receive_forever(self) -> None:
        try:
            while True:
                for message in await self._read():
                    waits = self._act(message)
                    if waits is not None:
                        await waits  # What comes after it is not read meanwhile, whichever job's it is.
        except UnknownHost:
            log.debug("host %s was turned away", public("host", self._host.id))
        except ProtocolBroken as broken:
            log.warning("host %s broke the protocol: %s", public("host", self._host.id), broken)
            await self._refuse(str(broken))

    def _act(self, message: FromWorker) -> Coroutine[Any, Any, None] | None:
        """Act on *message*; return what is to be awaited before the next, if anything."""
        kind = type(message)
        if self._hedged and isinstance(message, Frames | Done | Fail) and message.lease in self._hedged:
            heard(self._core, self._host.id, message, self._act_late)
        elif kind is Frames:
            return self._frames(message)  # type: ignore[arg-type]
        elif kind is Done:
            self._done(message)  # type: ignore[arg-type]
        elif kind is Fail:
            self._fail(message)  # type: ignore[arg-type]
        elif kind is Models:
            self._models(message)  # type: ignore[arg-type]
        elif kind is Resources:
            self._resources(message)  # type: ignore[arg-type]
        elif kind is Report:
            self._report(message)  # type: ignore[arg-type]
        elif kind is HandIn:
            if not self._collecting.answer(message):  # type: ignore[arg-type]
                raise ProtocolBroken("nobody asked for receipts")
        elif kind is Drain:
            self._core.fleet.drain(self._host.id)
        else:
            raise ProtocolBroken("hello comes once")
        return None

    def _act_late(self, message: Frames | Done | Fail) -> None:
        """Act on messages that were held back while a job was being transferred to this host."""
        try:
            waits = self._act(message)
            assert waits is None, "no kind with files has a second host"
        except ProtocolBroken as broken:
            log.warning("host %s broke the protocol: %s", public("host", self._host.id), broken)
            self.post(Bye(str(broken), 1.0))
            self.open = False

    def _frames(self, message: Frames) -> Coroutine[Any, Any, None] | None:
        try:
            job = leased_job(self._core, self._host.id, message.lease)
        except NotYourLease:
            return None  # Cancelled or revoked meanwhile: what still arrives is ignored.
        if job.closing:
            return None
        try:
            self._ack(message.lease, take_frames(self._core, job, message.seq, message.items))
        except FilesUnseen as unseen:
            return self._look_first(job, message, unseen)
        except FramesOutOfOrder as gap:
            raise ProtocolBroken(str(gap)) from gap
        except (AnswerTooLarge, BadFrame) as error:
            self.post(Cancel(message.lease, error.message))
            code, fault = unfit(job, error)
            failed = partial(fail, self._core, job, code=code, message=error.message, fault=fault, measured=True)
            self._core.background.spawn(self._if_held(job, message.lease, failed))
        return None

    async def _look_first(self, job: LiveJob, message: Frames, unseen: FilesUnseen) -> None:
        await look_while_away(self._core, job, unseen)
        self._frames(message)

    async def _if_held(self, job: LiveJob, lease: bytes, verb: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run *verb* unless the lease was closed between the message and this task, which makes the message void."""
        if job.lease is not None and job.lease.id == lease:
            await retry_when_db_returns(self._core, job, verb)

    def _done(self, message: Done) -> None:
        job = self._ended(message.lease)
        if job is None:
            return
        if message.end_seq != len(job.frames):
            raise ProtocolBroken(f"done after frame {message.end_seq}, and {len(job.frames)} arrived")
        self._core.background.spawn(self._complete(job, message))

    async def _complete(self, job: LiveJob, message: Done) -> None:
        if job.lease is None or job.lease.id != message.lease:
            return  # Closed after the message came, in the same tick of the event loop.
        try:
            await retry_when_db_returns(self._core, job, partial(self._take_done, job, message))
        except Refusal as refusal:
            log.warning("job %s could not be settled: %s", public("job", job.id), refusal)
            if job.closing or self._core.state(DeferredSettlements).is_deferred(job.id):
                return  # It is written when the database is back; the worker's other answers continue meanwhile.
            # Neither written nor deferred: the worker keeps its Done and repeats it after a reconnect.
            if self.open:  # If there are several, the first closes the connection for all.
                self.open = False
                with contextlib.suppress(WebSocketDisconnect):
                    await self._socket.close(1013, "try again")

    async def _take_done(self, job: LiveJob, message: Done) -> None:
        try:
            await complete(
                self._core,
                job,
                finish_reason=message.finish_reason,
                usage=message.usage,
                signature=message.signature,
                running_hash=message.chain or b"-",
            )
        except BadSegment as bad:
            log.warning("host %s: %s", public("host", self._host.id), bad)

    def _fail(self, message: Fail) -> None:
        job = self._ended(message.lease)
        if job is not None:
            failed = partial(fail_as_reported, self._core, job, message)
            self._core.background.spawn(self._if_held(job, message.lease, failed))

    def _ended(self, lease: bytes) -> LiveJob | None:
        try:
            job = leased_job(self._core, self._host.id, lease)
        except NotYourLease:
            if any(each.id == lease for each in self._core.jobs.live.leaving):
                return None  # It is being written, and the worker is told then.
            if self._core.db.lost:
                return None  # Its job may not have been resumed; the worker says it again when it links the next time.
            # Settled or revoked before (the real answer is on its way, or was lost with an old connection): the worker
            # repeats its end until it is told.
            self.post(Settled(lease, "", "lost", 0, 0, 0))
            return None
        return None if job.closing else job

    def _models(self, message: Models) -> None:
        try:
            _check_offer(message, self._core.jobs.kinds)
        except InvalidField as invalid:
            raise ProtocolBroken(f"the offer can't be taken: {invalid}") from invalid
        self._core.fleet.replace_offer(self._host.id, tuple(message.models), message.slots)
        assign_waiting(self._core, self._host.id)

    def _resources(self, message: Resources) -> None:
        note_resources(self._core, self._host, message.of)

    def _report(self, message: Report) -> None:
        answer = self._inquiries.pop(message.inquiry, None)
        if answer is not None and not answer.done():
            answer.set_result(message.body if is_relayable(message.body) else b"")

    # -- out -----------------------------------------------------------------------------------------------------

    def _send_head(self) -> None:
        # The head may be a second older than what was settled last, so that one more follows.
        more = self._loop.time() - self._settled_s < HEAD_EVERY_S
        self._head_timer = self._loop.call_later(HEAD_EVERY_S, self._send_head) if more else None
        core = self._core
        head, record = core.state(LostCommits).signed_head, core.db.record
        if self.open and record is not None and head and head != self._head:
            self._head = head
            self.post(ConfirmedHead(record.files.record, head))

    def _ack(self, lease: bytes, next_seq: int) -> None:
        self._acks[lease] = next_seq
        if self._ack_timer is None:
            self._ack_timer = self._loop.call_later(ACK_EVERY_S, self._flush_acks)

    def _flush_acks(self) -> None:
        self._ack_timer = None
        if self._acks and self.open:
            self.post(Acks([Have(lease, seq) for lease, seq in self._acks.items()]))
        self._acks = {}

    async def _send_forever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._outbox = self._outbox, []
            if batch:
                await self._socket.send_bytes(encode(batch))
            if not self.open:
                await self._socket.close(1000, "goodbye")
                return


class ProtocolBroken(Exception):
    """The worker sent something that the link does not allow; the connection is closed with the reason."""


def _have(job: LiveJob, lease: bytes) -> Have:
    """Return how many frames of *job* are here, and how long its answer may be where its buyer did not say."""
    if job.growth is None:
        return Have(lease, len(job.frames), True)
    return Have(lease, len(job.frames), True, bound_of(job), not job.grows)


def _check_offer(message: Hello | Models, kinds: Kinds) -> None:
    """Check a worker's offer; one without models means that its engines are unavailable.

    Raises:
        InvalidField: a price, a length or a count is out of bounds.
    """
    if message.models:
        check_offer(tuple(message.models), message.slots, kinds)
    elif not 1 <= message.slots <= SLOTS_MAX:
        raise InvalidField("slots", f"must be 1 to {SLOTS_MAX}")


def follow_loss(core: Core) -> None:
    """From now on, have linked workers hand in receipts when they are wanted, and link anew when the loss has ended."""

    def collect(event: ReceiptsWanted) -> None:
        for channel in list(core.channels.values()):
            if isinstance(channel, Session):
                channel.collect_receipts()

    def link_anew(event: LossEnded) -> None:
        core.state(HandedIn).clear()
        for channel in list(core.channels.values()):
            if isinstance(channel, Session):
                channel.link_anew()

    core.events.subscribe(ReceiptsWanted, collect)
    core.events.subscribe(LossEnded, link_anew)


async def say_goodbye(core: Core, *, reason: str, reconnect_after_s: float) -> None:
    """Close every worker's connection from our side; workers reconnect by themselves."""
    sessions: list[Any] = [channel for channel in core.channels.values() if isinstance(channel, Session)]
    for session in sessions:
        session.post(Bye(reason, reconnect_after_s))
        session.open = False
    await asyncio.sleep(0)
