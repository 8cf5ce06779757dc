"""Quote: what a job may cost beyond its hold, and its new terms when the hosts that are left cost more than that.

A job is held at the price of the host that was chosen first, or of the median host. If that host is busy, lost, silent
or gone, or a dearer one is free while the job waits, the job is quoted anew: the command that leases it raises its
hold, if the buyer's free credit covers it. Never above what the dearest proven host of the model cost when the job was
bought, and never for a host beyond a rate cap of the order (`routing/needs.py:Needs.rate_caps`).
"""

from collections.abc import Sequence

import msgspec

from comptoir.dispatch.core import Core, State
from comptoir.jobs import Lease, LiveJob, Start, requote_rows
from comptoir.kinds import Part, Stage, Terms, encode_stages, hold_of, quoted_anew
from comptoir.kit.db import Tx
from comptoir.kit.money import TOKENS_PER_MTOK
from comptoir.ledger import Book, InsufficientCredit

DEAREST_S = 2.0
"""How long a model's highest prices are reused: finding them visits every host that offers the model."""

MODELS_MAX = 10_000
"""Models whose highest prices are cached; beyond it the cache is cleared."""


class DearestPrices(State):
    """Cached highest prices (in, out) by model, each with the time at which it expires."""

    def __init__(self, core: Core) -> None:
        self.cached: dict[str, tuple[float, tuple[int, int]]] = {}


class QuotedStart(Start, frozen=True, kw_only=True):
    """A lease that begins at new terms."""

    owner_id: bytes
    terms: Terms
    stages: tuple[Stage, ...]
    own_money: bool
    """Whether the host takes no promotional credit."""


def dearest(core: Core, model: str, now_s: float) -> tuple[int, int] | None:
    """Return the highest prices (in, out) at which a proven host that is here offers *model*; at most 2 s old.

    A newcomer that asks for a fortune does not set what others' jobs may cost; where no host is proven, all count.
    None: at most one host offers it, so that nothing can be quoted anew.
    """
    known = core.fleet.free_list(model)
    if known is None or known.hosts_here < 2:
        return None
    prices = core.state(DearestPrices).cached
    cached = prices.get(model)
    if cached is None or cached[0] < now_s:
        here = [candidate for candidate in known.all.values() if not candidate.gone]
        here = [candidate for candidate in here if candidate.proven] or here
        found = max([each.rate_in for each in here]), max([each.rate_out for each in here])
        if len(prices) >= MODELS_MAX:
            prices.clear()
        cached = prices[model] = (now_s + DEAREST_S, found)
    return cached[1]


def ceilings(core: Core, parts: Sequence[Part], rates: Sequence[tuple[int, int]], now_s: float) -> tuple[int, ...]:
    """Return the most that each of *parts* may be held at if it is quoted anew; empty: none may cost more than now.

    Args:
        rates: the prices (in, out) at which each is held now.
    """
    if len(parts) == 1:
        most, (rate,) = dearest(core, parts[0].model, now_s), rates
        return () if most is None or (most[0] <= rate[0] and most[1] <= rate[1]) else (hold_of(parts[0], most),)
    highest = [dearest(core, part.model, now_s) or rate for part, rate in zip(parts, rates, strict=True)]
    return tuple(map(hold_of, parts, highest))


def price_cap_uusd(job: LiveJob, part: Part) -> int:
    """Return the most that *part*, the current one of *job*, may cost at its next host."""
    return max(part.hold_uusd, job.ceilings[job.kind.stage(job)]) if job.ceilings else part.hold_uusd


def new_quote(job: LiveJob, lease: Lease) -> tuple[Terms, tuple[Stage, ...]] | None:
    """Return the terms and stages at which *job* may run under *lease*; None: its present ones cover it."""
    if not job.ceilings:
        return None
    part = job.kind.part(job)
    rates = (lease.rate_in, lease.rate_out)
    # As routing compares prices, so that a host that was within the hold is never quoted anew.
    if part.input_expected * rates[0] + part.output_max * rates[1] <= part.hold_uusd * TOKENS_PER_MTOK:
        return None
    hold_uusd = min(max(part.hold_uusd, hold_of(part, rates)), price_cap_uusd(job, part))
    return quoted_anew(job.terms, job.stages, job.kind.stage(job), part=part, rates=rates, hold_uusd=hold_uusd)


def quoted_start(
    start: Start, quote: tuple[Terms, tuple[Stage, ...]], *, owner_id: bytes, own_money: bool
) -> QuotedStart:
    """Return *start* at the terms and stages of *quote* (`new_quote`)."""
    terms, stages = quote
    return QuotedStart(
        **msgspec.structs.asdict(start), owner_id=owner_id, terms=terms, stages=stages, own_money=own_money
    )


def grow_holds(tx: Tx, starts: Sequence[QuotedStart]) -> dict[bytes, bool | InsufficientCredit]:
    """Raise the holds of jobs that begin at new terms, and store the terms.

    Returns by job whether its buyer's own money covers the new hold, or why nothing was changed.
    """
    book = Book.load(tx, [item.owner_id for item in starts], [item.job_id for item in starts])
    outcomes: dict[bytes, bool | InsufficientCredit] = {}
    grown: list[QuotedStart] = []
    for item in starts:
        try:
            outcomes[item.job_id] = book.grow(
                job_id=item.job_id, amount_uusd=item.terms.hold_uusd, own_money=item.own_money
            )
            grown.append(item)
        except InsufficientCredit as short:
            outcomes[item.job_id] = short
    if grown:
        book.apply(tx)
        requote_rows(tx, [(item.job_id, item.terms, encode_stages(item.stages)) for item in grown])
    return outcomes
