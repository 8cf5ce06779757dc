"""What goes over the wire in the native dialect: one struct per request, one per answer."""

from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from comptoir.dialects.native.job_file_wire import ArtifactView, InputView
from comptoir.kinds import Chat
from comptoir.reports import KindPay
from comptoir.routing import Needs

PublicId = Annotated[str, Meta(max_length=64)]
Limit = Annotated[int, Meta(ge=1, le=200)]
Amount = Annotated[int, Meta(ge=0, le=2**31)]
HostIds = Annotated[list[Annotated[str, Meta(pattern="^host_[0-9a-f]{32}$")]], Meta(max_length=100)]
StateName = Literal["queued", "running", "completed", "failed", "cancelled", "expired"]


# -- requests ------------------------------------------------------------------------------------------------------


class StatementQuery(msgspec.Struct):
    """Page of a statement."""

    limit: Limit = 50
    before: Annotated[str, Meta(pattern="^([0-9a-f]{32})?$", description="Id of the last transfer seen.")] = ""


class NativeJobsQuery(msgspec.Struct):
    """Page of a list of jobs."""

    limit: Limit = 20
    before: Annotated[str, Meta(pattern="^(job_[0-9a-f]{32})?$", description="Id of the last job seen.")] = ""
    state: StateName | None = None
    everyone: Annotated[bool, Meta(description="All buyers' jobs; operators only.")] = False
    idempotency_key: Annotated[
        str, Meta(max_length=255, description="Only the job that the caller's request under this Idempotency-Key made.")
    ] = ""


class NativeHostsQuery(msgspec.Struct):
    """Page of the list of hosts."""

    limit: Limit = 50
    offset: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    status: Annotated[
        Literal["active", "draining", "offline", "suspended"] | None,
        Meta(description="'suspended' lists those that an operator suspended: all for an operator, else 'mine'."),
    ] = None
    model: Annotated[str, Meta(max_length=256)] | None = None
    mine: Annotated[bool, Meta(description="Only the caller's own hosts, with what they earned.")] = False


class NameQuery(msgspec.Struct):
    """Query of the lists of what can be bought."""

    name: Annotated[str, Meta(max_length=256, description="Only this one, whether or not it is listed.")] | None = None


class NeedsFields(msgspec.Struct, kw_only=True):
    """What an order requires of a host beyond model and price; anything omitted is not required."""

    gpu: Annotated[str, Meta(max_length=200, description="Part of the GPU's name, in any case.")] = ""
    gpus: Amount = 0
    vram_mib: Amount = 0
    cpu_millis: Annotated[int, Meta(ge=0, le=2**31, description="Thousandths of a processor core.")] = 0
    memory_mib: Amount = 0
    disk_mib: Amount = 0
    region: Annotated[str, Meta(max_length=64)] = ""
    tier: Annotated[str, Meta(max_length=64)] = ""
    rate_cap: Annotated[
        list[Annotated[str, Meta(pattern="^[a-z0-9_]{1,32}:[0-9]{1,15}$")]],
        Meta(
            max_length=8, description="Unit and the most micro-dollars that a million of it may cost: token_out:300000."
        ),
    ] = []
    allow: Annotated[HostIds, Meta(description="Only these hosts.")] | None = None
    deny: Annotated[HostIds, Meta(description="None of these hosts.")] = []
    min_reputation: Annotated[float, Meta(ge=0, le=1)] = 0.0

    def needs(self) -> Needs:
        """Return the requirements for routing."""
        return Needs(
            self.gpu,
            self.gpus,
            self.vram_mib,
            self.cpu_millis,
            self.memory_mib,
            self.disk_mib,
            self.region,
            self.tier,
            tuple([(unit, int(most)) for unit, _, most in [cap.partition(":") for cap in self.rate_cap]]),
            _ids(self.allow) if self.allow is not None else None,
            _ids(self.deny),
            self.min_reputation,
        )


class RoutingQuery(NeedsFields, kw_only=True):
    """A hypothetical job, to see which host would get it."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    kind: Annotated[str, Meta(max_length=64, description="Name of a kind that is sold here.")] = Chat.name
    prompt_tokens: Annotated[int, Meta(ge=0, le=10_000_000)] = 100
    max_tokens: Annotated[int, Meta(ge=0, le=10_000_000)] = 128
    preference: Annotated[str, Meta(max_length=64, description="A routing strategy; the server's own when empty.")] = ""
    limit: Annotated[int, Meta(ge=1, le=50)] = 10


def _ids(hosts: list[str]) -> frozenset[bytes]:
    return frozenset([bytes.fromhex(host.removeprefix("host_")) for host in hosts])


class DepositBody(msgspec.Struct, forbid_unknown_fields=True):
    """Money that was paid some other way, to be credited."""

    credits: Annotated[
        Decimal,
        Meta(
            description="Above 0, at most four decimals; 1 credit is $0.01.",
            extra_json_schema={"type": ["number", "string"]},
        ),
    ]
    owner: Annotated[
        str, Meta(pattern="^[A-Za-z0-9_.-]{0,64}$", description="Username or user id; empty is the caller.")
    ] = ""


Reason = Annotated[str, Meta(min_length=1, max_length=500, description="One line; whoever is refused reads it.")]


class ReasonBody(msgspec.Struct, forbid_unknown_fields=True):
    """Why an operator acts."""

    reason: Reason


class ModelReasonBody(msgspec.Struct, forbid_unknown_fields=True):
    """Why an operator acts on the name of a model or container, whether or not it is on offer."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    reason: Reason


class ActsQuery(msgspec.Struct):
    """Page of the record of acts."""

    limit: Limit = 50
    before: Annotated[int, Meta(ge=1, le=2**63 - 1, description="Number of the last act seen.")] | None = None


# -- answers -------------------------------------------------------------------------------------------------------


class Balance(msgspec.Struct):
    """The current state of an account."""

    balance_uusd: int
    held_uusd: int
    """Reserved for jobs that are not over."""
    free_uusd: int
    promo_uusd: int
    """Part of the balance that is promotional: it buys, spent first, and never leaves."""
    payable_uusd: int
    """What is free and not promotional."""


class NativeMe(msgspec.Struct):
    """Who the key belongs to."""

    kind: str
    """``user`` or ``host``."""
    id: str
    name: str
    """Username; for a host its GPU."""
    role: str
    account: Balance


class TransferView(msgspec.Struct):
    """One row of the ledger as its owner sees it."""

    id: str
    kind: str
    """``signup``, ``deposit``, ``allowance``, ``pay``, ``fee``, ``bond`` or ``bond_back``."""
    amount_uusd: int
    """Negative if it left the account."""
    with_: str = msgspec.field(name="with")
    """The other side: a host, a user, or an account of the operator."""
    job: str | None
    at_ms: int
    promo_uusd: int | None
    """Promotional part of the amount, negative if it left; null: posted before promotions were kept apart."""


class StatementView(msgspec.Struct):
    """An account and its newest transfers, newest first."""

    account: Balance
    transfers: list[TransferView]
    next: str | None
    """*before* of the next page; null at the end."""


class Deposited(msgspec.Struct):
    """A posted deposit."""

    transfer: str
    owner: str
    amount_uusd: int
    account: Balance


class UnitView(msgspec.Struct):
    """The count of one unit that a kind is sold in."""

    unit: str
    """Its name: ``token_in``, ``token_out``, ``run``, or another kind's unit."""
    one: str
    """Singular, for people: ``token``."""
    many: str
    count: int
    """So far, while the job runs."""
    most: int | None
    """What the hold covers; null if that is not known."""
    once: bool
    """True: counted once per job (input); false: counted by the pieces of the output."""
    shown: int = 1
    """What to divide *count* and *most* by to show them in *many*: 1,000 of milliseconds that are shown as seconds."""


class PriceView(msgspec.Struct):
    """A price of one unit."""

    unit: str
    uusd_per_million: int
    """Micro-dollars per million units, as all prices are stored."""
    per: int
    """Number of units that a price shown to people is for: a million tokens, one run, 1,000 bytes."""
    words: str
    """What follows the amount in that price: ``per kilobyte``, ``a run``."""


class JobView(msgspec.Struct, kw_only=True):
    """One job."""

    id: str
    state: StateName
    model: str
    """The model; for a chain of containers, their names joined by commas."""
    kind: str
    """``chat``, ``completion``, ``embedding``, ``container``, or another that is sold here."""
    noun: str
    """What its offers are called: ``model``, ``container``."""
    dialect: str
    owner: str
    host: str | None
    created_ms: int
    started_ms: int | None
    finished_ms: int | None
    prompt_tokens: int
    completion_tokens: int
    """So far, while it runs. For a chain of containers: runs."""
    max_tokens: int
    """For a chain of containers: the runs that were bought."""
    hold_uusd: int
    cost_uusd: int
    finish_reason: str | None
    fault: str | None
    """Whose fault a failure was: ``buyer``, ``host``, ``capacity`` or ``coordinator``."""
    error_code: str | None
    error_message: str | None
    receipt: str | None
    """Id of the receipt, once the job is over."""
    queue_position: int | None
    """Jobs before it in the queue; null if it is not waiting."""
    containers: list[str]
    """The chain's containers, in order; empty for a model."""
    units: list[UnitView]
    """What was counted, the input first."""


class JobsView(msgspec.Struct):
    """A page of jobs, newest first."""

    jobs: list[JobView]
    next: str | None


class EventView(msgspec.Struct):
    """One change of a job's state."""

    state: str
    at_ms: int
    detail: str | None


class AttemptView(msgspec.Struct):
    """One host's attempt at the job."""

    id: str
    host: str
    state: str
    first_frame: int
    end_frame: int
    tokens: int
    """For a chain of containers: 1 for a whole run."""
    paid_uusd: int
    started_ms: int
    ended_ms: int | None
    fault: str | None
    container: str | None
    """Which container it ran; null for a model."""
    price_uusd_per_run: int | None
    """Its host's price of a run, rounded up; null for a model."""
    units: list[UnitView]
    """What was counted for it; the input only if its host counted it."""
    prices: list[PriceView]
    """Its host's prices; empty for jobs of a version that did not store them."""
    stage: str | None
    """Which stage of the job it ran, as named in `containers`; null if the job has none."""


class JobDetail(JobView, kw_only=True):
    """One job with its events, attempts and files."""

    price_in_uusd_per_mtok: int
    price_out_uusd_per_mtok: int
    deadline_ms: int
    waited_ms: int | None
    """From submit to the first lease."""
    ran_ms: int | None
    """From the (last) lease to the end."""
    events: list[EventView]
    attempts: list[AttemptView]
    inputs: list[InputView] = []
    """Of a kind with files: what its order names. Empty as well once the order is forgotten."""
    artifacts: list[ArtifactView] = []
    """What its result names so far."""


class PaceView(msgspec.Struct):
    """How fast a host is with a model, in milliseconds."""

    measured: bool
    """False: nothing is measured yet, and these are assumptions."""
    first_token_p50_ms: float
    first_token_p99_ms: float
    token_p50_ms: float
    token_p99_ms: float


class OfferView(msgspec.Struct):
    """One model or container of a host."""

    name: str
    kinds: list[str]
    context_tokens: int
    price_in_uusd_per_mtok: int
    price_out_uusd_per_mtok: int
    """For a container: the price of a million runs."""
    can_continue: bool
    no_promotions: bool
    """True: takes no job that might be paid from promotional credit."""
    capabilities: dict[str, str]
    """What is known of what it can do: ``probed`` (its worker asked for it and got it), ``claimed`` (the server or its
    owner says so) or ``lacking``, for ``tools``, ``vision``, ``schema`` and ``reasoning``; of others nothing is."""
    fingerprint: str
    pace: PaceView
    price_uusd_per_run: int | None
    """For a container, rounded up to the micro-dollar; null for a model."""
    prices: list[PriceView]
    """Prices by the units of its kinds; empty: none of them is sold here."""


class ReputationView(msgspec.Struct):
    """A reputation and its explanation."""

    score: float
    sentence: str
    jobs_done: int
    jobs_failed: int
    jobs_lost: int


class NativeHostView(msgspec.Struct, kw_only=True):
    """One host."""

    id: str
    gpu: str
    vram_mib: int
    region: str
    tier: str
    backend: str
    transport: str
    status: str
    slots: int
    running: int
    gpu_utilization: float
    tokens_done: int
    """Units of output delivered: tokens, runs, whatever its kinds are sold in."""
    created_ms: int
    last_seen_ms: int
    models: list[OfferView]
    models_total: int
    """How many it offers; a list of many hosts shows the first of each."""
    reputation: ReputationView
    earned_uusd: int | None
    """Balance of its account; only for its owner."""
    promo_uusd: int | None
    """Part of it that is promotional: it buys, and never leaves; only for its owner."""
    bond_uusd: int | None
    """What its owner put up for it and may have back; only for its owner."""


class ActView(msgspec.Struct):
    """One act on record."""

    number: int
    """1, 2, 3, …; what is in force has been read by its number."""
    at_ms: int
    operator: str
    """Username, or ``the coordinator`` for what follows from its settings."""
    verb: str
    """``host.suspend``, ``host.resume``, ``host.retire``, ``user.suspend``, ``user.resume``, ``model.quarantine``,
    ``model.release``."""
    subject: str
    """``host_…``, ``usr_…``, or the name of a model."""
    reason: str


class ActsView(msgspec.Struct):
    """A page of acts, newest first."""

    acts: list[ActView]
    next: int | None
    """Number to pass as *before* for older ones."""


class HostsView(msgspec.Struct):
    """A page of hosts in the order in which they registered."""

    hosts: list[NativeHostView]
    total: int


class OwnHostView(NativeHostView, kw_only=True):
    """The calling host, with what it earned."""

    owner: str | None
    linked: bool
    open_jobs: list[str]
    account: Balance
    transfers: list[TransferView]
    """The newest 50."""
    earned_by_kind: list[KindPay]
    """What each kind of work has brought, the best first: of the newest 10,000 payments."""


class ModelView(msgspec.Struct):
    """One model that can be bought now."""

    name: str
    kinds: list[str]
    hosts: int
    price_in_uusd_per_mtok: int
    """Cheapest host's."""
    price_out_uusd_per_mtok: int
    context_tokens: int
    waiting: int
    """Jobs in line for it."""
    prices: list[PriceView]
    """Cheapest host's, by unit."""
    capabilities: dict[str, str]
    """The best that is known of any host (`OfferView.capabilities`); ``lacking`` only if it is of all."""


class WorkView(msgspec.Struct):
    """What can be bought now in units other than tokens; containers have a list of their own."""

    name: str
    noun: str
    """What its kind calls it: ``model``, or the kind's own word."""
    kinds: list[str]
    hosts: int
    prices: list[PriceView]
    """Cheapest host's, by unit."""
    waiting: int
    """Jobs in line for it."""
    capabilities: dict[str, str]
    """The best that is known of any host, by capability of its kinds; ``lacking`` only if it is of all."""


class ModelsView(msgspec.Struct):
    """What is sold by the token, and what is sold in other units; both by name, at most ``models_listed_max``."""

    models: list[ModelView]
    others: list[WorkView]
    models_total: int
    """How many there are; those that are not listed can be looked up by name, and bought."""
    others_total: int


class ContainerView(msgspec.Struct):
    """One container that can be bought now."""

    name: str
    description: str
    """That of most of its hosts; may be empty."""
    image: str
    external: bool
    """Whether a job may begin with it."""
    generates_proofs: bool
    hosts: int
    price_uusd_per_run: int
    """Cheapest host's, rounded up to the micro-dollar."""
    waiting: int
    """Jobs in line for it."""


class ContainersView(msgspec.Struct):
    """Containers by name, at most ``models_listed_max``."""

    containers: list[ContainerView]
    total: int
    """How many there are; those that are not listed can be looked up by name, and bought."""


class DifferenceView(msgspec.Struct):
    """One thing in the books that does not add up."""

    what: str
    """Name of the check."""
    subject: str
    """Public id of the job, hex id of the account or commit record; empty for the whole ledger."""
    recorded: str
    recomputed: str


class AuditView(msgspec.Struct):
    """What an audit found."""

    ok: bool
    differences: list[DifferenceView]
    took_ms: int


class RankedView(msgspec.Struct):
    """One host in a ranking, and why it has that position."""

    host: str
    score: float
    sentence: str
    reasons: dict[str, float]
    cost_max_uusd: int
    finish_ms: float


class RoutingView(msgspec.Struct):
    """Which host would get the job."""

    model: str
    preference: str
    ranked: list[RankedView]
    """Hosts with a free slot, best first; empty when the job would wait or can't run."""
    possible: bool
    """Whether any registered host could ever run it."""
    why_not: str
    """Which filters excluded hosts; empty if none did."""
    waiting: int
    """Jobs in line for the model."""


class StatusView(msgspec.Struct):
    """The trading post in figures."""

    status: str
    """``open``; ``draining`` during shutdown; ``lost`` while commits are missing from the database."""
    version: str
    uptime_s: float
    hosts_active: int
    hosts_registered: int
    models: int
    containers: int
    jobs_waiting: int
    jobs_running: int
    jobs_ended: dict[str, int]
    """Since the start, by final state."""
    routing: str
    fee_bps: int
    coordinator_key: str
    """Id of the key that signs receipts."""
