"""A job in flight: its frames in memory, and its state transitions.

A live job holds its frames from 0 on, so a reader may start anywhere and replay; a slow reader only falls behind and
never slows down the host or another reader. When the job ends, its frames become one row.

Every slot is written only here and in `comptoir.jobs.live_jobs`. A transition asserts the states that it may start
from; one that is made before the database has confirmed it returns a `Change`, which can undo it.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from operator import attrgetter

from comptoir.jobs.answer import FRAME_OVERHEAD_BYTES, StoredAnswer, decode_frames, encode_frames
from comptoir.jobs.change import Change, Touches
from comptoir.jobs.growth import Growth
from comptoir.jobs.lease import ClosedSegment, Lease
from comptoir.jobs.types import FINAL, AttemptRow, Fault, JobRow, JobState
from comptoir.kinds import (
    Kind,
    Kinds,
    Resume,
    Size,
    Stage,
    Terms,
    bounding_bytes,
    decode_stages,
    encode_stages,
    joined,
)
from comptoir.link import Frame, FramesRead, Usage, hash_start, read_frames

FRAME_BYTES_MAX = 64 * 1024 * 1024
"""Most bytes of text and extras in one answer, if the caller gives no bound."""

RESTARTED = "answer_restarted", "the answer had to be restarted on another host; read it again from the start"
"""Code and message for a reader that has seen frames which are no longer part of the answer."""

OWNER_UNKNOWN = b"?"
"""Value of a mirror's `LiveJob.owner_node` while its owner is not known."""

_CLOSING = Touches("closing", relied_on=("closing", "owner_node", "refused"))
_BLAMED = Touches("tried", "losses", relied_on=("tried", "losses"))
_ACCUSED = Touches("accusers", relied_on=("accusers",))


class LiveJob:
    """A job that is unfinished, or has ended only recently."""

    __slots__ = (
        "id", "owner_id", "dialect", "kind", "model", "body", "terms", "stages", "detached", "deadline_ms", "created_ms", "state",
        "events", "frames", "frame_bytes", "has_extras", "running_hash", "_claimed", "_size", "_measured",
        "lease", "host_id", "first_frame_s", "submitted_s", "started_ms", "usage", "finish_reason", "fault", "error_code",
        "error_message", "error_status", "error_body", "retry_after_s", "cost_uusd", "receipt_id", "closing",
        "refused", "_text_only", "tried", "accusers",
        "answers", "home_id", "owner_node", "restarts", "segments", "unable", "losses", "broken_s", "hedge", "restarted_at",
        "_waiters", "_enders", "__weakref__", "broken_off", "_body_sha256", "caller", "needs", "own_money", "ceilings", "quoting",
        "whole", "growth", "passed_ms",
    )  # fmt: skip

    def __init__(
        self, *, id: bytes, owner_id: bytes, dialect: str, kind: Kind, model: str, body: bytes, terms: Terms, detached: bool,
        deadline_ms: int, created_ms: int, submitted_s: float, stages: tuple[Stage, ...] = (), answers: int = 1,
        caller: str = "", home_id: bytes | None = None, needs: bytes | None = None, ceilings: tuple[int, ...] = (),
        whole: bool = False, dearest: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        self.id, self.owner_id, self.dialect = id, owner_id, dialect
        self.kind = kind
        """What is bought: the kind says how the work is counted, checked and resumed."""
        self.model = model
        """The model; for several stages, that of the current one."""
        self.body, self.terms, self.growth = body, terms, Growth(dearest) if terms.grows_by else None
        self.stages = stages
        """Stages that run one after the other, each completed by one host; empty: a single model."""
        self.detached, self.deadline_ms = detached, deadline_ms
        self.created_ms, self.submitted_s = created_ms, submitted_s
        self.state = JobState.QUEUED
        self.events = 1
        """Number of the next row in job_events; row 0 is the queued event."""
        self.frames: list[Frame] = []
        self.frame_bytes, self.has_extras = 0, False
        """Bytes of all frames, and whether something stands beside the text in any of them."""
        self.running_hash = hash_start(id)
        self._claimed = 0
        """Units as counted by the frames, whatever their hosts claim."""
        self._size: Size = (0, 0)
        """Bytes of output in the first `_measured` frames; the others are measured when it is asked for, together."""
        self._measured = self.passed_ms = 0
        """Of a timed kind: milliseconds between the start of the lease and the arrival of the units counted last."""
        self.lease: Lease | None = None
        self.host_id: bytes | None = None
        self.first_frame_s, self.started_ms, self.usage, self.fault = 0.0, 0, Usage(), Fault.NONE
        self.finish_reason = self.error_code = self.error_message = ""
        self.error_status, self.error_body, self.retry_after_s, self.cost_uusd = 0, b"", 0.0, 0
        self.receipt_id: bytes | None = None
        self.closing = False
        """Set while the end is being written, so that the job is not ended twice."""
        self._body_sha256 = b""
        self._text_only: bool | None = None
        self.refused = False
        """Set when the submit was refused after a host had begun: nothing about the job may be written or published."""
        self.tried: frozenset[bytes] = frozenset()
        """Hosts that failed on the job, or were lost while running it."""
        self.answers = answers
        """Texts requested; not stored, so after a restart the job needs a host with room for all of them in one."""
        self.home_id = home_id
        """Coordinator that the client of an attached job is connected to."""
        self.owner_node = b""
        """The other coordinator that owns the job, which makes this object a mirror. Empty: the job is ours."""
        self.caller, self.needs = caller, needs
        """Caller's address, if it decides who may run or see the job; and requirements on the host, as stored."""
        self.whole = whole
        """Whether its buyer gets the answer whole or not at all, so that one that breaks off is worth nothing."""
        self.own_money = False
        """Whether its buyer's own money covers its hold; if not, promotional credit may pay for it."""
        self.restarts = 0
        """How often the answer restarted after part of it may have been seen."""
        self.segments: list[ClosedSegment] = []
        """What hosts with closed leases delivered, in frame order; without the open lease's part."""
        self.unable: frozenset[bytes] = frozenset()
        """Hosts that reported that they can't continue from its frames; they are not at fault."""
        self.accusers: frozenset[bytes] = frozenset()
        """Hosts that called its request bad, which is not believed yet (`comptoir.dispatch.second_opinion`)."""
        self.losses = 0
        """Attempts that ended by the host's fault."""
        self.broken_s = 0.0
        """Monotonic time since which the stream is interrupted because a host was lost; 0: it is not."""
        self.hedge: Lease | None = None
        """Lease of a second host, started because the first frame is late; not stored until that host delivers."""
        self.restarted_at: list[tuple[int, int]] = []
        """Each restart that this process saw: its number, and the frame at which the answer restarted."""
        self.broken_off = False
        """Set only by `break_off`. An error code can't tell this, because hosts choose the code their job ends with."""
        self.ceilings = ceilings
        """Most micro-dollars that each part may be held at if quoted anew, not stored; empty: the hold is final."""
        self.quoting: asyncio.Future[None] | None = None
        """Done once it is known whether new terms were written; the job can't be ended before."""
        self._waiters: list[asyncio.Future[bool]] = []
        """Waiting readers; the result is True for one that gave up, False when there is something to read."""
        self._enders: list[asyncio.Future[None]] = []

    @classmethod
    def revived(cls, row: JobRow, *, kinds: Kinds, now_s: float) -> "LiveJob":
        """Return the job of a stored row, with its terms and its end, but without frames and lease."""
        job = cls(
            id=row.id, owner_id=row.owner_id, dialect=row.dialect, kind=kinds.stored(row.kind), model=row.model, body=row.body,
            terms=row.terms, stages=decode_stages(row.steps), detached=bool(row.detached), deadline_ms=row.deadline_ms,
            created_ms=row.created_ms, submitted_s=now_s, caller=row.caller or "", home_id=row.home_id,
            needs=row.needs, whole=bool(row.whole),
        )  # fmt: skip
        job.state = JobState(row.state)
        job.restarts = row.restarts or 0
        job.note_end(row, b"")
        return job

    def note_end(self, row: JobRow, details: bytes) -> None:
        """Copy the stored job's end and progress, except its state; *details* is its engine's usage JSON."""
        self.host_id = row.host_id
        self.started_ms = row.started_ms or 0
        self.cost_uusd = row.cost_uusd
        self.usage = Usage(row.prompt_tokens, row.completion_tokens, details)
        self.finish_reason = row.finish_reason or ""
        self.fault = Fault(row.fault or "")
        self.error_code, self.error_message = row.error_code or "", row.error_message or ""

    def as_row(self) -> JobRow:
        """Return the unfinished job as stored, for the coordinator that takes it over."""
        return JobRow(
            id=self.id, owner_id=self.owner_id, dialect=self.dialect, kind=self.kind.name, model=self.model, state=self.state,
            body=self.body, prompt_tokens_max=self.terms.input_max, max_tokens=self.terms.output_max,
            price_in_uusd_per_mtok=self.terms.rate_in, price_out_uusd_per_mtok=self.terms.rate_out,
            hold_uusd=self.terms.hold_uusd,
            detached=int(self.detached), deadline_ms=self.deadline_ms, created_ms=self.created_ms, started_ms=None,
            finished_ms=None, host_id=None, attempt_id=None, prompt_tokens=0, completion_tokens=0, cost_uusd=0,
            finish_reason=None, fault=None, error_code=None, error_message=None, node_id=None, home_id=self.home_id,
            restarts=self.restarts, caller=self.caller or None, steps=encode_stages(self.stages), needs=self.needs,
            whole=int(self.whole) or None, grows_by=self.terms.grows_by or None,
        )  # fmt: skip

    @property
    def grows(self) -> bool:
        """Whether its bound may still be raised: its buyer named none, and neither credit nor context is used up."""
        return self.growth is not None and not self.growth.ended_by

    @property
    def text_only(self) -> bool:
        """Whether a text-only host can be given it; computed once."""
        if self._text_only is None:
            self._text_only = self.kind.text_only(self.body)
        return self._text_only

    @property
    def on_last_stage(self) -> bool:
        """Whether the current stage is the last."""
        return not self.stages or self.kind.stage(self) == len(self.stages) - 1

    @property
    def has_partial_stage(self) -> bool:
        """Whether part of the current stage was delivered, so that it has to be continued or run again."""
        return len(self.frames) > self.kind.stage_start(self)

    def wrong_output(self, *, finish_reason: str, usage: Usage) -> str:
        """Return why what the open lease delivered is no valid output of the job's kind; empty: it is valid."""
        kind = self.kind
        if wrong := kind.wrong_output(self, finish_reason=finish_reason, usage=usage):
            return wrong
        if usage.prompt_tokens and kind.input is None:
            return f"of a {kind.name} nothing is counted that goes in, not {usage.prompt_tokens}"
        if self.stages and self.segment_claim > (most := kind.part(self).output_max):
            # Paying for it would take from what the hold has for later stages.
            return f"this stage is at most {kind.output.format(most)}, not {self.segment_claim:,}"
        return ""

    def finished_already(self) -> str:
        """Return the finish reason if the answer or stage is complete, reported or not; empty: it is not."""
        reason = self.kind.finished_already(self)
        return reason if reason and not self.wrong_output(finish_reason=reason, usage=Usage()) else ""

    @property
    def must_be_continued(self) -> bool:
        """Whether only a host that can continue from its frames qualifies; if the stage is run again, any does."""
        return self.has_partial_stage and self.kind.resume(self) is not Resume.FROM_STAGE

    @property
    def body_sha256(self) -> bytes:
        """SHA-256 of the request body as sent over the link; computed once."""
        if not self._body_sha256:
            self._body_sha256 = hashlib.sha256(self.body).digest()
        return self._body_sha256

    @property
    def count(self) -> int:
        """Units of output delivered so far that may be billed: no more than its bytes can stand for."""
        here = self.segment_count
        return here + sum([segment.count for segment in self.segments]) if self.segments else here

    @property
    def segment_count(self) -> int:
        """Units since the last closed segment that may be billed: those of the open lease."""
        return self.kind.billable(self.segment_claim, bounding_bytes(self.segment_size), self.passed_ms)

    @property
    def segment_claim(self) -> int:
        """Units in the frames since the last closed segment, as the host of the open lease counts them."""
        return self._claimed - sum([segment.claimed for segment in self.segments]) if self.segments else self._claimed

    @property
    def segment_size(self) -> Size:
        """Bytes of output since the last closed segment: shown, and padding."""
        if self._measured == len(self.frames) and not self.segments:
            return self._size
        solid, blank = self._size
        if self._measured < len(self.frames):
            text, extras = joined(self.frames[self._measured :], plain=not self.has_extras)
            shown, padding = self.kind.output_in(text, extras)
            self._size = solid, blank = solid + shown, blank + padding
            self._measured = len(self.frames)
        for segment in self.segments:
            solid, blank = solid - segment.size[0], blank - segment.size[1]
        return solid, blank

    @property
    def claimed_beyond(self) -> int:
        """Units in the frames of closed segments that are not billed. The next host is asked for as many more, because
        it deducts from the job's bound what the frames before its own say."""
        return sum([segment.claimed - segment.count for segment in self.segments]) if self.segments else 0

    @property
    def claim(self) -> int:
        """Units delivered, those of the open lease as its host counts them: what its bound is compared with."""
        return self._claimed - self.claimed_beyond

    def claims_beyond(self, claimed: int) -> bool:
        """Tell whether the host of the open lease claims more units than what it delivered can stand for."""
        return claimed > self.kind.believed(claimed, bounding_bytes(self.segment_size), self.passed_ms)

    def note_time(self, now_s: float) -> None:
        """Note that the host under lease counts units of time, which arrived now."""
        assert self.lease is not None and self.kind.timed
        self.passed_ms = self.lease.passed_ms(now_s)

    @property
    def segment_start(self) -> int:
        """Number of the first frame that belongs to no closed segment."""
        return self.segments[-1].end_frame if self.segments else 0

    def close_segment(self, lease: Lease, *, unpaid: bool, signature: bytes = b"", count: int | None = None) -> bytes:
        """Close the segment that *lease* delivered, if there is any; return its frames, encoded for the journal.

        In a job with stages the segment is a whole stage, and the job moves to the next.

        Args:
            count: how many of its units may be billed, as stored; None: as counted here.
        """
        start = self.segment_start
        if len(self.frames) == start:
            return b""
        if count is None:
            count = self.segment_count if self.kind.pays_lost else 0
        # A new list, so that an undo can restore the old one.
        self.segments = [
            *self.segments,
            ClosedSegment(
                lease, len(self.frames), self.running_hash, count, unpaid, signature, self.segment_claim, self.segment_size,
                self.passed_ms,
            ),
        ]  # fmt: skip
        self.passed_ms = 0
        self._note_stage()
        return encode_frames(self.frames[start:])

    def begin_stage(self) -> None:
        """Forget which hosts failed on the previous stage, or called it bad: they may run this one."""
        self.tried, self.unable, self.accusers, self.losses = frozenset(), frozenset(), frozenset(), 0

    def _note_stage(self) -> None:
        if self.stages:
            self.model = self.stages[self.kind.stage(self)].model

    def restart(self, *, keep: int | None = None) -> None:
        """Restart the answer at frame *keep* (default: after the last here), though more may have been seen; count it.

        Frames from *keep* on are dropped. Readers that have read beyond it are ended (`Reader.outdated`), because the
        new frames do not continue what they have; the others continue.
        """
        self.restarts += 1
        at = len(self.frames) if keep is None else keep
        if at < len(self.frames):
            assert at >= self.segment_start, "frames in the journal are kept"
            kept, self.frames = self.frames[:at], []
            self.frame_bytes, self._claimed, self.running_hash = 0, 0, hash_start(self.id)
            self._size, self._measured, self.has_extras = (0, 0), 0, False
            self.append(kept)
        self.restarted_at.append((self.restarts, at))
        self.wake()

    def note_restarts(self, restarts: int) -> None:
        """Note that the answer restarted elsewhere; the frames here are valid, those that readers have beyond not."""
        if restarts > self.restarts:
            self.restarts = restarts
            self.restarted_at.append((restarts, len(self.frames)))
            self.wake()

    def revive_segments(
        self, attempts: Sequence[AttemptRow], pieces: Sequence[bytes], *, signing: frozenset[bytes]
    ) -> None:
        """Restore the closed segments from the journal, after this process took the job over.

        Args:
            attempts: of this job. Those that delivered follow each other by their frames, not by their ids: the clocks
                of the coordinators that made them may differ by hours.
            pieces: the journal's rows in frame order; together they hold all frames of the closed segments.
            signing: hosts that sign their segments.
        """
        self._note_stage()
        closed = [row for row in attempts if row.ended_ms is not None and row.end_frame > row.first_frame]
        closed.sort(key=attrgetter("first_frame"))
        for row, piece in zip(closed, pieces, strict=True):
            lease = Lease.stored(
                row, self.terms, model=self.model, first_frame=row.first_frame, hash_before=self.running_hash,
                now_s=self.submitted_s, signs=row.host_id in signing,
            )  # fmt: skip
            self.append(decode_frames(piece))
            count = None
            if self.kind.timed:  # Of the time that passed, what was believed is stored.
                self.passed_ms = count = row.tokens
            # No hash is stored for a host that could not vouch for its frames.
            self.close_segment(lease, unpaid=row.chain is None, signature=row.signature or b"", count=count)

    # -- transitions ---------------------------------------------------------------------------------------------

    def begin_running(self, lease: Lease) -> None:
        """queued -> running: the job is given to the host of *lease*, which is written."""
        assert self.state is JobState.QUEUED and self.lease is lease and not self.closing
        self.state = JobState.RUNNING
        self.started_ms = self.started_ms or lease.started_ms

    def begin_closing(self) -> Change:
        """Mark that the end is being written, so that nothing else ends the job. Once undone, it can be ended again."""
        assert not self.closing and not self.over
        before = _CLOSING.values(self)
        self.closing = True
        return Change(self, _CLOSING, before)

    def end(
        self, state: JobState, *, cost_uusd: int, usage: Usage, finish_reason: str, fault: Fault, error_code: str,
        error_message: str, error_status: int, error_body: bytes, retry_after_s: float, host_id: bytes | None,
    ) -> None:  # fmt: skip
        """queued or running -> completed, failed, cancelled or expired, once written. Call `wake` after all else."""
        assert state in FINAL and not self.over
        self.host_id = host_id
        self.cost_uusd, self.usage, self.finish_reason = cost_uusd, usage, finish_reason
        self.fault, self.error_code, self.error_message = fault, error_code, error_message
        self.error_status, self.error_body, self.retry_after_s = error_status, error_body, retry_after_s
        self.events += 1
        self._final(state)

    def _final(self, state: JobState) -> None:
        self.receipt_id = self.id
        self.owner_node = b""
        self.state = state

    def note_first_frame(self, now_s: float) -> None:
        """Note that the host under lease has begun to deliver, so the stream is no longer interrupted."""
        self.first_frame_s = self.first_frame_s or now_s
        self.broken_s = 0.0

    def begin_quote(self) -> None:
        """Note that new terms are being written, with a lease or for the one that is open (`dispatch.extend`)."""
        assert self.quoting is None and not self.closing
        self.quoting = asyncio.get_running_loop().create_future()

    def end_quote(self, new: tuple[Terms, tuple[Stage, ...]] | None, *, own_money: bool) -> None:
        """Take over *new* terms and stages, which are written; None: they were refused, and all is as before."""
        assert self.quoting is not None
        if new is not None:
            (self.terms, self.stages), self.own_money = new, own_money
        self.quoting.set_result(None)
        self.quoting = None

    def may_cost(self, ceilings: Iterable[int]) -> None:
        """Note other bounds of new quotes; empty: its buyer can't pay more than is held."""
        self.ceilings = tuple(ceilings)

    def begin_hedge(self, lease: Lease) -> None:
        """Note a second host that starts on the job, beside the one under lease."""
        assert self.lease is not None and self.hedge is None and not self.closing
        self.hedge = lease

    def end_hedge(self) -> Lease | None:
        """Forget the second host, whether it won or lost; return its lease, None if there is no second host."""
        lease, self.hedge = self.hedge, None
        return lease

    def blame(self, host_id: bytes, *, again: bool) -> Change:
        """Count a failed attempt as the host's fault; the host won't get the job again unless *again* is set."""
        before = _BLAMED.values(self)
        self.losses += 1
        if not again:
            self.tried = self.tried | {host_id}
        return Change(self, _BLAMED, before)

    def accuse(self, host_ids: Iterable[bytes]) -> Change:
        """Note hosts that call its request bad; they are not at fault, and are not asked again."""
        before = _ACCUSED.values(self)
        self.accusers = self.accusers.union(host_ids)
        return Change(self, _ACCUSED, before)

    def note_tried(self, hosts: Iterable[bytes]) -> None:
        """Note hosts that failed on the job before it came here; each counts as a failed attempt."""
        self.tried = self.tried.union(hosts)
        self.losses = max(self.losses, len(self.tried))

    def note_unable(self, host_id: bytes) -> None:
        """Note a host that can't continue from its frames and is not at fault."""
        self.unable = self.unable | {host_id}

    def recall(self, stored: StoredAnswer) -> None:
        """Add the stored answer to a finished job that was read without it; its running hash and its count, for which
        nobody asks any more (`LiveJob.usage` has what was billed), stay as they were.

        Idempotent: two readers of a job may have loaded it at the same time.
        """
        assert self.over
        if self.frames:
            return
        self.frames, self.frame_bytes, self.has_extras = stored.frames, stored.frame_bytes, stored.has_extras
        self.usage = Usage(self.usage.prompt_tokens, self.usage.completion_tokens, stored.details)

    # -- jobs that another coordinator owns, or owned ------------------------------------------------------------

    def owned_by(self, node_id: bytes) -> None:
        """Set the owner that this mirror follows; empty: not yet known."""
        assert not self.over
        # Never empty for a mirror: that distinguishes it from a job of ours.
        self.owner_node = node_id or OWNER_UNKNOWN

    def follow_owner(self, state: JobState, *, host_id: bytes | None, started_ms: int, restarts: int) -> None:
        """Copy the state of the owner's job unless that is final; an end comes by `end` or `end_as_stored`."""
        assert self.owner_node and not self.over
        if state not in FINAL:
            self.state = state
        self.host_id, self.started_ms = host_id, started_ms
        self.note_restarts(restarts)

    def end_as_stored(self, row: JobRow, details: bytes) -> None:
        """End the mirror as its row says; *details* is its engine's usage JSON."""
        assert self.owner_node and not self.over and row.state in FINAL
        self.note_end(row, details)
        self._final(JobState(row.state))

    def break_off(self) -> None:
        """End a mirror's readers, whose frames are no longer part of the answer; the job itself continues elsewhere."""
        assert not self.over
        (self.error_code, self.error_message), self.error_status = RESTARTED, 502
        self.state, self.broken_off = JobState.FAILED, True
        self.wake()

    def note_own_money(self, covers: bool) -> None:
        """Note whether its buyer's own money covers its hold, as the ledger says."""
        self.own_money = covers

    def accept_offer(self, row: JobRow, *, events: int, answers: int, tried: Iterable[bytes]) -> None:
        """Make the mirror a queued job with the state its owner reports: it is offered here and about to be leased.

        Its terms too are those of *row*: it may have been quoted anew since it was read here.
        """
        assert self.owner_node and self.lease is None and not self.frames
        self.state = JobState.QUEUED
        self.body, self.events, self.answers = row.body, events, answers
        self.terms, self.stages = row.terms, decode_stages(row.steps)
        self.tried = self.tried.union(tried)

    def resume_events(self, *, events: int) -> None:
        """Make the job ours, as read from the database: queued until its lease is found (`LiveJobs.reattach`)."""
        assert self.lease is None
        self.state = JobState.QUEUED
        self.events = events

    # ------------------------------------------------------------------------------------------------------------

    @property
    def may_be_leased(self) -> bool:
        """Whether a host may be given it: it is queued, without a lease, and no end of it is being written."""
        return self.state is JobState.QUEUED and self.lease is None and not self.closing

    @property
    def watched(self) -> bool:
        """Whether a client here waits for its frames or its end."""
        return bool(self._waiters or self._enders)

    def become_stored(self, stored: "LiveJob", *, open_attempt: bool) -> bool:
        """Become the job just read as *stored*, keeping the frames shown here; False: they are not part of its answer.

        Args:
            open_attempt: a host holds a lease, so there may be more frames than those stored.
        """
        held, common = len(self.frames), min(len(self.frames), len(stored.frames))
        if held > len(stored.frames) and not open_attempt:
            return False
        if self.frames[:common] != stored.frames[:common]:
            return False
        self.note_restarts(stored.restarts)
        self.append(stored.frames[held:])
        # It may have been quoted anew since it was read here.
        self.terms, self.stages = stored.terms, stored.stages
        self.body, self.state, self.events, self.model = stored.body, stored.state, stored.events, stored.model
        self.segments, self.started_ms = stored.segments, stored.started_ms
        self.closing = False
        return True

    @property
    def over(self) -> bool:
        """True once the job is in a final state and settled."""
        return self.state in FINAL

    def append(self, items: list[Frame], read: FramesRead | None = None, *, bytes_max: int | None = None) -> bool:
        """Append frames and wake readers; False: the answer would exceed *bytes_max*, no change.

        *read* is what they say, where somebody has read them already, after `running_hash`.
        """
        read = read or read_frames(self.running_hash, items)
        # In bytes, because the next host gets all of it in one message.
        size = self.frame_bytes + read.size + FRAME_OVERHEAD_BYTES * len(items)
        if size > (FRAME_BYTES_MAX if bytes_max is None else bytes_max):
            return False
        self.running_hash, self.frame_bytes = read.running_hash, size
        self._claimed += read.claimed
        self.has_extras = self.has_extras or bool(read.extras)
        self.frames += items
        self.wake()
        return True

    def wake(self) -> None:
        """Tell every waiting reader that there is something to read."""
        waiters = self._waiters
        if waiters:
            self._waiters = []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(False)
        if self._enders and self.state in FINAL:
            for ender in self._enders:
                if not ender.done():
                    ender.set_result(None)
            self._enders = []

    async def ended(self) -> None:
        """Wait until the job is over; its frames do not wake this."""
        if not self.over:
            ender = asyncio.get_running_loop().create_future()
            self._enders.append(ender)
            await ender

    def encode_frames(self) -> bytes:
        """Return all frames as stored in ``answers``; empty when there are none."""
        return encode_frames(self.frames)
