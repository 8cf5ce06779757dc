"""What a trading post with one coordinator must do, said as plainly as possible: the reference of the job machine.

The model does not choose hosts. It knows which hosts a job may be given to, adopts what the house chose, and insists
that nothing that could run waits.
"""

from dataclasses import dataclass, field

from tests.street import SIGNUP_UUSD

ATTEMPTS_MAX = 4
LEASE_S = 60.0
RELINK_S = 10.0
TTL_S = 900.0
STALL_FLOOR_S = 1.0
BROKEN_WAIT_S = 30.0
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
    goes_on: bool
    """Whether its engine can go on from another host's frames."""
    linked: bool = False
    waiting: int = 0
    """Requests that a polling host holds open: each is good for one job."""
    earned: int = 0


@dataclass(eq=False)
class Part:
    """What one host delivered of an answer."""

    host: ModelHost
    lease: bytes
    first: int
    end: int
    """Exclusive."""
    unpaid: bool = False
    """It does not stand by it."""
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
    """The answer as the host with the lease knows it: what it was given, and what it has written; kept until the
    end."""
    first: int = 0
    """Number of the first frame that the host with the lease is to make."""
    parts: list[Part] = field(default_factory=list)
    """Of hosts whose lease is closed, those that delivered something."""
    tried: set[bytes] = field(default_factory=set)
    accusers: set[bytes] = field(default_factory=set)
    """Hosts that called the request bad, and are not believed yet."""
    losses: int = 0
    broken_s: float | None = None
    """Since when the stream stands still, in line, for want of a host that goes on."""
    restarts: int = 0
    cost: int = 0
    grows: bool = False
    """Whether *max_tokens* may still be raised, because its buyer named no bound."""

    @property
    def hold(self) -> int:
        return BODY_TOKENS + TOKEN_UUSD * self.max_tokens

    @property
    def over(self) -> bool:
        return self.state in FINAL

    @property
    def journal(self) -> list[str]:
        """Frames that survive the coordinator: those of closed leases."""
        return self.frames[: self.parts[-1].end] if self.parts else []


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

    def has_room(self, host: ModelHost) -> bool:
        return host.linked and self.busy(host) < host.slots and (not host.polls or host.waiting > 0)

    def may_run(self, job: ModelJob, host: ModelHost) -> bool:
        return self._suits(job, host) and job.state == "queued" and self.has_room(host)

    def _suits(self, job: ModelJob, host: ModelHost) -> bool:
        return host.id not in job.tried | job.accusers and (host.goes_on or not job.frames)

    # -- what happens --------------------------------------------------------------------------------------------

    def join(self, buyer: bytes) -> None:
        self.buyers[buyer] = SIGNUP_UUSD

    def accept(self, job: ModelJob) -> None:
        assert job.hold <= self.free(job.buyer)
        self.jobs[job.id] = job

    def raise_bound(self, job: ModelJob, max_tokens: int, *, grows: bool) -> None:
        """The house says how long the answer may be: never shorter than before, and never beyond credit."""
        assert max_tokens >= job.max_tokens, "a bound does not shrink"
        assert TOKEN_UUSD * (max_tokens - job.max_tokens) <= self.free(job.buyer), "more is held than there is"
        if job.grows and not grows:
            assert self.free(job.buyer) < TOKEN_UUSD, "a bound is final while credit would cover more"
        job.max_tokens, job.grows = max_tokens, grows

    def start(self, job: ModelJob, host: ModelHost, lease: bytes) -> None:
        """The house gave *job* to *host*: it must have been allowed to."""
        assert job.state == "queued" and self._suits(job, host), "a job was given to a host that lost it or can't go on"
        assert self.has_room(host), "a job was given to a host without room"
        host.waiting -= host.polls
        job.state, job.host, job.lease, job.touched_s, job.revived = "running", host, lease, self.now_s, False
        job.written, job.first = list(job.frames), len(job.frames)

    def wait_in_line(self, job: ModelJob) -> None:
        """The house found nobody for *job* yet."""
        if job.frames and job.broken_s is None:
            job.broken_s = self.now_s

    def deliver(self, job: ModelJob, texts: list[str]) -> None:
        if texts and len(job.frames) == job.first:
            job.broken_s = None
        job.frames += texts
        job.touched_s = self.now_s

    def finish(self, job: ModelJob, state: str, *, prompt: int = 0, unpaid: bool = False, free: bool = False) -> None:
        """The job ends: who delivered is paid, whoever is paid first for *prompt* too; the rest of the hold is free
        again."""
        assert not job.over, "a job ends once"
        if job.host is not None and (len(job.frames) > job.first or state == "completed"):
            job.parts.append(Part(job.host, job.lease, job.first, len(job.frames), unpaid))
        else:
            prompt = 0
        self._close(job)
        tokens_left = job.max_tokens
        for part in job.parts:
            billed = min(tokens_left, part.end - part.first)
            tokens_left -= billed
            if part.unpaid or free or part.end == part.first:
                continue  # Nothing received, nothing paid, for the prompt neither.
            cost = min(job.hold - job.cost, prompt + TOKEN_UUSD * billed)
            prompt = 0
            fee = cost * FEE_BPS // 10_000
            part.earned = cost - fee
            part.host.earned += part.earned
            job.cost += cost
            self.fees += fee
        job.state = state
        self.buyers[job.buyer] -= job.cost

    def lose(self, job: ModelJob, *, blamed: bool, unpaid: bool = False) -> None:
        """A host falls silent, breaks, or is not to blame: on to the next one after what was delivered, or an honest
        end."""
        assert job.host is not None
        if blamed:
            job.losses += 1
            job.tried.add(job.host.id)
        whole = 0 < job.max_tokens <= len(job.frames) and not job.grows
        if whole and not unpaid:
            self.finish(job, "completed")
        elif whole or job.losses >= ATTEMPTS_MAX or not any(self._suits(job, host) for host in self.hosts.values()):
            self.finish(job, "failed", unpaid=unpaid)
        else:
            if len(job.frames) > job.first:
                job.parts.append(Part(job.host, job.lease, job.first, len(job.frames), unpaid))
            job.restarts += job.revived
            self._close(job)
            job.state = "queued"

    def fail(self, job: ModelJob, fault: str, *, unpaid: bool = False) -> None:
        """The host says that it can't."""
        assert job.host is not None
        if fault == "coordinator" and job.revived and len(job.frames) == job.first:
            self.lose(job, blamed=False)
        elif fault in ("host", "capacity"):
            self.lose(job, blamed=True, unpaid=unpaid)
        elif fault == "buyer" and not job.accusers:
            job.accusers.add(job.host.id)
            self.lose(job, blamed=False, unpaid=True)
        elif fault == "buyer":
            self.finish(job, "failed", unpaid=True)
        else:
            self.finish(job, "failed", unpaid=unpaid)

    def can_not_go_on(self, job: ModelJob) -> None:
        """The host says so before its first frame; nobody blames it, nobody asks it again."""
        assert job.host is not None
        job.tried.add(job.host.id)
        self.lose(job, blamed=False)

    def complete(self, job: ModelJob) -> None:
        self.finish(job, "completed", prompt=1)

    def cancel(self, job: ModelJob) -> None:
        self.finish(job, "cancelled")

    def sweep(self, taken_away: set[bytes]) -> None:
        """Time has passed: deadlines, streams that stood still for too long, then silent hosts.

        A host that is silent for longer than is its way, or whose link dropped, may lose its lease long before the last
        moment if somebody else is free: *taken_away* are jobs of which the house says that it was so.
        """
        for job in self.open_jobs():
            waits_s = 0.0 if job.broken_s is None or job.host is not None else self.now_s - job.broken_s
            if self.now_s >= job.deadline_s:
                self.finish(job, "expired")
            elif waits_s > BROKEN_WAIT_S:
                self.finish(job, "failed")
        for job in self.running():
            assert job.host is not None
            silent_s = self.now_s - job.touched_s
            must = silent_s > LEASE_S or (silent_s > RELINK_S and not job.host.linked)
            may = not job.host.polls and silent_s > (STALL_FLOOR_S if job.host.linked else 0)
            assert must <= (job.id in taken_away) <= (must or may), "a lease was taken away too early, or too late"
            if must or job.id in taken_away:
                self.lose(job, blamed=True)

    def restart(self) -> None:
        """The coordinator is another process: lines are gone, and frames that no journal has; accepted jobs are not."""
        for host in self.hosts.values():
            host.linked, host.waiting = False, 0
        for job in self.open_jobs():
            job.frames, job.tried, job.losses, job.broken_s = job.journal, set(), 0, None
            job.first, job.touched_s, job.revived = len(job.frames), self.now_s, True
            if not job.detached:
                self.finish(job, "failed", free=True)
            elif job.host is not None and job.host.polls:
                self.lose(job, blamed=False)

    def _close(self, job: ModelJob) -> None:
        if job.host is not None:
            self.stale.append((job.host.id, job.lease))
        job.host, job.lease = None, b""
