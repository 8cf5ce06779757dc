"""Host records: what is registered, what is stored, and what is published."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from comptoir.events import HostChanged
from comptoir.kit.db import Rows, Tx
from comptoir.link import ModelOffer
from comptoir.routing import NO_CAPACITY, Capacity

LINK, POLL, PUSH = "link", "poll", "push"
TRANSPORTS = (LINK, POLL, PUSH)
"""How a job reaches the host: our worker's WebSocket, a long poll by the host, or a POST to the host's URL."""

INFRINTIA = "infrintia"
"""The shape of the published Infrintia API: one text, a length and a temperature. The default without a link."""

ACTIVE, DRAINING, OFFLINE = "active", "draining", "offline"
STATUSES = (ACTIVE, DRAINING, OFFLINE)
"""offline -> active -> draining -> offline."""

SUSPENDED = "suspended"
"""Shown of a host that is not in the fleet, because an operator suspended it."""

DONE, FAILED, LOST, PAID = "done", "failed", "lost", "paid"
EMPTY, DOUBTED = "empty", "doubted"
OUTCOMES = (DONE, FAILED, LOST, PAID, EMPTY, DOUBTED)
"""How an attempt ended for the host: answered, failed by its own fault, fell silent (others' faults don't count); that
a stage which it had answered before is paid for now; answered with nothing; called a request bad that others called bad
too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewHost:
    """A registration; `check_host` says whether it is acceptable."""

    gpu: str
    models: tuple[ModelOffer, ...]
    slots: int = 1
    backend: str = ""
    region: str = ""
    tier: str = ""
    vram_mib: int = 0
    capacity: Capacity = NO_CAPACITY
    transport: str = POLL
    endpoint_url: str | None = None
    """Where jobs are posted; needed for ``push``."""
    public_key: bytes | None = None
    """Ed25519, 32 bytes; the host signs its part of receipts with it."""
    owner_id: bytes | None = None
    speaks: str | None = None
    """The shape in which it gets jobs (`HostRow.speaks`)."""
    address_block: str | None = None
    """Block of addresses that a host without owner registers from: those of one block count as one until proven."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRow:
    """One host as stored. Statistics lag behind the fleet's by one flush."""

    id: bytes
    owner_id: bytes | None
    gpu: str
    vram_mib: int
    region: str
    tier: str
    backend: str
    transport: str
    endpoint_url: str | None
    models: tuple[ModelOffer, ...]
    slots: int
    status: str
    public_key: bytes | None
    created_ms: int
    last_seen_ms: int
    """0 = never."""
    jobs_done: int = 0
    jobs_failed: int = 0
    jobs_lost: int = 0
    tokens_done: int = 0
    """Units of output delivered: tokens, runs, bytes, whatever its kinds are sold in."""
    good_milli: int = 0
    bad_milli: int = 0
    """Decayed weights of good and bad outcomes at *outcome_ms*, in thousandths."""
    outcome_ms: int = 0
    retired_ms: int | None = None
    """When it was retired. Its record is kept, because receipts name it."""
    speaks: str | None = None
    """The shape in which a polling or push host gets jobs and answers them (`comptoir.transports`); None: a link."""
    capacity: Capacity = NO_CAPACITY
    evidence: bytes | None = None
    """Of whom *good_milli* and *bad_milli* are (`Reputation.evidence`); None: nobody, or stored by an older version."""
    address_block: str | None = None
    """Block of addresses that it was registered from, if it has no owner (`NewHost.address_block`)."""


class StatusChange(NamedTuple):
    """A host whose stored status is another than before."""

    host_id: bytes
    owner_id: bytes
    status: str


class StatusTelling(NamedTuple):
    """How owners are told of changes in the command that writes them."""

    locks: Rows
    """Rows that *number* locks."""
    number: Callable[[Tx, Sequence[StatusChange]], Sequence[HostChanged]]
    """Writes the events, and returns them to be published after the commit."""


@dataclass(frozen=True, slots=True)
class LastHeard:
    """When a host was heard last, as stored."""

    id: bytes
    owner_id: bytes | None
    at_ms: int
    """Its registration, if it was never heard since."""


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """One model as the market sees it now."""

    name: str
    available_hosts: int
    """Active hosts that offer it, free or busy."""
    min_price_in_uusd_per_mtok: int
    min_price_out_uusd_per_mtok: int
    max_tokens: int
    """Longest context offered: prompt and answer together."""
    kinds: tuple[str, ...]
    since_ms: int
    """When the first of its hosts was registered, even if that one is offline now."""
    capabilities: Mapping[str, str]
    """What is known of what it can do, best first of all hosts (`comptoir.kinds.capabilities`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkSummary:
    """What is sold under one name in a unit other than tokens, as the market sees it now (not containers)."""

    name: str
    available_hosts: int
    prices: Mapping[str, int]
    """Micro-dollars per million of each unit at the cheapest host, that of the input first."""
    kinds: tuple[str, ...]
    capabilities: Mapping[str, str]
    """The best that is known of any host; ``lacking`` only if it is of all (`comptoir.kinds.capabilities`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSummary:
    """One container as the market sees it now, over all active hosts that offer it."""

    name: str
    available_hosts: int
    external: bool
    """Whether a job may begin with it at some host."""
    generates_proofs: bool
    description: str
    image: str
    min_price_uusd_per_mrun: int
    """Micro-dollars per million runs at the cheapest host."""


@dataclass(frozen=True, slots=True)
class PaceFigures:
    """Measured times of one host with one model, in milliseconds; priors before anything was measured."""

    first_frame_p50_ms: float
    first_frame_p99_ms: float
    inter_frame_p50_ms: float
    inter_frame_p99_ms: float
    measured: bool
    first_frame_p95_ms: float


@dataclass(frozen=True, slots=True)
class ReputationStory:
    """An explanation of a host's reputation."""

    score: float
    """0..1, as of now."""
    good: float
    bad: float
    """Decayed weights of outcomes."""
    jobs_done: int
    jobs_failed: int
    jobs_lost: int
    sentence: str
