"""What a running worker reports to its owner (the CLI shows it live): small frozen structs, one per event."""

from collections.abc import Callable

import msgspec


class EngineReady(msgspec.Struct, frozen=True):
    """An engine is loaded and measured."""

    engine: str
    models: list[str]
    first_token_s: float
    """Time to the first piece of a short answer; 0 if there was nothing to measure (embedding models)."""
    tokens_per_s: float
    """Units of its first model's output per second; for the built-in kinds, tokens."""
    goes_on_by: str = ""
    """How it continues an answer that another host began; empty: it can't."""
    run_prices_uusd: dict[str, int] = {}
    """Price of a run, rounded up, of models sold by the run; *prices* has the same for every unit."""
    prices: dict[str, dict[str, int]] = {}
    """Micro-dollars per million, by model and unit, the input's first."""
    capabilities: dict[str, dict[str, str]] = {}
    """What is known of what each model can do (`comptoir.kinds.capabilities`), of those of which anything is."""


class EngineSkipped(msgspec.Struct, frozen=True):
    """An engine could not be used; the worker continues with the others."""

    engine: str
    why: str


class HardwareFound(msgspec.Struct, frozen=True):
    """What the worker runs on."""

    gpu: str
    vram_mib: int


class Registered(msgspec.Struct, frozen=True):
    """The worker has a host id and a key."""

    host_id: str
    new: bool
    """False when the key of an earlier start was used again."""
    state_file: str
    bond_uusd: int = 0
    """What the owner put up for this host just now."""


class Connected(msgspec.Struct, frozen=True):
    """The link is up."""

    host_id: str
    resumed: int
    """Leases resumed after a reconnect."""


class Reconnecting(msgspec.Struct, frozen=True):
    """The link (or the registration) failed and is retried."""

    in_s: float
    why: str


class OfferChanged(msgspec.Struct, frozen=True):
    """The engines serve other models than before."""

    models: list[str]


class OffersIgnored(msgspec.Struct, frozen=True):
    """The coordinator ignores some offers now, or none any more."""

    reasons: dict[str, str]
    """By model."""


class JobStarted(msgspec.Struct, frozen=True):
    """A job begins at an engine."""

    job_id: str
    model: str
    kind: str


class JobDone(msgspec.Struct, frozen=True):
    """The coordinator closed a lease and reported what it earned."""

    job_id: str
    state: str
    """``done``, ``failed`` or ``lost``; ``paid`` for work that was reported as done before."""
    earned_uusd: int
    tokens: int
    """Units of the kind's output: tokens, runs, bytes."""
    balance_uusd: int
    """0: not known, as after a lease that earned nothing."""
    kind: str = ""
    """Kind of the job; empty if its lease was already forgotten."""
    promo_uusd: int = 0
    """Part of the balance that is promotional: it buys, and never leaves."""


class JobFailed(msgspec.Struct, frozen=True):
    """This worker could not finish a job."""

    job_id: str
    code: str
    message: str
    fault: str


class Draining(msgspec.Struct, frozen=True):
    """No new jobs; *open* leases are being finished."""

    open: int


class Stopped(msgspec.Struct, frozen=True):
    """The worker is down; *abandoned* leases were not finished in time."""

    abandoned: int


Event = (
    EngineReady
    | EngineSkipped
    | HardwareFound
    | Registered
    | Connected
    | Reconnecting
    | OfferChanged
    | OffersIgnored
    | JobStarted
    | JobDone
    | JobFailed
    | Draining
    | Stopped
)
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Do nothing: the default listener."""
