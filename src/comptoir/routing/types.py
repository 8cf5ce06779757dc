"""What routing works on: a job's requirements, the hosts that could run it, and why one was chosen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import msgspec

from comptoir.kinds import Chat, Completion
from comptoir.routing.needs import NO_CAPACITY, Capacity, Needs

PRIOR_FIRST_FRAME_MS = 500.0
PRIOR_INTER_FRAME_MS = 30.0
"""Times assumed for a host before it is measured."""

LOAD_STEPS = 8
"""Load is scored in eighths, so that most jobs do not move a host with many slots in the lists."""


PROVEN_REPUTATION = 0.5
"""Reputation from which a host is proven: it is likelier to answer well than not. Every other host is a newcomer."""


class Spec(msgspec.Struct, frozen=True, gc=False):
    """What one job requires of a host. The hard limits come first; empty or ``None`` means "any"."""

    model: str
    kind: str = Chat.name
    input_units: int = 0
    """Estimated units of input, >= 0."""
    output_units: int = 0
    """Most units of output, over all answers, >= 0."""
    context_tokens: int = 0
    """Context length that each answer needs; 0: the kind has no context."""
    price_cap_uusd: int | None = None
    """Most the whole job may cost: input and *output_units* at the host's prices."""
    needs: Needs | None = None
    """The order's requirements on the machine and the host; None: none."""
    deny: frozenset[bytes] = frozenset()
    """Ids of hosts that have tried the job, or can't continue it."""
    text_only: bool = True
    """Whether the job is one text with a length and a temperature, so that text-only offers can take it."""
    must_continue: bool = False
    """Whether the host has to be able to continue from delivered frames (a second attempt)."""
    here: bool = False
    """Whether the host has to be connected to this coordinator."""
    stoppable: bool = False
    """Whether the host has to receive a cancellation at once (it starts beside another one)."""
    capabilities: frozenset[str] = frozenset()
    """What the host has to be able to do. One that is known not to does not qualify; one of which it is not known comes
    after those of which it is."""
    promotional: bool = False
    """Whether the job may be paid from promotional credit, which some hosts don't take."""
    entry: object | None = None
    """What the `AccessPolicy` of an offer needs to know about the job; not read by anything else. Hashable."""
    proven: bool = False
    """Whether only proven hosts qualify: newcomers had their share of the job's attempts."""
    tried_groups: frozenset[bytes] = frozenset()
    """Groups of newcomers that have tried the job (`Candidate.group`); their other newcomers do not qualify."""
    judges: bool = False
    """Whether the host gives a second opinion: it is the most trusted one, whatever the strategy (`MOST_TRUSTED`)."""
    preference: str = "balanced"
    """Name of a strategy, see `PREFERENCES`."""
    prefix_key: bytes | None = None
    """Identifies the prompt's prefix: a host that recently served the same one may still have it cached."""


class AccessPolicy(Protocol):
    """Which jobs an offer with restricted access admits; declared by its host."""

    def refuses(self, entry: object | None) -> str | None:
        """Return why a job with this `Spec.entry` is not admitted; None: it is. Called for every host examined."""
        ...


class Slots:
    """Job slots of one host, shared by all models that it offers. Changed only by the fleet."""

    __slots__ = ("free", "open", "running", "total", "waiting")

    def __init__(self, total: int) -> None:
        self.total = total
        """Jobs the host runs at once, >= 1."""
        self.running = 0
        """Jobs it runs, >= 0; above *total* only until jobs end after the offer was reduced."""
        self.open = True
        """Whether it takes new jobs at all (connected, not draining)."""
        self.waiting: int | None = None
        """Polls that a polling host holds open; ``None`` for hosts that are always reachable."""
        self.free = total
        """Jobs it could take now; updated by :meth:`count`."""

    def count(self) -> int:
        """Recompute *free* after a change, and return it."""
        free = self.total - self.running if self.open else 0
        if self.waiting is not None and free > self.waiting:
            free = self.waiting
        self.free = free if free > 0 else 0
        return self.free

    @property
    def load_step(self) -> int:
        """Load in eighths, rounded down: 0 (idle) to 8 (full)."""
        return min(LOAD_STEPS, LOAD_STEPS * self.running // self.total)


@dataclass(eq=False, slots=True)
class Candidate:
    """One host with one of its models. The fleet owns and changes it; `rank` only reads.

    The measured fields are *published* values: the fleet updates them when the measurement has moved by more than 5 %.
    """

    host_id: bytes
    model: str
    slots: Slots
    order: int
    """Unique within the model, ascending by joining; breaks ties, so that results are deterministic."""
    kinds: frozenset[str] = frozenset((Chat.name, Completion.name))
    context_tokens: int = 4096
    rate_in: int = 0
    """Price of the input, micro-dollars per million units."""
    rate_out: int = 0
    """Price of the output, micro-dollars per million units."""
    can_continue: bool = False
    text_only: bool = False
    """Whether the host takes only text-only jobs (`link.ModelOffer.text_only`)."""
    no_promotions: bool = False
    """Whether the host takes no job that may be paid from promotional credit."""
    able: frozenset[str] = frozenset()
    """Capabilities that the host has, as far as it says."""
    lacking: frozenset[str] = frozenset()
    """Capabilities that it is known not to have; of all others nothing is known."""
    stops_at_once: bool = True
    """Whether the host receives a cancellation at once."""
    remote: bool = False
    """Whether the host is connected to another coordinator, which decides about its slots."""
    gone: bool = False
    """Whether the host has been offline for so long that no job waits for it; kept by `FreeList`'s methods."""
    access: AccessPolicy | None = None
    """Which jobs the offer admits; None: all."""
    region: str = ""
    tier: str = ""
    gpu: str = ""
    vram_mib: int = 0
    capacity: Capacity = NO_CAPACITY
    rates: Mapping[str, int] = field(default_factory=dict)
    """Micro-dollars per million of each unit that the offer is sold by."""
    reputation: float = 0.25
    group: bytes = b""
    """Whom the host belongs with, as far as can be told: hosts of one group fail together."""
    proven: bool = False
    """Whether *reputation* is at least `PROVEN_REPUTATION`; kept by `FreeList`'s methods."""
    first_frame_ms: float = PRIOR_FIRST_FRAME_MS
    """Median time from lease to the first frame."""
    inter_frame_ms: float = PRIOR_INTER_FRAME_MS
    """Median time between two frames."""
    turn: int = 0
    """When it was last chosen (a counter per model): the order of `round_robin`."""
    picks: int = 0
    """Jobs given, counted from the level of the others when it joined: the order of `equal_weighted`."""
    virtual_time: int = 0
    """Jobs given per slot, in strides: the order of `weighted_round_robin`."""
    balance: dict[object, float] = field(default_factory=dict, repr=False)
    """Balanced score without load per size class, cached by `score`; cleared when a price or figure changes."""

    @property
    def weight(self) -> int:
        """Share of jobs under `weighted_round_robin`: the host's slots."""
        return self.slots.total


class Size(NamedTuple):
    """The size class of a job: hosts are kept sorted for these, not for every pair of numbers."""

    input_units: int
    output_units: int


@dataclass(frozen=True, slots=True)
class Ranked:
    """A host in a ranking, and why it has that position."""

    candidate: Candidate
    score: float
    """The balanced score, bonus included; only `balanced` orders by it alone."""
    reasons: Mapping[str, float]
    """Contribution of each term. The balanced terms sum to *score*; the strategy's own measure, if any, is added."""
    sentence: str
    """The same for people."""
    cost_max_uusd: int
    """The job's price here if all of *output_units* is used, rounded up."""
    finish_ms: float
    """Predicted time to the last frame if every token is used."""


@dataclass(frozen=True, slots=True)
class FilterCount:
    """How many hosts one filter excluded."""

    filter: str
    count: int
    example: str
    """The first host excluded, and the figure that excluded it."""


@dataclass(frozen=True, slots=True)
class FilterReport:
    """Why no host can run a job; a host is counted at every filter that it fails."""

    model: str
    hosts: int
    """Hosts that offer the model."""
    looked_at: int
    """How many of them were counted, at most `EXPLAINED_MAX`."""
    filters: tuple[FilterCount, ...]

    def sentence(self) -> str:
        """Return the report in one line, for people."""
        if not self.hosts:
            return f"No registered host offers the model {self.model}."
        of = f"{self.hosts} hosts" if self.hosts > 1 else "the one host"
        told = (f"{each.filter} turns away {each.count} (for example {each.example})" for each in self.filters)
        return f"None of {of} offering {self.model} could run this: {'; '.join(told)}."
