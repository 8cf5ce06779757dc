"""The jobs in flight, by id and by lease, and the transitions that open, move or close a lease."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from comptoir.jobs.change import Change, Touches
from comptoir.jobs.lease import Lease
from comptoir.jobs.live import LiveJob
from comptoir.jobs.types import JobState

_LEASED = Touches("lease", "host_id", "events", relied_on=("lease",))
_UNLEASED = Touches("lease", relied_on=("lease", "owner_node", "refused"))
_REQUEUED = Touches(
    "state",
    "lease",
    "host_id",
    "events",
    "segments",
    "model",
    "passed_ms",
    relied_on=("state", "lease", "segments", "owner_node", "refused"),
)

RECENT_MAX = 128
"""Jobs kept in memory after their end: most are requested at once. Few, because each new job is then made where one of
the last ended, in the processor's cache: of 1,024 a completion took 4 % more CPU."""

RECENT_BYTES_MAX = 16 * 1024
"""The largest of them (body and frames), so that all take at most 2 MiB."""


class LiveJobs:
    """The jobs in flight, by id and by lease."""

    def __init__(self) -> None:
        self._jobs: dict[bytes, LiveJob] = {}
        self._leases: dict[bytes, LiveJob] = {}
        self._due: dict[int, set[LiveJob]] = {}
        """By the second of their deadline, so that finding expired jobs costs nothing per waiting job."""
        self._recent: dict[bytes, LiveJob] = {}
        self.staged = 0
        """Unfinished jobs that have stages: chains of containers."""
        self._leaving: list[Lease] = []
        self._mirrors: dict[bytes, LiveJob] = {}
        self._broken: dict[LiveJob, None] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def leaving(self) -> Sequence[Lease]:
        """Leases being closed, whose slots are released once the database has confirmed it."""
        return self._leaving

    @property
    def mirrors(self) -> Mapping[bytes, LiveJob]:
        """Jobs of other coordinators that are read here, by id; `comptoir.cluster` follows them."""
        return self._mirrors

    @property
    def broken(self) -> Mapping[LiveJob, None]:
        """Queued jobs whose stream is interrupted: part of the answer was delivered, and no host is continuing it."""
        return self._broken

    def add(self, job: LiveJob) -> None:
        """Make *job* findable."""
        self.staged += bool(job.stages) and job.id not in self._jobs
        self._jobs[job.id] = job
        self._due.setdefault(job.deadline_ms // 1000, set()).add(job)

    def all(self) -> list[LiveJob]:
        """Return every live job."""
        return list(self._jobs.values())

    def get(self, job_id: bytes) -> LiveJob | None:
        """Return the live job, or None."""
        return self._jobs.get(job_id)

    def seen(self, job_id: bytes) -> LiveJob | None:
        """Return the job if it is in memory: live, a mirror, or recently ended."""
        return self._jobs.get(job_id) or self._mirrors.get(job_id) or self._recent.get(job_id)

    def recent(self, job_id: bytes) -> LiveJob | None:
        """Return a recently ended job, or None: then only the database has it."""
        return self._recent.get(job_id)

    def retire(self, job: LiveJob) -> None:
        """Move *job* from the live jobs to the recently ended: most are requested right after their end."""
        self.drop(job)
        if self._mirrors.get(job.id) is job:
            del self._mirrors[job.id]
        if job.frame_bytes + len(job.body) <= RECENT_BYTES_MAX:
            recent = self._recent
            recent[job.id] = job
            if len(recent) > RECENT_MAX:
                del recent[next(iter(recent))]

    def forget_recent(self, *, older_than_ms: int) -> None:
        """Drop recently ended jobs created before *older_than_ms*; retention applies to them too."""
        for job_id in [job_id for job_id, job in self._recent.items() if job.created_ms < older_than_ms]:
            del self._recent[job_id]

    def drop(self, job: LiveJob) -> None:
        """Forget *job*; readers that hold it can read on."""
        self._broken.pop(job, None)
        if self._jobs.get(job.id) is job:
            del self._jobs[job.id]
            self.staged -= bool(job.stages)
            second = self._due[job.deadline_ms // 1000]
            second.discard(job)
            if not second:
                del self._due[job.deadline_ms // 1000]

    def due(self, now_ms: int) -> list[LiveJob]:
        """Return the jobs whose deadline has passed; reads one bucket per second of deadlines, not every job."""
        seconds = [second for second in self._due if second * 1000 <= now_ms]
        return [job for second in seconds for job in self._due[second] if job.deadline_ms <= now_ms]

    def under_lease(self) -> list[LiveJob]:
        """Return the jobs that a host holds a lease on."""
        return list(self._leases.values())

    def by_lease(self, lease: bytes) -> LiveJob | None:
        """Return the job that *lease* is open on, or None."""
        return self._leases.get(lease)

    def lease_to(self, job: LiveJob, lease: Lease) -> Change:
        """Open *lease* on a queued job and count the event for it; the job runs once its host has been given it."""
        assert job.may_be_leased
        before, stood_still = _LEASED.values(job), job in self._broken
        self._open(job, lease)
        job.events += 1
        return Change(job, _LEASED, before, partial(self._unlease, job, lease, stood_still))

    def _open(self, job: LiveJob, lease: Lease) -> None:
        job.lease = lease
        job.host_id = lease.host_id
        self._broken.pop(job, None)
        self._leases[lease.id] = job

    def _unlease(self, job: LiveJob, lease: Lease, stood_still: bool) -> None:
        self._leases.pop(lease.id, None)
        if stood_still:
            self._broken[job] = None

    def reattach(self, job: LiveJob, lease: Lease) -> None:
        """queued -> running: the host of *lease*, opened by another process, has the job and may resend its frames."""
        assert job.state is JobState.QUEUED and job.lease is None and lease.revived
        self._open(job, lease)
        job.state = JobState.RUNNING

    def close_lease(self, job: LiveJob) -> Change:
        """Close the lease, if any, because the job ends or is no longer ours. Once undone, the host holds it again."""
        before, lease = _UNLEASED.values(job), job.lease
        if lease is None:
            return Change(job, _UNLEASED, before)
        job.lease = None
        self._leases.pop(lease.id, None)
        return Change(job, _UNLEASED, before, partial(self._leases.__setitem__, lease.id, job))

    @contextmanager
    def requeue(
        self, job: LiveJob, lease: Lease, *, unpaid: bool, signature: bytes = b""
    ) -> Iterator[tuple[Change, bytes]]:
        """running -> queued: close the lease and its segment, and count the event. A context to write it in.

        Meanwhile the lease is in `leaving`. Yields the change, and the closed frames encoded for the journal.
        """
        assert job.lease is lease and not job.over
        before = _REQUEUED.values(job)
        job.lease = job.host_id = None
        self._leases.pop(lease.id, None)
        piece = job.close_segment(lease, unpaid=unpaid, signature=signature)
        job.events += 1
        job.state = JobState.QUEUED
        change = Change(job, _REQUEUED, before, partial(self._leases.__setitem__, lease.id, job))
        self._leaving.append(lease)
        try:
            yield change, piece
        finally:
            self._leaving.remove(lease)

    def stand_still(self, job: LiveJob, now_s: float) -> None:
        """Mark the stream of a job that is being queued as interrupted, until a host delivers."""
        assert job.state is JobState.QUEUED and job.lease is None
        job.broken_s = job.broken_s or now_s
        self._broken[job] = None

    def refuse(self, job: LiveJob) -> None:
        """Forget a job that was not accepted. A host may have begun; nothing about it may be written or published."""
        assert not job.over and not job.owner_node
        self.drop(job)
        job.refused = True

    # -- mirrors -------------------------------------------------------------------------------------------------

    def become_mirror(self, job: LiveJob, owner: bytes) -> Lease | None:
        """Make a job of ours a mirror of *owner*'s (empty: not yet known); its lease is closed, its readers stay.

        Returns the lease whose slot the caller releases; None if there is none, or the slot is free already because an
        end was waiting for the database.
        """
        assert not job.over and not job.refused and not job.owner_node
        lease = None if job.closing else job.lease
        self.close_lease(job)
        self.drop(job)
        job.closing = False
        self.add_mirror(job, owner)
        return lease

    def add_mirror(self, job: LiveJob, owner: bytes) -> None:
        """Register a mirror of a job of *owner*; empty: not yet known."""
        assert job.lease is None and not job.over
        job.owned_by(owner)
        self._mirrors[job.id] = job

    def adopt(self, job: LiveJob) -> None:
        """Make a mirror a job of ours."""
        assert job.owner_node and not job.over
        self.drop_mirror(job.id)
        job.owner_node = b""

    def drop_mirror(self, job_id: bytes) -> None:
        """Forget the mirror of a job, if there is one."""
        self._mirrors.pop(job_id, None)

    # ------------------------------------------------------------------------------------------------------------

    def slots_of(self, host_id: bytes) -> int:
        """Return how many slots of a host are taken from here: by open leases, and by leases that are being closed.

        While a job's end waits for the database (`LiveJob.closing`), its slot is free already.
        """
        open_here = [job for job in self.leases_of(host_id) if not job.closing]
        return len(open_here) + sum([lease.host_id == host_id for lease in self._leaving])

    def leases_of(self, host_id: bytes) -> list[LiveJob]:
        """Return the jobs that a host has leases on."""
        return [job for job in self._leases.values() if job.lease is not None and job.lease.host_id == host_id]

    @property
    def leased(self) -> int:
        """Number of open leases."""
        return len(self._leases)

    @property
    def open_answers(self) -> int:
        """Answers that hosts here work on, plus those from elsewhere that a client connected here waits for."""
        return len(self._leases) + sum(not job.detached for job in self._mirrors.values())
