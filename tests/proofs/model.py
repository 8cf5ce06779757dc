"""What a trading post with one coordinator must do, said as plainly as possible: the reference of the job machine.

The model does not choose hosts. It knows which hosts a job may be given to, adopts what the house chose, and insists that
nothing that could run waits.
"""

from dataclasses import dataclass, field

from tests.street import SIGNUP_UUSD

ATTEMPTS_MAX = 4
LEASE_S = 60.0
RELINK_S = 10.0
TTL_S = 900.0
FEE_BPS = 1_200
BODY_TOKENS = 15 // 3 + 32
"""Prompt tokens that the hold of a street's order covers: three bytes a token, and the chat template."""
TOKEN_UUSD = 100
TOKENS_OVER = 8
"""Tokens past the limit that are forgiven."""

FINAL = ("completed", "failed", "cancelled", "expired")


@dataclass(eq=False)
class ModelHost:
    """One host as the model sees it."""

    id: bytes
    slots: int
    polls: bool
    linked: bool = False
    waiting: int = 0
    """Requests that a polling host holds open: each is good for one job."""
    earned: int = 0


@dataclass(eq=False)
class ModelJob:
    """One accepted job."""

    id: bytes
    buyer: bytes
    max_tokens: int
    detached: bool
    deadline_s: float
    state: str = "queued"
    host: ModelHost | None = None
    lease: bytes = b""
    touched_s: float = 0.0
    revived: bool = False
    """Whether the lease was given by the process before this one, whose frames are gone."""
    frames: list[str] = field(default_factory=list)
    """What the coordinator has of the answer."""
    written: list[str] = field(default_factory=list)
    """What the host has written so far; a worker keeps it until the end."""
    tried: set[bytes] = field(default_factory=set)
    cost: int = 0

    @property
    def hold(self) -> int:
        return BODY_TOKENS + TOKEN_UUSD * self.max_tokens

    @property
    def over(self) -> bool:
        return self.state in FINAL

    def delivered_uusd(self, prompt: int) -> int:
        """What the frames are worth, and *prompt* tokens of the question: never more than the hold."""
        return min(self.hold, prompt + TOKEN_UUSD * min(len(self.frames), self.max_tokens))


class Model:
    """Jobs, hosts and money."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.buyers: dict[bytes, int] = {}
        """Balance by buyer."""
        self.hosts: dict[bytes, ModelHost] = {}
        self.jobs: dict[bytes, ModelJob] = {}
        self.fees = 0
        self.stale: list[tuple[bytes, bytes]] = []
        """Host and lease of attempts that are closed."""

    # -- what can be asked ---------------------------------------------------------------------------------------

    def open_jobs(self) -> list[ModelJob]:
        return [job for job in self.jobs.values() if not job.over]

    def running(self) -> list[ModelJob]:
        return [job for job in self.jobs.values() if job.state == "running"]

    def waiting(self) -> list[ModelJob]:
        return [job for job in self.jobs.values() if job.state == "queued"]

    def held(self, buyer: bytes) -> int:
        return sum(job.hold for job in self.open_jobs() if job.buyer == buyer)

    def free(self, buyer: bytes) -> int:
        return self.buyers[buyer] - self.held(buyer)

    def busy(self, host: ModelHost) -> int:
        return sum(job.host is host for job in self.running())

    def has_room(self, host: ModelHost, *, spare: int = 0) -> bool:
        return host.linked and self.busy(host) < host.slots + spare and (not host.polls or host.waiting > 0)

    def may_run(self, job: ModelJob, host: ModelHost) -> bool:
        return job.state == "queued" and host.id not in job.tried and self.has_room(host)

    # -- what happens --------------------------------------------------------------------------------------------

    def join(self, buyer: bytes) -> None:
        self.buyers[buyer] = SIGNUP_UUSD

    def accept(self, job: ModelJob) -> None:
        assert job.hold <= self.free(job.buyer)
        self.jobs[job.id] = job

    def start(self, job: ModelJob, host: ModelHost, lease: bytes, *, spare: int = 0) -> None:
        """The house gave *job* to *host*: it must have been allowed to."""
        assert job.state == "queued" and host.id not in job.tried, "a job was given to a host that had lost it"
        assert self.has_room(host, spare=spare), "a job was given to a host without room"
        host.waiting -= host.polls
        job.state, job.host, job.lease, job.touched_s, job.revived = "running", host, lease, self.now_s, False
        job.written = list(job.frames)

    def deliver(self, job: ModelJob, texts: list[str]) -> None:
        job.frames += texts
        job.touched_s = self.now_s

    def requeue(self, job: ModelJob) -> None:
        """The attempt is closed; the job waits for another."""
        self._close(job)
        job.state = "queued"

    def finish(self, job: ModelJob, state: str, cost: int) -> None:
        """The job ends: what is paid goes from buyer to host and house, the rest of the hold is free again."""
        assert not job.over, "a job ends once"
        host = job.host
        self._close(job)
        job.state, job.cost = state, cost
        fee = cost * FEE_BPS // 10_000
        self.buyers[job.buyer] -= cost
        self.fees += fee
        if host is not None:
            host.earned += cost - fee
        else:
            assert cost == 0, "nobody is paid for a job that nobody ran"

    def lose(self, job: ModelJob, *, blamed: bool) -> None:
        """A host falls silent, breaks, or is not to blame: on to the next one, or an honest end."""
        assert job.host is not None
        if blamed:
            job.tried.add(job.host.id)
        if job.frames or not self._goes_on(job):
            self.finish(job, "failed", job.delivered_uusd(0) if job.frames else 0)
        else:
            self.requeue(job)

    def fail(self, job: ModelJob, fault: str, *, unpaid: bool = False) -> None:
        """The host says that it can't."""
        assert job.host is not None
        if fault == "coordinator" and job.revived and not job.frames:
            self.requeue(job)
        elif fault in ("host", "capacity") and not job.frames:
            self.lose(job, blamed=True)
        else:
            self.finish(job, "failed", job.delivered_uusd(0) if job.frames and not unpaid else 0)

    def complete(self, job: ModelJob) -> None:
        self.finish(job, "completed", job.delivered_uusd(1))

    def cancel(self, job: ModelJob) -> None:
        self.finish(job, "cancelled", job.delivered_uusd(0) if job.frames and job.host else 0)

    def sweep(self) -> None:
        """Time has passed: deadlines first, then silent hosts."""
        for job in self.open_jobs():
            if self.now_s >= job.deadline_s:
                self.finish(job, "expired", job.delivered_uusd(0) if job.frames and job.host else 0)
            elif job.host is not None:
                silent_s = self.now_s - job.touched_s
                if silent_s > LEASE_S or (silent_s > RELINK_S and not job.host.linked):
                    self.lose(job, blamed=True)

    def restart(self) -> None:
        """The coordinator is another process: frames and lines are gone, accepted jobs are not."""
        for host in self.hosts.values():
            host.linked, host.waiting = False, 0
        for job in self.open_jobs():
            job.frames, job.tried = [], set()
            job.touched_s, job.revived = self.now_s, True
            if not job.detached:
                self.finish(job, "failed", 0)
            elif job.host is not None and job.host.polls:
                self.requeue(job)

    def _goes_on(self, job: ModelJob) -> bool:
        return len(job.tried) < ATTEMPTS_MAX and any(host not in job.tried for host in self.hosts)

    def _close(self, job: ModelJob) -> None:
        if job.host is not None:
            self.stale.append((job.host.id, job.lease))
        job.host, job.lease = None, b""
