"""The core: every room and every host channel, as passed to the verbs of dispatch; and where verbs keep their state."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol, TypeVar

from comptoir.dispatch.background import Background
from comptoir.dispatch.peers import Peers
from comptoir.events import Events
from comptoir.hosts import Fleet, Hosts
from comptoir.idempotency import Idempotency
from comptoir.identity import Identity
from comptoir.jobs import Jobs, Lease, LiveJob
from comptoir.kit.clock import Clock
from comptoir.kit.db import Database
from comptoir.ledger import Ledger
from comptoir.moderation import Moderation
from comptoir.nodes import Nodes
from comptoir.receipts import Receipt, Receipts
from comptoir.routing import Preference
from comptoir.settings import Settings


class CommandOrder(IntEnum):
    """Order in which the verbs of one writer group run: the order of a job's life.

    Without it, a cancellation in the same group as its job's start could run first, find no lease and be refused.
    """

    SUBMIT = 0
    START = 1
    EXTEND = 2
    REQUEUE = 3
    SETTLE = 4


class HostChannel(Protocol):
    """The connection to one host: a link (WebSocket), a held poll, or a push to its address."""

    def send_job(self, job: LiveJob, lease: Lease) -> bool:
        """Send a leased job; False: the channel is closed, give the job to another host."""
        ...

    def raise_bound(self, job: LiveJob, lease: Lease) -> None:
        """Tell the host how long its answer may be by now, or that this is final; only where `Reach.hears_midway`."""
        ...

    def cancel(self, lease: Lease, reason: str) -> None:
        """Tell the host to stop; frames it sends later are ignored."""
        ...

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
        """Tell the host that a lease is closed, what it earned, and how much of its balance is promotional.

        *receipt*: that of the job, if it is settled.
        """
        ...

    def turn_away(self, reason: str, *, for_good: bool) -> None:
        """End the connection, because the host may not serve here; it is told why where it can be told anything."""
        ...


class State:
    """What a verb keeps between calls, declared beside that verb; one instance per coordinator (`Core.state`)."""

    def __init__(self, core: "Core") -> None:
        """Start empty, on *core*."""


StateT = TypeVar("StateT", bound=State)


class Membership(State):
    """The other coordinators; none until this one joins a cluster (`cluster.joined`)."""

    def __init__(self, core: "Core") -> None:
        self.peers = Peers()

    def join(self, peers: Peers) -> None:
        """Work with *peers* from now on."""
        self.peers = peers


@dataclass(frozen=True, eq=False, slots=True)
class Core:
    """One coordinator: its rooms and channels, fixed at construction. State of one verb lives with it (`State`)."""

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
    preference: Preference
    """Routing strategy in force."""
    events: Events
    """Where events are published and subscribed to; numbered ones can be read again, by owner."""
    moderation: Moderation
    """What operators decided, and what of it is in force."""
    background: Background = field(default_factory=Background)
    """Tasks that nobody awaits; shutdown waits for them."""
    channels: dict[bytes, HostChannel] = field(default_factory=dict)
    """Channels by host id; a host without one can't be given jobs."""

    _states: dict[type[State], Any] = field(default_factory=dict, init=False, repr=False)

    def state(self, kind: type[StateT]) -> StateT:
        """Return this coordinator's instance of *kind*, created on first use; costs one dict lookup."""
        try:
            return self._states[kind]  # type: ignore[no-any-return]
        except KeyError:
            made = self._states[kind] = kind(self)
            return made

    @property
    def peers(self) -> Peers:
        """The other coordinators; on a coordinator without a cluster, an object that knows of none."""
        return self.state(Membership).peers

    @property
    def node_id(self) -> bytes:
        """This coordinator's id."""
        return self.nodes.node_id

    def common_ms(self) -> int:
        """Return the wall clock used for deadlines: with several coordinators the database's, the same for all."""
        return self.clock.now_ms() + self.nodes.ahead_ms
