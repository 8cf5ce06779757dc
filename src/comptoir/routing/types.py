"""What routing looks at: a job's wishes, the hosts that could take it, and why one was chosen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from comptoir.kinds import Chat, Completion
from comptoir.routing.needs import NO_CAPACITY, Capacity, Needs

PRIOR_FIRST_FRAME_MS = 500.0
PRIOR_INTER_FRAME_MS = 30.0
"""What a host is taken to need before anything of its own was measured."""

LOAD_STEPS = 8
"""Load is scored in eighths, so that a host with many slots keeps its place in the lists for most jobs."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What one job asks of a host. The hard limits come first; empty or ``None`` means "any"."""

    model: str
    kind: str = Chat.name
    input_units: int = 0
    """Estimate of the units of the kind's input, >= 0."""
    output_units: int = 0
    """Most units of its output, over all answers, >= 0."""
    context_tokens: int = 0
    """What each answer needs of a host's context; 0: the kind knows none."""
    price_cap_uusd: int | None = None
    """Most the whole job may cost: input and *output_units* at the host's prices."""
    needs: Needs | None = None
    """What its order asks of the machine and the host; None: nothing."""
    deny: frozenset[bytes] = frozenset()
    """Host ids that have tried it, or can't go on with it."""
    text_only: bool = True
    """The job is one text with a length and a temperature: all that a host with a text-only offer is given."""
    must_continue: bool = False
    """The host has to be able to go on from delivered frames (a second attempt)."""
    here: bool = False
    """The host has to be one of this coordinator's own."""
    stoppable: bool = False
    """The host has to hear at once that the job is cancelled (it begins beside another one)."""
    entry: object | None = None
    """What the `AccessPolicy` of an offer has to know of the job; read by nothing else. Hashable."""
    preference: str = "balanced"
    """Name of a strategy, see `PREFERENCES`."""
    prefix_key: bytes | None = None
    """Names the beginning of the prompt: a host that lately served the same one may still have it cached."""


class AccessPolicy(Protocol):
    """Which jobs may be run under an offer that is not open to every one; whoever offers it says so."""

    def refuses(self, entry: object | None) -> str | None:
        """Say why a job with this `Spec.entry` is not admitted; None: it is. Called for every host considered."""
        ...


class Slots:
    """Places for jobs on one host, shared by all models it offers. Changed by the fleet only."""

    __slots__ = ("free", "open", "running", "total", "waiting")

    def __init__(self, total: int) -> None:
        self.total = total
        """Jobs the host runs at once, >= 1."""
        self.running = 0
        """Jobs it has, >= 0; above *total* only while a smaller offer runs dry."""
        self.open = True
        """Whether it takes new jobs at all (connected, not draining)."""
        self.waiting: int | None = None
        """For hosts that poll: how many polls they hold open. ``None`` for hosts that are always reachable."""
        self.free = total
        """Jobs it could take now; kept by :meth:`count`."""

    def count(self) -> int:
        """Work out *free* anew after a change, and return it."""
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

    The measured fields are *published* values: the fleet changes them when the truth has moved by more than 5 %.
    """

    host_id: bytes
    model: str
    slots: Slots
    order: int
    """Unique within the model, ascending by joining; breaks ties, so that the same question has one answer."""
    kinds: frozenset[str] = frozenset((Chat.name, Completion.name))
    context_tokens: int = 4096
    rate_in: int = 0
    """Micro-dollars per million units of the input of the offer's kinds."""
    rate_out: int = 0
    """The same of the output."""
    can_continue: bool = False
    text_only: bool = False
    """The host takes plain jobs only (`link.ModelOffer.text_only`)."""
    stops_at_once: bool = True
    """The host hears at once that a job is cancelled."""
    remote: bool = False
    """The host is linked to another coordinator, which decides about its slots."""
    access: AccessPolicy | None = None
    """Which jobs the offer is open to; None: to every one."""
    region: str = ""
    tier: str = ""
    gpu: str = ""
    vram_mib: int = 0
    capacity: Capacity = NO_CAPACITY
    rates: Mapping[str, int] = field(default_factory=dict)
    """Micro-dollars per million of each unit that the offer is sold by."""
    reputation: float = 0.25
    first_frame_ms: float = PRIOR_FIRST_FRAME_MS
    """Median time from lease to the first frame."""
    inter_frame_ms: float = PRIOR_INTER_FRAME_MS
    """Median time between two frames."""
    turn: int = 0
    """When it was last chosen (a counter of the model): the order of `round_robin`."""
    picks: int = 0
    """Jobs given, counted from the level of the others when it joined: the order of `equal_weighted`."""
    virtual_time: int = 0
    """Jobs given per slot, in strides: the order of `weighted_round_robin`."""
    balance: dict[object, float] = field(default_factory=dict, repr=False)
    """Balanced score without load per size class, remembered by `score`; emptied when a price or figure changes."""

    @property
    def weight(self) -> int:
        """Share of jobs under `weighted_round_robin`: the host's slots."""
        return self.slots.total


@dataclass(frozen=True, slots=True)
class Size:
    """The size class of a job: hosts are kept sorted for these, not for every pair of numbers."""

    input_units: int
    output_units: int


@dataclass(frozen=True, slots=True)
class Ranked:
    """A host and why it stands where it stands."""

    candidate: Candidate
    score: float
    """The balanced score, bonus included; only `balanced` orders by it alone."""
    reasons: Mapping[str, float]
    """Term to contribution. The balanced terms sum to *score*; the strategy's own measure, if any, is beside them."""
    sentence: str
    """The same for people."""
    cost_max_uusd: int
    """The job's price here if all of *output_units* is used, rounded up."""
    finish_ms: float
    """Predicted time to the last frame if every token is used."""


@dataclass(frozen=True, slots=True)
class FilterCount:
    """How many hosts one filter turned away."""

    filter: str
    count: int
    example: str
    """The first host turned away, and by which figure."""


@dataclass(frozen=True, slots=True)
class FilterReport:
    """Why nobody can run a job; a host is counted at every filter it fails."""

    model: str
    hosts: int
    """Hosts that offer the model."""
    looked_at: int
    """How many of them were counted, at most `EXPLAINED_MAX`."""
    filters: tuple[FilterCount, ...]

    def sentence(self) -> str:
        """Say it in one line for the person who asked."""
        if not self.hosts:
            return f"No registered host offers the model {self.model}."
        of = f"{self.hosts} hosts" if self.hosts > 1 else "the one host"
        told = (f"{each.filter} turns away {each.count} (for example {each.example})" for each in self.filters)
        return f"None of {of} offering {self.model} could run this: {'; '.join(told)}."
