"""The house: every room and every line to a host, as the verbs of the street get it."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple, Protocol, TypeVar

from comptoir.dispatch.ending_later import Later
from comptoir.hosts import Fleet, Host, Hosts
from comptoir.idempotency import Idempotency
from comptoir.identity import Identity
from comptoir.jobs import AttemptState, Jobs, Lease, LiveJob
from comptoir.kit.clock import Clock
from comptoir.kit.db import Database
from comptoir.kit.errors import Unavailable
from comptoir.kit.shares import Held
from comptoir.kit.vitals import Check, LoopLag
from comptoir.ledger import FEES, Ledger
from comptoir.nodes import Nodes
from comptoir.receipts import Receipts
from comptoir.routing import Candidate, FreeList, Preference, Spec, passes
from comptoir.settings import Settings

log = logging.getLogger(__name__)

CREDIT_SEEN_MAX = 100_000
"""Buyers whose credit is remembered; beyond it all are forgotten, and their next job waits for its commit."""

WAITING_PRICE_S = 1.0
"""How long the median price of a model is reused: finding it looks at every host that offers the model."""

WAITING_PRICES_MAX = 10_000
"""Median prices remembered; beyond it all are worked out anew."""

CHECK_CAP_S = 0.5
"""Longest wait of a health check; clients of GET /health (infernet-client) give up after one second."""


class Turn(IntEnum):
    """Order of the street's verbs that meet in one group of the writer: the order of a job's life.

    Without it a cancellation that meets the start of its own job in a group could run first, find no lease and be refused.
    """

    SUBMIT = 0
    START = 1
    REQUEUE = 2
    SETTLE = 3


class Line(Protocol):
    """How to reach one host: a link (WebSocket), a held poll, or a push to its address."""

    def send_job(self, job: LiveJob, lease: Lease) -> bool:
        """Hand over a leased job; False: the line is gone, give the job to another host."""
        ...

    def cancel(self, lease: Lease, reason: str) -> None:
        """Tell the host to stop; frames it sends later are ignored."""
        ...

    def settled(self, job: LiveJob, lease: Lease, *, state: str, earned_uusd: int, balance_uusd: int) -> None:
        """Tell the host that a lease is closed, and what it earned."""
        ...


class Standing(NamedTuple):
    """How it stands with the other coordinators, for metrics."""

    others: int
    """That are alive."""
    bus_up: bool
    gaps: int
    """Times that messages of one of them were found lost."""
    mirrors: int
    """Jobs of others that are read here."""
    taken_over: int
    """Jobs taken over from others since the start."""


class Peers(Protocol):
    """The other coordinators of this trading post; `Alone` where there are none, `comptoir.cluster` where there are."""

    def offer(self, job: LiveJob, candidate: Candidate) -> None:
        """Offer a waiting job of ours to the coordinator that *candidate* is linked to; declined, it waits in line."""
        ...

    def moved(self, job: LiveJob) -> None:
        """Another coordinator owns *job* now: what is here of it becomes a mirror, and its readers go on."""
        ...

    def stop(self, job: LiveJob, reason: str) -> None:
        """Ask the owner of a mirrored job to cancel it."""
        ...

    async def mirror(self, job: LiveJob) -> LiveJob:
        """Return what follows the unfinished job *job* (as read from the database) at its owner, from frame 0 on.

        Raises:
            Unavailable: nobody owns it right now; try again.
        """
        ...

    async def owner_of(self, job_id: bytes) -> bytes | None:
        """Return the other coordinator that owns an unfinished job; None: it is over, unknown, or ours."""
        ...

    async def welcome(self, host_id: bytes, leases: Sequence[bytes]) -> None:
        """A host came here: learn of it what others wrote, and take over the jobs that it brings leases on.

        Raises:
            Unavailable: the database is away, and whose its leases are can't be known; it must come again, with its frames.
        """
        ...

    def yields(self, host: Host) -> bool:
        """Tell whether a job elsewhere waits longer for *host* than any here; it was asked for, and comes or not."""
        ...

    def lives(self, node_id: bytes) -> bool:
        """Tell whether a coordinator is alive, this one included."""
        ...

    def standing(self) -> Standing | None:
        """Tell how it stands with the others; None where there are none."""
        ...


class Alone:
    """No other coordinators."""

    def offer(self, job: LiveJob, candidate: Candidate) -> None:
        raise AssertionError("no host is linked to another coordinator, where there is none")

    def moved(self, job: LiveJob) -> None:
        log.error("job %s was taken over by a coordinator that this one does not know of", job.id.hex())

    def stop(self, job: LiveJob, reason: str) -> None:
        raise AssertionError("nothing is mirrored where there is no other coordinator")

    async def mirror(self, job: LiveJob) -> LiveJob:
        raise Unavailable("the job is just being taken up; try again")

    async def owner_of(self, job_id: bytes) -> bytes | None:
        return None

    async def welcome(self, host_id: bytes, leases: Sequence[bytes]) -> None:
        return

    def yields(self, host: Host) -> bool:
        return False

    def lives(self, node_id: bytes) -> bool:
        return False

    def standing(self) -> Standing | None:
        return None


@dataclass
class Hedge:
    """A second host at work on a job that waits for its first frame (`dispatch.hedge`)."""

    job: LiveJob
    lease: Lease
    winning: bool = False
    """It has delivered, and the job is being handed over to it."""
    waiting: list[Any] = field(default_factory=list)
    """What it said meanwhile."""


@dataclass
class Retention:
    """How far the walk over old jobs has come."""

    after: bytes = b""
    """Id of the last job looked at."""
    again_s: float = 0.0
    """Monotonic time before which no new walk begins."""


class Served(NamedTuple):
    """Requests of one endpoint since the start."""

    dialect: str
    method: str
    path: str
    by_status: Mapping[int, int]
    seconds: float
    """Time spent on all of them together."""


class State:
    """What a verb keeps between its calls, declared beside that verb; each coordinator has one (`House.state`)."""

    def __init__(self, house: "House") -> None:
        """Begin empty, on *house*."""


StateT = TypeVar("StateT", bound=State)


@dataclass(eq=False)
class House:
    """One coordinator."""

    settings: Settings
    clock: Clock
    db: Database
    identity: Identity
    ledger: Ledger
    hosts: Hosts
    fleet: Fleet
    jobs: Jobs
    receipts: Receipts
    idempotency: Idempotency
    nodes: Nodes
    """The coordinators of this trading post; `node_id` is this one's."""
    peers: Peers
    """The other coordinators."""
    preference: Preference
    """Routing strategy in force."""
    fee_account: bytes = FEES
    """Where this coordinator books the platform's part (`ledger.fee_account` of its slot)."""
    drops: deque[float] = field(default_factory=deque)
    """Monotonic times at which links dropped lately."""
    lines: dict[bytes, Line] = field(default_factory=dict)
    """Line by host id; a host without one can't be given jobs."""
    reach: Callable[[Host], None] = lambda host: None
    """Opens the line to a host that jobs are pushed to; the composition root sets it (`transports.push`)."""
    on_given: Callable[[LiveJob, Lease], None] = lambda job, lease: None
    """Called when a job went down a line; the composition root sets it (`dispatch.hedge`)."""
    hedged: dict[bytes, Hedge] = field(default_factory=dict)
    """Second hosts by the lease they work on."""
    in_flight: Held = field(default_factory=Held)
    """Unfinished jobs by buyer."""
    readers: dict[bytes, int] = field(default_factory=dict)
    """Open event streams by job."""
    streams: int = 0
    """Open event streams in all."""
    pending: dict[bytes, "asyncio.Task[Any]"] = field(default_factory=dict)
    """Requests with an Idempotency-Key under way, by the resource they make."""
    leaving: bool = False
    """Set once, when a stop begins: it is said to whoever asks, so that a balancer looks elsewhere."""
    draining: bool = False
    """Set once, ``drain_notice_s`` later: no new jobs are accepted."""
    counts: dict[str, int] = field(default_factory=dict)
    """Jobs that ended since the start, by final state, for metrics."""
    ended_before: dict[str, int] = field(default_factory=dict)
    """Jobs that had ended when this process started, or that ended at other coordinators since, by final state."""
    users: int = 0
    """People with an account."""
    newcomers: int = 0
    """Those of them that came in here, since the start."""
    frames: int = 0
    """Frames taken from hosts since the start."""
    tokens: int = 0
    """LLM tokens in them."""
    later: Later = field(init=False)
    """Ends that wait for the database."""
    database: Check = field(init=False)
    """Whether the database takes commands, cached for ``health_cache_s``."""
    lag: LoopLag = field(default_factory=LoopLag)
    served: Callable[[], Iterable[Served]] = tuple
    """What was served so far, for metrics; the HTTP server over this house sets it."""
    latency_ms_sum: int = 0
    """Milliseconds from submit to end of completed jobs, since the start."""
    started_s: float = 0.0
    retention: Retention = field(default_factory=Retention)
    when_empty: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the last lease or the last mirror ends: a drain then looks whether answers are still open."""
    _tasks: set["asyncio.Task[Any]"] = field(default_factory=set)
    _credit: dict[bytes, int] = field(default_factory=dict)
    _waiting_prices: dict[tuple[object, ...], tuple[float, int, int]] = field(default_factory=dict)

    _states: dict[type["State"], Any] = field(default_factory=dict)

    def state(self, kind: type[StateT]) -> StateT:
        """Return this coordinator's one *kind*, made when it is first asked for; a look into a dict by class."""
        found: StateT | None = self._states.get(kind)
        if found is None:
            found = self._states[kind] = kind(self)
        return found

    @property
    def node_id(self) -> bytes:
        """This coordinator."""
        return self.nodes.node_id

    def __post_init__(self) -> None:
        self.later = Later(self.db)
        self.database = Check(self._ask_writer, fresh_s=self.settings.health_cache_s, cap_s=CHECK_CAP_S)

    async def _ask_writer(self) -> None:
        await self.db.run(lambda tx: tx.fetch("SELECT 1"))

    def check_open(self) -> None:
        """Refuse what is new while that is the only honest answer.

        Raises:
            Unavailable: the house is draining, or its database is known to be out of reach.
        """
        if self.draining:
            raise Unavailable("this coordinator is shutting down; try again in a moment", retry_after_s=2.0)
        if self.db.away:
            raise Unavailable("the database is out of reach; try again in a moment")

    def common_ms(self) -> int:
        """Return the wall clock that deadlines are told by: with several coordinators the database's, the same for all."""
        return self.clock.now_ms() + self.nodes.ahead_ms

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run *work* in the background; a failure is logged, never silent."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        if isinstance(task.exception(), Unavailable):
            log.warning("background work of the street waits for the database: %s", task.exception())
        elif task.exception() is not None:
            log.error("background work of the street failed", exc_info=task.exception())

    async def or_later(self, job: LiveJob, verb: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run *verb* on *job*; if the database is away run it again when it is back, unless the job has gone on meanwhile.

        Raises:
            Unavailable: the database is out of reach; nothing has to be called again.
        """
        lease = job.lease
        try:
            await verb()
        except Unavailable:

            async def again() -> None:
                if job.lease is lease and not job.closing and not job.over:
                    await self.or_later(job, verb)

            # An end that was decided on is kept by whoever did.
            if not job.closing:
                self.later.keep(job.id, again)
            raise

    async def settle_down(self) -> None:
        """Wait for all background work."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def enter(self, owner_id: bytes) -> None:
        """Count one more unfinished job of a buyer."""
        self.in_flight.enter(owner_id)

    def leave(self, owner_id: bytes) -> None:
        """Count one unfinished job of a buyer less."""
        self.in_flight.leave(owner_id)

    def drop_hedge(self, job: LiveJob, reason: str) -> None:
        """Stop the second host of *job*, if it has one: it is not paid, and nobody is blamed."""
        lease = job.hedge
        if lease is None:
            return
        job.hedge = None
        self.hedged.pop(lease.id, None)
        self.fleet.release(lease.host_id)
        line = self.lines.get(lease.host_id)
        if line is not None:
            line.cancel(lease, reason)
            line.settled(job, lease, state=AttemptState.FAILED, earned_uusd=0, balance_uusd=0)
        if not job.refused:
            self.spawn(self._note_loser(job, lease))

    async def _note_loser(self, job: LiveJob, lease: Lease) -> None:
        try:
            await self.jobs.note_loser(job.id, lease, at_ms=self.clock.now_ms())
        except Unavailable as away:
            log.warning("the second host of job %s is not on record: %s", job.id.hex(), away)

    def note_credit(self, owner_id: bytes, free_uusd: int) -> None:
        """Remember what a buyer could still spend when the ledger last said so."""
        if len(self._credit) >= CREDIT_SEEN_MAX:
            self._credit.clear()
        self._credit[owner_id] = free_uusd

    def spend_seen_credit(self, owner_id: bytes, amount_uusd: int) -> bool:
        """Tell whether the credit last seen covers *amount_uusd*, and count it as spent: a guess, the ledger decides."""
        left = self._credit.get(owner_id, -1) - amount_uusd
        if left < 0:
            return False
        self._credit[owner_id] = left
        return True

    def waiting_prices(self, spec: Spec, known: FreeList) -> tuple[int, int]:
        """Return the median (in, out) prices of the hosts that could run *spec*; at most a second old."""
        key = (spec.model, spec.kind, self.fleet.catalog.told_apart(spec.model, spec.entry))
        now = self.clock.monotonic_s()
        cached = self._waiting_prices.get(key)
        if cached is None or cached[0] < now:
            fitting = [c for c in known.all.values() if passes(spec, c)]
            fitting.sort(key=_by_price)
            middle = fitting[len(fitting) // 2]
            cached = (now + WAITING_PRICE_S, middle.price_in_uusd_per_mtok, middle.price_out_uusd_per_mtok)
            if len(self._waiting_prices) >= WAITING_PRICES_MAX:
                self._waiting_prices.clear()
            self._waiting_prices[key] = cached
        return cached[1], cached[2]


def _by_price(candidate: Candidate) -> tuple[int, int]:
    return candidate.price_out_uusd_per_mtok, candidate.price_in_uusd_per_mtok
