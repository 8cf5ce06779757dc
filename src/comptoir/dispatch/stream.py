"""Stream: append a host's frames to the job, in order, and end the attempt when the host reports its end."""

import asyncio
import logging
from typing import Protocol
from weakref import WeakKeyDictionary

from comptoir.dispatch.advance import advance
from comptoir.dispatch.artifacts import check_files
from comptoir.dispatch.assign import revoke_lease
from comptoir.dispatch.contradict import keep_contradiction
from comptoir.dispatch.core import Core, State
from comptoir.dispatch.endings import nobody_left
from comptoir.dispatch.errors import AnswerTooLarge, BadFrame, BadSegment, FramesOutOfOrder
from comptoir.dispatch.extend import extend_if_due
from comptoir.dispatch.meters import Meters
from comptoir.dispatch.second_host import drop_hedge
from comptoir.dispatch.second_opinion import is_believed, note_agreement
from comptoir.dispatch.settle import Ending, finish
from comptoir.hosts import RestingHosts
from comptoir.jobs import AttemptState, Fault, JobState, LiveJob, NotYourLease
from comptoir.kinds import FINISH_REASON_CHARS_MAX, BadExtra, joined, read_extra
from comptoir.kit.inside import body_without_inside, without_inside
from comptoir.link import USAGE_BYTES_MAX, Frame, Usage, read_frames

log = logging.getLogger(__name__)

CANNOT_CONTINUE = "cannot_continue"
"""Code of an engine that can't continue another host's frames, reported before its own first frame."""

RETRY_AFTER_MAX_S = 3600.0
"""Longest time that a host can have its buyer told to wait; beyond a float's reach it was an internal error."""

CODE_CHARS_MAX = 64
"""Most characters of a failure's code that are kept; ours have at most 21."""

SAID_CHARS_MAX = 16 * 1024
"""Most characters of a failure's message that are looked at; a kind keeps fewer. Workers send at most 2,000."""

ERROR_BODY_BYTES_MAX = 16 * 1024
"""Longest error body of an engine that is passed on, as over the native API; half of one would be no JSON."""

STOPPED = "cancelled"
"""Finish reason of a worker that stopped because we told it to: its answer is not complete."""

FAULTS = {"buyer": Fault.BUYER, "host": Fault.HOST, "capacity": Fault.CAPACITY, "coordinator": Fault.COORDINATOR}
"""Fault as workers report it; anything else counts as the host's."""


class GivenBack(State):
    """Hosts that gave a job back because they were told to, by job.

    That is believed once of each host: whoever says it of every attempt would otherwise keep a job for ever, unblamed.
    """

    def __init__(self, core: Core) -> None:
        self._hosts: WeakKeyDictionary[LiveJob, set[bytes]] = WeakKeyDictionary()

    def again(self, job: LiveJob, host_id: bytes) -> bool:
        """Note that *host_id* gives *job* back; tell whether it did before."""
        hosts = self._hosts.setdefault(job, set())
        before = host_id in hosts
        hosts.add(host_id)
        return before


def leased_job(core: Core, host_id: bytes, lease: bytes) -> LiveJob:
    """Return the job that *host_id* holds *lease* on.

    Raises:
        NotYourLease: the host never had it, or it was revoked.
    """
    job = core.jobs.live.by_lease(lease)
    if job is None or job.lease is None or job.lease.host_id != host_id:
        raise NotYourLease
    return job


def fault_of_size(job: LiveJob) -> Fault:
    """Return whose fault it is that an answer is larger than a job may contain."""
    # Outputs of earlier stages count too, which this host did not produce; another host would fail as well.
    return Fault.BUYER if job.kind.stage(job) else Fault.HOST


def unfit(job: LiveJob, error: AnswerTooLarge | BadFrame) -> tuple[str, Fault]:
    """Return the code and the fault that an attempt ends with whose frames were not taken."""
    if isinstance(error, BadFrame):
        return "bad_frame", Fault.HOST
    return "answer_too_large", fault_of_size(job)


def take_frames(core: Core, job: LiveJob, seq: int, items: list[Frame]) -> int:
    """Append frames ``seq, seq+1, …`` to the job; return the number of the next frame expected.

    Idempotent: frames that the job already has are skipped.

    Raises:
        FramesOutOfOrder: *seq* leaves a gap; nothing is appended.
        AnswerTooLarge: more text or units than the job may have; nothing is appended, the attempt should be failed.
        FilesUnseen: they name files that are to be looked for first (`dispatch.artifacts.look`); then call again.
        BadFrame: what stands beside a frame's text is not what the job's kind allows; nothing is appended, and the host
            is to blame.
    """
    lease = job.lease
    assert lease is not None, "frames come through a lease"
    held = len(job.frames)
    if seq > held:
        raise FramesOutOfOrder(expected=held, got=seq)
    fresh = items[held - seq :] if seq < held else items
    if not fresh:
        return held
    now = core.clock.monotonic_s()
    read, bytes_max = read_frames(job.running_hash, fresh), core.settings.answer_bytes_max
    for extra in read.extras:
        _check_extra(job, extra, bytes_max)
    if read.extras and job.kind.files:
        check_files(core, job, read.extras)
    claim, most, size = job.claim + read.claimed, job.terms.output_max, job.frame_bytes
    if most and claim > most + job.kind.output_over_max:
        unit = job.kind.output
        raise AnswerTooLarge(f"the host sent {unit.format(claim)} and {unit.amount(most)} were asked for")
    if not job.append(fresh, read, bytes_max=bytes_max):
        raise AnswerTooLarge("the answer is larger than a job may hold")
    growth = job.growth
    if growth is not None and growth.is_due(job.terms, claim):
        extend_if_due(core, job)
    # Without measuring what is in them, which is done once for all frames: no claim counts for more than its bytes.
    kind = job.kind
    if kind.timed and (read.claimed or kind.used(fresh)):
        job.note_time(now)
    bound = job.segment_count if kind.quiet_s else job.frame_bytes - size
    core.state(Meters).count_frames(len(fresh), kind.output.name, min(read.claimed, bound))
    # Where any frame is a sign of life, how often one comes says nothing of how fast the work is done.
    paced = not kind.quiet_s
    if paced and not (_shows(fresh[0].text) or kind.output_in(*joined(fresh))[0]):
        # Nothing of the answer is in them, so they are no sign that it goes on; at most that the prompt is being read.
        lease.note_reading(now)
        return held + len(fresh)
    fleet = core.fleet
    if not lease.delivers:
        lease.begin_delivery()
        job.note_first_frame(now)
        if job.hedge is not None:
            drop_hedge(core, job, "the first host delivered")
        if paced:
            fleet.first_frame(lease.host_id, lease.model, (now - lease.started_s) * 1000)
    elif paced:
        fleet.frames(lease.host_id, lease.model, (now - lease.touched_s) * 1000 / len(fresh), len(fresh))
    lease.touch(now)
    return held + len(fresh)


def _shows(text: str) -> bool:
    """Tell whether *text* shows anything, quickly for nearly all text; False may be wrong."""
    return text != "" and text.isascii() and text.isprintable() and not text.isspace()


def _check_extra(job: LiveJob, extra: bytes, bytes_max: int) -> None:
    if len(extra) > bytes_max:  # Before it is decoded: 60 MB of vectors take a quarter of a second.
        raise AnswerTooLarge("the answer is larger than a job may hold")
    try:
        job.kind.check_extra(extra)
    except BadExtra as bad:
        raise BadFrame(f"what the host sent beside a frame's text can't be passed on: {bad}") from bad


def clamped(value: float, most: float) -> float:
    """Return *value* within 0 and *most*; what is no number is 0."""
    return min(max(0.0, value), most) if value == value else 0.0


def _too_much_said(finish_reason: str, usage: Usage) -> str:
    """Say what of an end could not be stored in a receipt or shown to a buyer; empty: nothing.

    Refused, not cut: the host's signature is over the reason, and what it counted decides with what is paid.
    """
    if len(finish_reason) > FINISH_REASON_CHARS_MAX:
        return f"its finish reason has {len(finish_reason):,} characters, and {FINISH_REASON_CHARS_MAX} are allowed"
    if usage.details:
        try:
            read_extra(usage.details, dict, bytes_max=USAGE_BYTES_MAX)
        except BadExtra as bad:
            return f"the usage object can't be passed on: {bad}"
    return ""


async def complete(
    core: Core, job: LiveJob, *, finish_reason: str, usage: Usage, signature: bytes = b"", running_hash: bytes = b""
) -> None:
    """End *job* as answered in full, or its current stage.

    *signature* and *running_hash* come from hosts that sign; they are checked first.

    A worker that only stopped (`STOPPED`) ends its attempt but not the job, which another host continues.

    Raises:
        BadSegment: signature or hash do not match, or it says more than can be kept and shown; the attempt ends as
            the host's fault, and what it signed is kept as evidence if only it can have caused that.
        Unavailable: the database is unavailable; the end is written when it is back.
    """
    lease = job.lease
    assert lease is not None, "an end comes through a lease"

    async def dishonest(bad: BadSegment) -> None:
        keep_contradiction(
            core, job, lease, finish_reason=finish_reason, usage=usage, signature=signature, running_hash=running_hash
        )
        await fail(core, job, code="bad_segment", message=str(bad), fault=Fault.HOST, unpaid=True)

    try:
        if running_hash and running_hash != job.running_hash:
            raise BadSegment("the host's running hash differs from the frames it sent")
        if lease.signs and not signature:
            raise BadSegment("the host has a key and did not sign")
        if finish_reason == STOPPED:
            if core.state(GivenBack).again(job, lease.host_id):
                await fail(core, job, code="stopped", message="the host stopped, unasked", fault=Fault.HOST)
                return
            # The coordinator that told it to stop died, or could not write why: incomplete, but not the host's fault.
            await revoke_lease(core, job, lease, "it was told to stop", fault=Fault.COORDINATOR)
            return
        if wrong := _too_much_said(finish_reason, usage):
            raise BadSegment(wrong)
        if wrong := job.wrong_output(finish_reason=finish_reason, usage=usage):
            raise BadSegment(wrong)
        if not job.on_last_stage:
            await advance(core, job, finish_reason=finish_reason, usage=usage, signature=signature)
            return
        ending = Ending(JobState.COMPLETED, finish_reason=finish_reason, usage=usage, signature=signature)
        await finish(core, job, ending, dishonest=dishonest)
    except BadSegment as bad:
        await dishonest(bad)
        raise


class FailureReport(Protocol):
    """A failure as a host reports it, in any message of ours that does."""

    @property
    def code(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def fault(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...
    @property
    def retry_after_s(self) -> float: ...


async def fail_as_reported(core: Core, job: LiveJob, report: FailureReport) -> None:
    """End the attempt as its host reports; raises what `fail` raises.

    That the coordinator is at fault is believed where it can be: the job's time is over, or the lease is older than
    this process. Else any host could end any job, and nobody would be to blame.
    """
    fault = FAULTS.get(report.fault, Fault.HOST)
    if fault is Fault.COORDINATOR and not _may_be_ours(core, job):
        fault = Fault.HOST
    await fail(
        core,
        job,
        code=report.code,
        message=report.message,
        fault=fault,
        status=report.status,
        body=report.body,
        retry_after_s=report.retry_after_s,
    )


def _may_be_ours(core: Core, job: LiveJob) -> bool:
    return core.clock.now_ms() >= job.deadline_ms or (job.lease is not None and job.lease.revived)


async def fail(
    core: Core,
    job: LiveJob,
    *,
    code: str,
    message: str,
    fault: Fault,
    status: int = 0,
    body: bytes = b"",
    retry_after_s: float = 0.0,
    unpaid: bool = False,
    measured: bool = False,
) -> None:
    """End the attempt as failed.

    Unless the buyer is at fault, another host continues the job after what was delivered. That the buyer is takes two
    hosts' word (`second_opinion.is_believed`); whoever says so earns nothing for what it delivered. The buyer gets the
    words of the one that is believed, without addresses inside its network (`kit.inside`). What the host says is cut to
    what can be kept and passed on.

    Args:
        unpaid: this host earns nothing for what it delivered.
        measured: the fault is not the host's word but found here.
        code, message: cut to `CODE_CHARS_MAX` and `SAID_CHARS_MAX`.
        body: the engine's error body; one beyond `ERROR_BODY_BYTES_MAX` counts as none.
        status: HTTP status; any other number counts as none.
        retry_after_s: clamped to `RETRY_AFTER_MAX_S`; anything that is not a duration counts as 0.

    Raises:
        Unavailable: the database is unavailable; call again.
    """
    code, message = code[:CODE_CHARS_MAX], message[:SAID_CHARS_MAX]
    body = body if len(body) <= ERROR_BODY_BYTES_MAX else b""
    if not measured:
        # Hosts without our worker, and older ones of ours, say where their engines are.
        paths = fault is not Fault.BUYER
        message, body = without_inside(message, paths=paths), body_without_inside(body, paths=paths)
    status = status if 100 <= status <= 599 else 0
    retry_after_s = clamped(retry_after_s, RETRY_AFTER_MAX_S)
    lease = job.lease
    assert lease is not None, "a failure comes through a lease"
    if code == CANNOT_CONTINUE and 0 < lease.first_frame == len(job.frames):
        # It reported this before its first frame, so it is not at fault; the job moves to another host.
        job.note_unable(lease.host_id)
        over = nobody_left(job, message, fault=Fault.CAPACITY, state=AttemptState.FAILED)
        await revoke_lease(core, job, lease, message, fault=Fault.NONE, ending=over)
        return
    if fault == Fault.COORDINATOR and lease.revived and len(job.frames) == lease.first_frame:
        # The frames it had delivered died with the previous process: the job starts over, on this host or another.
        await revoke_lease(core, job, lease, message, fault=fault)
        return
    message = job.kind.failure(message, body)
    unpaid = unpaid or (fault is Fault.BUYER and not measured)
    ending = Ending(
        JobState.FAILED,
        attempt_state=AttemptState.FAILED,
        fault=fault,
        code=code,
        message=message,
        status=status,
        body=body,
        retry_after_s=retry_after_s,
        unpaid=unpaid,
    )
    if fault == Fault.CAPACITY:
        pass_over_busy(core, lease.host_id)
    asks_another = fault is Fault.BUYER and not measured and not is_believed(core, job, lease.host_id)
    if fault is Fault.BUYER and job.accusers and not measured and not asks_another:
        note_agreement(core, job, lease.host_id)
    if asks_another or fault in (Fault.HOST, Fault.CAPACITY):
        await revoke_lease(core, job, lease, message, fault=fault, ending=ending, unpaid=unpaid)
    else:
        await finish(core, job, ending)


def pass_over_busy(core: Core, host_id: bytes) -> None:
    """Pass over a host for a while that says again and again that it is busy: each time, a buyer waited for its word.

    Between 0.25 and 15 s (`comptoir.hosts.resting`); its first such word costs it nothing.
    """
    resting = RestingHosts(core.fleet)
    rest_s = resting.note_busy(host_id)
    if rest_s:
        log.info("host %s is passed over for %g s: it says again that it is busy", host_id.hex(), rest_s)
        asyncio.get_running_loop().call_later(rest_s, resting.rested, host_id)
