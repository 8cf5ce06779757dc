"""Jobs in flight: their frames in memory, and the readers that follow them.

A live job knows its frames from 0 on, so any reader may start anywhere and replay; a slow reader only falls behind, it never slows
the host or another reader. Frames become one row when the job ends.
"""

import asyncio
import hashlib
from collections.abc import Sequence

import msgspec

from comptoir.jobs.lease import ClosedSegment, Lease
from comptoir.jobs.types import FINAL, AttemptRow, Fault, JobRow, JobState, Step, decode_steps, encode_steps
from comptoir.link import Frame, Usage, chain_start, chain_step

FRAME_BYTES_MAX = 64 * 1024 * 1024
"""Most bytes of text and extras that one answer may hold where the caller names no bound."""

RECENT_MAX = 1024
RECENT_BYTES_MAX = 16 * 1024
"""Jobs kept in memory after their end, and the largest of them (body and frames): 16 MiB at most."""

RESTARTED = "answer_restarted", "the answer had to begin anew on another host; read it again from its start"
"""Code and message for a reader that has seen what is no longer part of the answer."""

_encode_frames = msgspec.msgpack.Encoder().encode
_decode_frames = msgspec.msgpack.Decoder(list[Frame]).decode


class LiveJob:
    """A job that is not final, or only just so."""

    __slots__ = (
        "id", "owner_id", "dialect", "kind", "model", "body", "max_tokens", "prompt_tokens_max", "price_in", "price_out",
        "hold_uusd", "detached", "deadline_ms", "created_ms", "state", "events", "frames", "frame_bytes", "chain", "tokens",
        "lease", "host_id", "first_frame_s", "submitted_s", "started_ms", "usage", "finish_reason", "fault", "error_code",
        "error_message", "error_status", "error_body", "retry_after_s", "cost_uusd", "receipt_id", "closing",
        "refused", "plain", "tried",
        "answers", "home_id", "owner_node", "restarts", "segments", "unable", "losses", "broken_s", "hedge", "anew", "_waiters",
        "_enders", "_body_sha256", "caller", "steps",
    )  # fmt: skip

    def __init__(
        self, *, id: bytes, owner_id: bytes, dialect: str, kind: str, model: str, body: bytes, max_tokens: int,
        prompt_tokens_max: int, price_in: int, price_out: int, hold_uusd: int, detached: bool, deadline_ms: int,
        created_ms: int, submitted_s: float,
    ) -> None:  # fmt: skip
        self.id = id
        self.owner_id = owner_id
        self.dialect = dialect
        self.kind = kind
        self.model = model
        self.body = body
        self.max_tokens = max_tokens
        self.prompt_tokens_max = prompt_tokens_max
        self.price_in = price_in
        self.price_out = price_out
        self.hold_uusd = hold_uusd
        self.detached = detached
        self.deadline_ms = deadline_ms
        self.created_ms = created_ms
        self.submitted_s = submitted_s
        self.state = JobState.QUEUED
        self.events = 1
        """Number of the next row in job_events; row 0 says queued."""
        self.frames: list[Frame] = []
        self.frame_bytes = 0
        self.chain = chain_start(id)
        self.tokens = 0
        """Tokens delivered so far, as frames count them."""
        self.lease: Lease | None = None
        self.host_id: bytes | None = None
        self.first_frame_s = 0.0
        self.started_ms = 0
        self.usage = Usage()
        self.finish_reason = ""
        self.fault = Fault.NONE
        self.error_code = self.error_message = ""
        self.error_status, self.error_body, self.retry_after_s = 0, b"", 0.0
        self.cost_uusd = 0
        self.receipt_id: bytes | None = None
        self.closing = False
        """Set while its end is being written, so that nobody ends it twice."""
        self._body_sha256 = b""
        self.plain: bool | None = None
        """Whether a host that takes text only can be given it; None until somebody had to know."""
        self.refused = False
        """Set when its submit was refused after a host had begun: nothing of it may be written or published."""
        self.tried: set[bytes] = set()
        """Hosts that lost or failed it."""
        self.answers = 1
        """Texts asked for; not stored, so after a restart the job needs a host with room for all of them in one."""
        self.home_id: bytes | None = None
        """Coordinator that the client of an attached job is connected to."""
        self.owner_node = b""
        """Coordinator that owns the job, where that is another one: then this is a mirror of it. Empty: ours."""
        self._begin_chain()
        self._begin_unbroken()
        self._waiters: list[asyncio.Future[bool]] = []
        """Readers that wait; True tells one that it gave up, False that there is something to see."""
        self._enders: list[asyncio.Future[None]] = []

    def _begin_chain(self) -> None:
        """Set what tells of a chain of containers: it is none."""
        self.caller = ""
        """Address that asked, where that decides who may run or see the job."""
        self.steps: tuple[Step, ...] = ()
        """The containers of a chain, in order; empty: one model. `model` is then that of the step it is at."""

    def _begin_unbroken(self) -> None:
        """Set what tells of hosts that were lost on the way: nothing so far."""
        self.restarts = 0
        """How often the answer began anew after some of it may have been seen."""
        self.segments: list[ClosedSegment] = []
        """What hosts delivered that lost their lease, in frame order; the open lease's part is not among them."""
        self.unable: set[bytes] = set()
        """Hosts that said they can't go on from its frames; nobody blames them."""
        self.losses = 0
        """Hosts that were to blame for losing it."""
        self.broken_s = 0.0
        """Monotonic time since which its stream stands still because a host was lost; 0: it does not."""
        self.hedge: Lease | None = None
        """Lease of a second host that was started because the first frame is late; in no table until it delivers."""
        self.anew: list[tuple[int, int]] = []
        """Of each restart that this process saw: its number, and the frame at which the answer began anew."""

    @classmethod
    def revived(cls, row: JobRow, *, now_s: float) -> "LiveJob":
        """Return the job of a stored row, without frames and lease; what it was quoted and how it ended are kept."""
        job = cls(
            id=row.id, owner_id=row.owner_id, dialect=row.dialect, kind=row.kind, model=row.model, body=row.body,
            max_tokens=row.max_tokens, prompt_tokens_max=row.prompt_tokens_max, price_in=row.price_in_uusd_per_mtok,
            price_out=row.price_out_uusd_per_mtok, hold_uusd=row.hold_uusd, detached=bool(row.detached),
            deadline_ms=row.deadline_ms, created_ms=row.created_ms, submitted_s=now_s,
        )  # fmt: skip
        job.state = JobState(row.state)
        job.home_id, job.restarts = row.home_id, row.restarts or 0
        job.caller, job.steps = row.caller or "", decode_steps(row.steps)
        job.note_end(row, b"")
        return job

    def note_end(self, row: JobRow, details: bytes) -> None:
        """Take over how the stored job stands or ended, but for its state; *details* is its engine's usage JSON."""
        self.host_id = row.host_id
        self.started_ms = row.started_ms or 0
        self.cost_uusd = row.cost_uusd
        self.usage = Usage(row.prompt_tokens, row.completion_tokens, details)
        self.finish_reason = row.finish_reason or ""
        self.fault = Fault(row.fault or "")
        self.error_code, self.error_message = row.error_code or "", row.error_message or ""

    def as_row(self) -> JobRow:
        """Return the unfinished job as the database has it, for whoever takes it over from here."""
        return JobRow(
            id=self.id, owner_id=self.owner_id, dialect=self.dialect, kind=self.kind, model=self.model, state=self.state,
            body=self.body, prompt_tokens_max=self.prompt_tokens_max, max_tokens=self.max_tokens,
            price_in_uusd_per_mtok=self.price_in, price_out_uusd_per_mtok=self.price_out, hold_uusd=self.hold_uusd,
            detached=int(self.detached), deadline_ms=self.deadline_ms, created_ms=self.created_ms, started_ms=None,
            finished_ms=None, host_id=None, attempt_id=None, prompt_tokens=0, completion_tokens=0, cost_uusd=0,
            finish_reason=None, fault=None, error_code=None, error_message=None, node_id=None, home_id=self.home_id,
            restarts=self.restarts, caller=self.caller or None, steps=encode_steps(self.steps),
        )  # fmt: skip

    @property
    def step(self) -> int:
        """Number of the container that a chain is at: every one before it left one segment of one frame."""
        return min(self.segment_start, len(self.steps) - 1)

    @property
    def on_last_step(self) -> bool:
        """Whether what is being made now ends the job."""
        return self.step == len(self.steps) - 1

    @property
    def makes_pieces(self) -> bool:
        """Whether a buyer follows, piece by piece, what is being made: of a chain the last container of a stream."""
        return not self.steps or (not self.detached and self.on_last_step)

    @property
    def body_sha256(self) -> bytes:
        """SHA-256 of the request body as it goes over the link; worked out once."""
        if not self._body_sha256:
            self._body_sha256 = hashlib.sha256(self.body).digest()
        return self._body_sha256

    @property
    def segment_tokens(self) -> int:
        """Tokens of the frames that came since the last closed segment: those of the open lease."""
        return self.tokens - sum([segment.tokens for segment in self.segments]) if self.segments else self.tokens

    @property
    def segment_start(self) -> int:
        """Number of the first frame that belongs to no closed segment."""
        return self.segments[-1].end_frame if self.segments else 0

    def close_segment(self, lease: Lease, *, unpaid: bool, signature: bytes = b"") -> bytes:
        """Close what *lease* delivered, if it is anything; return its frames, encoded for the journal.

        Of a chain that was a whole step, and the job is at the next one.
        """
        start = self.segment_start
        if len(self.frames) == start:
            return b""
        tokens = self.segment_tokens
        self.segments.append(ClosedSegment(lease, len(self.frames), self.chain, tokens, unpaid, signature))
        if self.steps:
            self.model = self.steps[self.step].model
        return _encode_frames(self.frames[start:])

    def open_segment(self) -> None:
        """Take back the last closed segment: its end could not be written."""
        self.segments.pop()
        if self.steps:
            self.model = self.steps[self.step].model

    def begin_anew(self, *, keep: int | None = None) -> None:
        """Count that the answer begins anew at frame *keep* (behind those that are here) after more of it may have been seen.

        Frames from *keep* on are dropped. Readers that have seen beyond it are ended (`Reader.misled`), as what comes now does not
        go on from there; those that have not read on.
        """
        self.restarts += 1
        at = len(self.frames) if keep is None else keep
        if at < len(self.frames):
            assert at >= self.segment_start, "what the journal has is kept"
            kept, self.frames = self.frames[:at], []
            self.frame_bytes, self.tokens, self.chain = 0, 0, chain_start(self.id)
            self.append(kept)
        self.anew.append((self.restarts, at))
        self.wake()

    def learn_restarts(self, restarts: int) -> None:
        """Note that the answer began anew elsewhere; what is here of it is its beginning, what a reader brought is not."""
        if restarts > self.restarts:
            self.restarts = restarts
            self.anew.append((restarts, len(self.frames)))
            self.wake()

    def revive_segments(
        self, attempts: Sequence[AttemptRow], pieces: Sequence[bytes], *, signing: frozenset[bytes]
    ) -> None:  # fmt: skip
        """Take back from the journal what hosts delivered before another process took the job over.

        Args:
            attempts: of this job, oldest first.
            pieces: the journal's rows in frame order; together they hold all frames of the closed segments.
            signing: hosts that sign their segments.
        """
        closed = [row for row in attempts if row.ended_ms is not None and row.end_frame > row.first_frame]
        for row, piece in zip(closed, pieces, strict=True):
            lease = Lease(
                id=row.id, host_id=row.host_id, model=self.steps[self.step].model if self.steps else self.model,
                first_frame=row.first_frame, chain=self.chain,
                price_in=self.price_in if row.price_in is None else row.price_in,
                price_out=self.price_out if row.price_out is None else row.price_out,
                started_ms=row.started_ms, started_s=self.submitted_s, signs=row.host_id in signing,
            )  # fmt: skip
            self.append(_decode_frames(piece))
            # A host that did not stand by its frames has no hash stored.
            self.close_segment(lease, unpaid=row.chain is None, signature=row.signature or b"")

    @property
    def watched(self) -> bool:
        """Whether somebody here waits for its frames or its end."""
        return bool(self._waiters or self._enders)

    def takes_after(self, stored: "LiveJob", *, open_attempt: bool) -> bool:
        """Become the job that *stored* was just read as, keeping the frames that were shown here; False: they are none of its.

        Args:
            open_attempt: a host holds a lease, so that more frames than those stored may be known.
        """
        held, common = len(self.frames), min(len(self.frames), len(stored.frames))
        if held > len(stored.frames) and not open_attempt:
            return False
        if chain_over(self.id, self.frames[:common]) != chain_over(self.id, stored.frames[:common]):
            return False
        self.learn_restarts(stored.restarts)
        self.append(stored.frames[held:])
        self.body, self.state, self.events, self.model = stored.body, stored.state, stored.events, stored.model
        self.segments, self.started_ms = stored.segments, stored.started_ms
        self.closing = False
        return True

    @property
    def over(self) -> bool:
        """True once the job is in a final state and settled."""
        return self.state in FINAL

    def append(self, items: list[Frame], *, bytes_max: int | None = None) -> bool:
        """Take frames in order; wake readers. False: the answer would grow past *bytes_max* (`FRAME_BYTES_MAX`), nothing taken."""
        size = self.frame_bytes
        chain = self.chain
        tokens = self.tokens
        for frame in items:
            text = frame.text
            # Bytes, as the next host gets all of it in one message; ASCII, as most is, is told at once.
            size += (len(text) if text.isascii() else len(text.encode())) + len(frame.extra) + 16
            chain = chain_step(chain, frame)
            tokens += frame.tokens
        if size > (FRAME_BYTES_MAX if bytes_max is None else bytes_max):
            return False
        self.frame_bytes = size
        self.chain = chain
        self.tokens = tokens
        self.frames += items
        self.wake()
        return True

    def wake(self) -> None:
        """Tell every waiting reader that there is something to see."""
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
        """Wait until the job is over; frames before that wake nobody here."""
        if not self.over:
            ender = asyncio.get_running_loop().create_future()
            self._enders.append(ender)
            await ender

    def encode_frames(self) -> bytes:
        """Return all frames as stored in ``answers``; empty when there are none."""
        return _encode_frames(self.frames) if self.frames else b""


class LiveJobs:
    """The jobs in flight, by id and by lease."""

    def __init__(self) -> None:
        self._jobs: dict[bytes, LiveJob] = {}
        self._leases: dict[bytes, LiveJob] = {}
        self._due: dict[int, set[LiveJob]] = {}
        """By the second of their deadline, so that looking for those past it costs nothing per job that waits."""
        self._recent: dict[bytes, LiveJob] = {}
        self.chains = 0
        """Unfinished chains of containers."""
        self.leaving: list[Lease] = []
        """Closed leases whose hosts' slots are given back when the database knows."""
        self.mirrors: dict[bytes, LiveJob] = {}
        """Jobs of other coordinators that are read here; `comptoir.cluster` keeps them."""
        self.broken: dict[LiveJob, None] = {}
        """Jobs in line whose stream stands still: some of the answer was delivered, and no host is going on with it."""

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: LiveJob) -> None:
        """Make *job* findable."""
        self.chains += bool(job.steps) and job.id not in self._jobs
        self._jobs[job.id] = job
        self._due.setdefault(job.deadline_ms // 1000, set()).add(job)

    def all(self) -> list[LiveJob]:
        """Return every live job."""
        return list(self._jobs.values())

    def get(self, job_id: bytes) -> LiveJob | None:
        """Return the live job, or None."""
        return self._jobs.get(job_id)

    def seen(self, job_id: bytes) -> LiveJob | None:
        """Return the job if it is in memory: live, a mirror of one elsewhere, or over since a moment ago."""
        return self._jobs.get(job_id) or self.mirrors.get(job_id) or self._recent.get(job_id)

    def recent(self, job_id: bytes) -> LiveJob | None:
        """Return a job that is over since a moment ago, or None: then the database knows."""
        return self._recent.get(job_id)

    def retire(self, job: LiveJob) -> None:
        """Forget *job* as live, and remember it among the recent ones: most are asked for right after their end."""
        self.drop(job)
        if job.frame_bytes + len(job.body) <= RECENT_BYTES_MAX:
            recent = self._recent
            recent[job.id] = job
            if len(recent) > RECENT_MAX:
                del recent[next(iter(recent))]

    def forget_recent(self, *, older_than_ms: int) -> None:
        """Let go of recent jobs created before *older_than_ms*; retention counts for them too."""
        for job_id in [job_id for job_id, job in self._recent.items() if job.created_ms < older_than_ms]:
            del self._recent[job_id]

    def drop(self, job: LiveJob) -> None:
        """Forget *job*; readers that hold it go on reading."""
        self.broken.pop(job, None)
        if self._jobs.get(job.id) is job:
            del self._jobs[job.id]
            self.chains -= bool(job.steps)
            second = self._due[job.deadline_ms // 1000]
            second.discard(job)
            if not second:
                del self._due[job.deadline_ms // 1000]

    def due(self, now_ms: int) -> list[LiveJob]:
        """Return the jobs whose deadline has come; looks at one bucket a second of deadlines, not at every job."""
        seconds = [second for second in self._due if second * 1000 <= now_ms]
        return [job for second in seconds for job in self._due[second] if job.deadline_ms <= now_ms]

    def under_lease(self) -> list[LiveJob]:
        """Return the jobs that a host holds a lease on."""
        return list(self._leases.values())

    def by_lease(self, lease: bytes) -> LiveJob | None:
        """Return the job that *lease* is open on, or None."""
        return self._leases.get(lease)

    def open_lease(self, job: LiveJob, lease: Lease) -> None:
        """Give *lease* the right to act on *job*."""
        job.lease = lease
        job.host_id = lease.host_id
        self.broken.pop(job, None)
        self._leases[lease.id] = job

    def close_lease(self, job: LiveJob) -> Lease | None:
        """Take the lease away; returns it."""
        lease = job.lease
        if lease is not None:
            job.lease = None
            self._leases.pop(lease.id, None)
        return lease

    def slots_of(self, host_id: bytes) -> int:
        """Return how many slots of a host are taken from here: by open leases, and by those that are being given up.

        Where the job's end is only waiting for the database (`LiveJob.closing`) the slot is free already.
        """
        open_here = [job for job in self.leases_of(host_id) if not job.closing]
        return len(open_here) + sum([lease.host_id == host_id for lease in self.leaving])

    def leases_of(self, host_id: bytes) -> list[LiveJob]:
        """Return the jobs that a host has leases on."""
        return [job for job in self._leases.values() if job.lease is not None and job.lease.host_id == host_id]

    @property
    def leased(self) -> int:
        """Number of open leases."""
        return len(self._leases)

    @property
    def open_answers(self) -> int:
        """Answers that hosts here work on, and those from elsewhere that a client waits for on a connection to us."""
        return len(self._leases) + sum(not job.detached for job in self.mirrors.values())


def chain_over(job_id: bytes, frames: Sequence[Frame]) -> bytes:
    """Return the running hash after *frames*, the first of the job's."""
    chain = chain_start(job_id)
    for frame in frames:
        chain = chain_step(chain, frame)
    return chain


def decode_frames(stored: bytes) -> list[Frame]:
    """Read back what `LiveJob.encode_frames` wrote."""
    return _decode_frames(stored) if stored else []
