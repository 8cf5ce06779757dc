"""The house: every room and every line to a host, as the verbs of the street get it; and where they keep their own state."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple, Protocol, TypeVar

from comptoir.dispatch.background import Background
from comptoir.events import Events
from comptoir.hosts import Fleet, Host, Hosts
from comptoir.idempotency import Idempotency
from comptoir.identity import Identity
from comptoir.jobs import Jobs, Lease, LiveJob
from comptoir.kit.clock import Clock
from comptoir.kit.db import Database
from comptoir.kit.errors import Unavailable
from comptoir.ledger import FEES, Ledger
from comptoir.nodes import Nodes
from comptoir.receipts import Receipts
from comptoir.routing import Candidate, Preference
from comptoir.settings import Settings

log = logging.getLogger(__name__)


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


class State:
    """What a verb keeps between its calls, declared beside that verb; each coordinator has one (`House.state`)."""

    def __init__(self, house: "House") -> None:
        """Begin empty, on *house*."""


StateT = TypeVar("StateT", bound=State)


@dataclass(eq=False)
class House:
    """One coordinator: its rooms and its lines. What only one verb needs is not here but with that verb (`State`)."""

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
    events: Events
    """What happens is told here, and heard; and read again, by owner."""
    fee_account: bytes = FEES
    """Where this coordinator books the platform's part (`ledger.fee_account` of its slot)."""
    background: Background = field(default_factory=Background)
    """Tasks that nobody awaits; a stop waits for them."""
    lines: dict[bytes, Line] = field(default_factory=dict)
    """Line by host id; a host without one can't be given jobs."""

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

    def common_ms(self) -> int:
        """Return the wall clock that deadlines are told by: with several coordinators the database's, the same for all."""
        return self.clock.now_ms() + self.nodes.ahead_ms
