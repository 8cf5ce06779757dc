"""Runs jobs: one task per lease reads its engine, numbers and hashes the frames, and signs what was delivered.

Token counts in the segment: ``completion_tokens`` is the sum of the frames' own counts, so that the coordinator can
check it against what arrived. `Done.usage` is the engine's count, unchanged; an engine that counted more tokens than
its frames showed adds a last frame for them (see `openai_answer.AnswerReader.last`). A frame says no more than what was
delivered can stand for (`UnitTally`): hidden tokens, of which the buyer got no byte, are not paid.

The files of a job (`worker.files`) are erased when its engine has ended, before or after the lease is settled.

A cancelled lease is closed with a signed ``Done`` whose finish reason is ``cancelled``: the host's statement of all
frames it sent. A coordinator that has settled already may ignore it, as it ignores one that crossed its ``Cancel``.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping

import msgspec

from comptoir.kinds import FINISH_REASON_CHARS_MAX
from comptoir.kit.clock import Clock
from comptoir.kit.ids import public
from comptoir.kit.signing import SigningKey
from comptoir.link import (
    COUNT_MAX,
    USAGE_BYTES_MAX,
    Cancel,
    Done,
    Fail,
    Frame,
    Job,
    Segment,
    Settled,
    Usage,
    segment_bytes,
)
from comptoir.worker.engines.base import Engine, EngineError, EngineRequest, Finish
from comptoir.worker.engines.context_overflow import is_overflow, overflow
from comptoir.worker.engines.hidden import without_addresses
from comptoir.worker.events import JobDone, JobFailed, JobStarted, OnEvent, ignore
from comptoir.worker.files import HostFiles, LeaseFiles
from comptoir.worker.leases import FrameTooBig, LeaseTable, WorkerLease, as_believed, prefix_hash

_log = logging.getLogger(__name__)

FRAMES_PER_TURN = 64
"""Frames taken from an engine that never waits before the event loop gets a turn (about half a millisecond)."""

ENGINE_END_S = 1.0
"""How long an engine may take to end after its `Finish` (to return its connection to a pool) before it is closed."""

UNAVAILABLE = 503
"""HTTP status of a server that is busy, or of a proxy whose server is gone."""

ERROR_BODY_MAX = 16 * 1024
"""Most bytes of an engine's error body that go over the link."""

ERROR_MESSAGE_MAX = 2000
"""Most characters of an error message that go over the link."""

STOPPED = "cancelled"
"""Finish reason of a lease that ends because the coordinator cancelled it."""


class JobRunner:
    """Accepts jobs up to *slots* at once and runs each on the engine that serves its model.

    *engines* maps model names to engines and may be replaced as a whole by `offer`. *host_id* is set by the uplink
    from `Welcome` before any job can arrive.
    """

    def __init__(
        self,
        *,
        table: LeaseTable,
        signing_key: SigningKey,
        slots: int,
        clock: Clock | None = None,
        on_event: OnEvent = ignore,
        on_trouble: Callable[[Engine], None] = lambda engine: None,
        files: HostFiles | None = None,
    ) -> None:
        """*on_trouble* is called with an engine at which a job has failed that was not at fault itself.

        *files* makes those of jobs whose kind has files.
        """
        self.host_id = ""
        self.draining = False
        self.slots = slots
        self._table = table
        self._signing_key = signing_key
        self._clock = clock or Clock()
        self._on_event = on_event
        self._on_trouble = on_trouble
        self._files = files
        self._engines: Mapping[str, Engine] = {}
        self._tasks: dict[bytes, asyncio.Task[None]] = {}

    def offer(self, engines: Mapping[str, Engine]) -> None:
        """Replace which engine serves which model; running jobs keep theirs."""
        self._engines = engines

    def accept(self, job: Job) -> None:
        """Start *job*. A lease that was received before is not run again; one that can't be run is failed at once."""
        if self._table.seen(job.lease):
            return
        full = self._table.running >= self.slots
        held = self._table.open(job)
        engine = self._engines.get(job.model)
        left_s = (job.left_ms or job.deadline_ms - self._clock.now_ms()) / 1000
        if self.draining:
            self._fail(held, EngineError("draining", "the host takes no new jobs", fault="capacity"))
        elif full:
            self._fail(held, EngineError("slots_full", f"all {self.slots} slots are busy", fault="capacity"))
        elif engine is None:
            self._fail(held, EngineError("model_not_served", f"no engine here serves {job.model!r} now"))
        elif left_s <= 0:
            late = "the job arrived after its deadline, or this host's clock differs from that of an older coordinator"
            self._fail(held, EngineError("deadline", late, fault="coordinator"))
        elif wrong := _wrong_prefix(job):
            self._fail(held, EngineError("prefix_mismatch", wrong, fault="coordinator"))
        else:
            task = asyncio.get_running_loop().create_task(self._run(held, engine, job, left_s))
            self._tasks[job.lease] = task
            task.add_done_callback(lambda _: self._tasks.pop(job.lease, None))

    def cancel(self, message: Cancel) -> None:
        """Stop a lease at once; its slot is free when this returns. Unknown and ended leases are ignored."""
        held = self._table.get(message.lease)
        if held is None or held.closing is not None:
            return
        finish = Finish(finish_reason=STOPPED, usage=Usage(completion_tokens=held.tokens))
        self._table.close(held, self._signed(held, finish))
        self._stop(message.lease)

    def settled(self, message: Settled) -> None:
        """Forget a lease that the coordinator has closed.

        Without a job id, it only means that the coordinator no longer has the lease; what it earned may still follow
        (after a cancellation, once the settlement is written).
        """
        held = self._table.forget(message.lease)
        if held is not None:
            self._stop(message.lease)
            if held.closing is None and not message.job_id:
                self._lost(held, "the coordinator has given the job to another host")
        if message.job_id and (held is not None or message.earned_uusd):
            earned, balance = message.earned_uusd, message.balance_uusd
            if held is None and message.state == "done":
                # A stage that was reported as done before: it is paid when the whole job is over.
                self._on_event(JobDone(message.job_id, "paid", earned, 0, balance, promo_uusd=message.promo_uusd))
                return
            kind = held.kind if held is not None else ""
            self._on_event(
                JobDone(message.job_id, message.state, earned, message.tokens, balance, kind, message.promo_uusd)
            )

    def drop(self, lease: bytes) -> None:
        """Forget a lease that is unknown to the coordinator, and stop its engine."""
        held = self._table.forget(lease)
        if held is None:
            return
        self._stop(lease)
        # A lease that had ended here was most likely settled while the link was down, and the message was lost.
        if held.closing is None:
            self._lost(held, "the coordinator no longer knows the lease")

    def frames_gone(self, held: WorkerLease) -> None:
        """End a lease whose coordinator requests frames that it had acknowledged, and that nobody has any more."""
        fail = Fail(held.lease, "frames_gone", "the coordinator lost frames it had acknowledged", "coordinator")
        self._table.abandon(held, fail)
        self._stop(held.lease)

    async def abandon(self) -> int:
        """Fail every lease whose engine is still running (the worker stops); return how many there were."""
        count = 0
        for held in self._table:
            if held.closing is None:
                self._fail(held, EngineError("host_stopping", "the host went down before the answer was complete"))
                self._stop(held.lease)
                count += 1
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=ENGINE_END_S)
        return count

    def _lost(self, held: WorkerLease, why: str) -> None:
        self._on_event(JobFailed(public("job", held.job_id), "lease_lost", why, "host"))

    def _stop(self, lease: bytes) -> None:
        task = self._tasks.get(lease)
        # A second cancellation would interrupt the engine's clean-up.
        if task is not None and not task.cancelling():
            task.cancel()

    async def _run(self, held: WorkerLease, engine: Engine, job: Job, left_s: float) -> None:
        self._on_event(JobStarted(public("job", job.job_id), job.model, job.kind))
        expiry = asyncio.get_running_loop().call_later(left_s, self._expire, held)
        prefix = as_believed(job.prefix, held.tally.kind)
        open_ended = held.bound_max > 0
        own = held.bound_max or _left_of(job)
        most = own + sum([frame.tokens for frame in prefix]) if own else 0
        files = self._files_of(held, job, left_s)
        request = EngineRequest(
            kind=job.kind, model=job.model, body=job.body, prefix=prefix, max_tokens=most, open_ended=open_ended,
            files=files,
        )  # fmt: skip
        stream: AsyncIterator[Frame | Finish] | None = None
        try:
            stream = engine.run(request)
            finish = await self._pump(held, stream, max_tokens=own)
            if held.closing is not None:
                return
            if finish is None:
                raise EngineError("engine_protocol", "the engine ended without saying how the answer finished")
            if finish.finish_reason == STOPPED:
                # On the link it means that we were told to stop: the next host would get the job, and so on.
                raise EngineError("engine_protocol", f"the engine broke off its answer: {STOPPED}")
            if wrong := _wrong_usage(finish.usage):
                raise EngineError("engine_protocol", wrong)
            if held.tally.kind.timed:
                finish = Finish(finish.finish_reason, _believable(held, job, finish.usage))
            self._table.close(held, self._signed(held, finish))
            await _end(stream, engine.name)
        except EngineError as error:
            if error.fault == "host" or error.status == UNAVAILABLE:
                self._on_trouble(engine)
            begun = held.end_seq > held.start_seq
            self._fail(held, overflow(error, request) if not begun and is_overflow(error) else error)
        except FrameTooBig as error:
            self._fail(held, EngineError("frame_too_big", str(error)))
        except Exception as error:  # An engine's bug must cost its job, not the worker with all other jobs.
            _log.exception("engine %s failed on job %s", engine.name, public("job", job.job_id))
            self._fail(held, EngineError("engine_bug", f"the engine failed: {type(error).__name__}: {error}"))
        finally:
            expiry.cancel()
            try:
                await _close(stream, engine.name)
            finally:
                if files is not None:
                    await files.erase()

    def _files_of(self, held: WorkerLease, job: Job, left_s: float) -> LeaseFiles | None:
        """Return the files of a job whose kind has some; an order that can't be read names none, as its engine says."""
        kind = held.tally.kind
        if self._files is None or not kind.files:
            return None
        try:
            inputs = kind.inputs(job.body)
        except msgspec.DecodeError:
            inputs = ()
        until_s = asyncio.get_running_loop().time() + left_s
        return self._files.of_lease(
            job=public("job", job.job_id), lease=public("att", job.lease), inputs=inputs, until_s=until_s
        )

    async def _pump(
        self, held: WorkerLease, stream: AsyncIterator[Frame | Finish], *, max_tokens: int
    ) -> Finish | None:
        """Move frames from the engine into the lease until `Finish`; wait while the window is full.

        Nobody pays for more than *max_tokens* (> 0): an engine that sends more is stopped with ``length``. A bound that
        may be raised is waited for, and the engine with it; once it is final, the engine is stopped there.
        """
        turn = 0
        async for item in stream:
            if type(item) is Finish:
                if held.bound_max:
                    await self._tell_rest(held)
                return item
            if held.closing is not None:
                return None
            assert type(item) is Frame
            if max_tokens and item.tokens and held.tally.counted + item.tokens > max_tokens:
                left = max_tokens - held.tally.counted
                if left > 0:
                    item = Frame(item.text, left, item.extra)
                elif item.text or item.extra:
                    return Finish("length", Usage(completion_tokens=held.tokens))
                else:
                    continue
            if held.bound_max and item.tokens and not await held.may_go_on():
                if item.text or item.extra:
                    return Finish("length", Usage(completion_tokens=held.tokens))
                continue
            held.add(item)
            if not held.dirty:
                self._table.touch(held)
            if held.full:
                await held.room()
                turn = 0
            elif (turn := turn + 1) >= FRAMES_PER_TURN:
                turn = 0
                await asyncio.sleep(0)
        return None

    async def _tell_rest(self, held: WorkerLease) -> None:
        """Say the tokens of a last frame that was larger than what was left of a bound, once that is raised."""
        while held.tally.untold and await held.may_go_on():
            held.add(Frame("", 0))
            self._table.touch(held)

    def _expire(self, held: WorkerLease) -> None:
        if held.closing is None:
            self._fail(held, EngineError("deadline", "the engine was not done when the job's deadline passed"))
            self._stop(held.lease)

    def _fail(self, held: WorkerLease, error: EngineError) -> None:
        """Fail *held*; this machine's owner reads the error as it is, its buyer without the inside of this machine."""
        said = error.message[:ERROR_MESSAGE_MAX]
        error = without_addresses(error)
        message = error.message[:ERROR_MESSAGE_MAX]
        # Part of a JSON document is useless, so a body that is too long is omitted.
        body = error.body if len(error.body) <= ERROR_BODY_MAX else b""
        fail = Fail(held.lease, error.code, message, error.fault, error.status, body, error.retry_after_s)
        if self._table.close(held, fail):
            self._on_event(JobFailed(public("job", held.job_id), error.code, said, error.fault))

    def _signed(self, held: WorkerLease, finish: Finish) -> Done:
        """Return the closing message with the host's signature over everything this lease delivered."""
        usage, reason = finish.usage, finish.finish_reason[:FINISH_REASON_CHARS_MAX]
        segment = Segment(
            job=public("job", held.job_id),
            attempt=public("att", held.lease),
            host=self.host_id,
            model=held.model,
            input_sha256=held.input_sha256,
            first_frame=held.start_seq,
            end_frame=held.end_seq,
            chain=held.running_hash.hex(),
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.billed(held.tokens),
            finish_reason=reason,
        )
        signature = self._signing_key.sign(segment_bytes(segment))
        return Done(held.lease, held.end_seq, reason, usage, held.running_hash, signature)


def _wrong_prefix(job: Job) -> str:
    """Return what is wrong with the frames that came with *job*; empty: nothing.

    This host signs a running hash over them as well as over its own, so it verifies theirs.
    """
    if len(job.prefix) != job.start_seq:
        return f"the job begins at frame {job.start_seq} and {len(job.prefix)} frames came with it"
    if job.chain and job.chain != prefix_hash(job):
        return "the running hash that came with the job is not that of its frames"
    return ""


def _wrong_usage(usage: Usage) -> str:
    """Return why an engine's counts can't be sent in a message; empty: they can."""
    if not (0 <= usage.prompt_tokens <= COUNT_MAX and 0 <= usage.completion_tokens <= COUNT_MAX):
        return f"the engine counted {usage.prompt_tokens} and {usage.completion_tokens} tokens"
    if len(usage.details) > USAGE_BYTES_MAX:
        return f"the engine's usage object is longer than {USAGE_BYTES_MAX} bytes"
    return ""


def _believable(held: WorkerLease, job: Job, usage: Usage) -> Usage:
    """Return *usage* with no more CPU time than the cores of the order have in the time that is paid: processes that
    are counted from outside show a little more, and would count against this host."""
    kind = held.tally.kind
    most = kind.input_countable(COUNT_MAX, held.tokens, kind.cores(job.body))
    return Usage(min(usage.prompt_tokens, most), usage.completion_tokens, usage.details)


def _left_of(job: Job) -> int:
    """Return how many tokens of a job's bound are left after its prefix; 0: it has no bound."""
    if not job.max_tokens:
        return 0
    # A job whose bound is used up would have been ended, not given to another host.
    return max(1, job.max_tokens - sum(frame.tokens for frame in job.prefix))


async def _end(stream: AsyncIterator[Frame | Finish], name: str) -> None:
    """Briefly let a finished engine end by itself, so that it can keep its connection."""
    try:
        async with asyncio.timeout(ENGINE_END_S):
            await anext(stream, None)
    except TimeoutError:
        _log.debug("engine %s did not end in time after its answer; its stream is closed", name)


async def _close(stream: AsyncIterator[Frame | Finish] | None, name: str) -> None:
    aclose = getattr(stream, "aclose", None)
    if aclose is None:
        return
    try:
        await aclose()
    except Exception:  # The job is over either way; what an engine does wrong while closing is only worth a log line.
        _log.exception("engine %s failed while closing a stream", name)
