"""Hard filters: what a host must have to be considered, each with a message for why it was excluded."""

from collections.abc import Callable, Iterable
from itertools import islice

from comptoir.kit.ids import public
from comptoir.kit.money import TOKENS_PER_MTOK, cost_up
from comptoir.routing.needs import Needs
from comptoir.routing.types import Candidate, FilterCount, FilterReport, Spec

EXPLAINED_MAX = 1_000
"""Most hosts examined to explain one refusal, so that it costs no more than a few milliseconds."""


def cost_scaled(spec: Spec, candidate: Candidate) -> int:
    """Return the most the job can cost, in micro-dollars times a million (exact)."""
    return spec.input_units * candidate.rate_in + spec.output_units * candidate.rate_out


def passes(spec: Spec, candidate: Candidate) -> bool:
    """Tell whether *candidate* passes every filter; free slots are not checked."""
    return not (
        spec.kind not in candidate.kinds
        or spec.context_tokens > candidate.context_tokens
        or (spec.price_cap_uusd is not None and cost_scaled(spec, candidate) > spec.price_cap_uusd * TOKENS_PER_MTOK)
        or candidate.host_id in spec.deny
        or (spec.needs is not None and not meets(spec.needs, candidate))
        or (spec.must_continue and not candidate.can_continue)
        or (candidate.text_only and not spec.text_only)
        or (candidate.no_promotions and spec.promotional)
        or (spec.capabilities and not spec.capabilities.isdisjoint(candidate.lacking))
        or (spec.stoppable and not candidate.stops_at_once)
        or (spec.here and candidate.remote)
        or ((spec.proven or spec.tried_groups) and not candidate.proven and _newcomer(spec, candidate) is not None)
        or (candidate.access is not None and candidate.access.refuses(spec.entry) is not None)
    )


def is_able(spec: Spec, candidate: Candidate) -> bool:
    """Tell whether *candidate* is known to have all capabilities that the job needs; always, if it needs none."""
    return spec.capabilities <= candidate.able


def meets(needs: Needs, candidate: Candidate) -> bool:
    """Tell whether *candidate* has everything that an order needs."""
    has = candidate.capacity
    return not (
        (needs.region and needs.region != candidate.region)
        or (needs.tier and needs.tier != candidate.tier)
        or needs.vram_mib > candidate.vram_mib
        or (needs.gpu and needs.gpu.casefold() not in candidate.gpu.casefold())
        or needs.gpus > has.gpus
        or needs.cpu_millis > has.cpu_millis
        or needs.memory_mib > has.memory_mib
        or needs.disk_mib > has.disk_mib
        or (needs.allow is not None and candidate.host_id not in needs.allow)
        or candidate.host_id in needs.deny
        or needs.min_reputation > candidate.reputation
        or (needs.rate_caps and _rate(needs, candidate) is not None)
    )


def _price(spec: Spec, candidate: Candidate) -> str | None:
    if spec.price_cap_uusd is None:
        return None
    cost_uusd = cost_up(cost_scaled(spec, candidate))
    over = cost_uusd > spec.price_cap_uusd
    return f"up to {cost_uusd} micro-dollars against a cap of {spec.price_cap_uusd}" if over else None


def _context(spec: Spec, candidate: Candidate) -> str | None:
    asked = spec.context_tokens
    return f"{asked} tokens asked, {candidate.context_tokens} fit" if asked > candidate.context_tokens else None


def _kind(spec: Spec, candidate: Candidate) -> str | None:
    return f"serves {', '.join(sorted(candidate.kinds))}" if spec.kind not in candidate.kinds else None


def _tier(needs: Needs, candidate: Candidate) -> str | None:
    return f"tier {candidate.tier or 'unknown'}" if needs.tier and needs.tier != candidate.tier else None


def _vram(needs: Needs, candidate: Candidate) -> str | None:
    short = needs.vram_mib > candidate.vram_mib
    return f"{candidate.vram_mib} MiB of {needs.vram_mib}" if short else None


def _gpu(needs: Needs, candidate: Candidate) -> str | None:
    other = needs.gpu and needs.gpu.casefold() not in candidate.gpu.casefold()
    return f"{candidate.gpu or 'unknown'} is no {needs.gpu}" if other else None


def _short(needed: int, has: int, unit: str) -> str | None:
    """Return why *has* is too little, None if it is enough; 0 means unknown."""
    if needed <= has:
        return None
    return f"{has} of {needed}{unit}" if has else f"unknown, {needed}{unit} needed"


def _region(needs: Needs, candidate: Candidate) -> str | None:
    other = needs.region and needs.region != candidate.region
    return f"region {candidate.region or 'unknown'}" if other else None


def _rate(needs: Needs, candidate: Candidate) -> str | None:
    for unit, most in needs.rate_caps:
        rate = candidate.rates.get(unit)
        if rate is None:
            return f"not sold by the {unit}"
        if rate > most:
            return f"{rate} micro-dollars per million {unit} against a cap of {most}"
    return None


def _reputation(needs: Needs, candidate: Candidate) -> str | None:
    short = needs.min_reputation > candidate.reputation
    return f"{candidate.reputation:.2f} of {needs.min_reputation:.2f}" if short else None


def _denied(spec: Spec, candidate: Candidate) -> str | None:
    named = candidate.host_id in spec.deny or (spec.needs is not None and candidate.host_id in spec.needs.deny)
    return "on it" if named else None


def _newcomer(spec: Spec, candidate: Candidate) -> str | None:
    if candidate.proven:
        return None
    if spec.proven:
        return f"reputation {candidate.reputation:.2f}, and newcomers have had their attempts"
    return "one like it has tried" if candidate.group in spec.tried_groups else None


def _capabilities(spec: Spec, candidate: Candidate) -> str | None:
    missing = spec.capabilities & candidate.lacking
    return f"can't do {', '.join(sorted(missing))}" if missing else None


def _need(check: Callable[[Needs, Candidate], str | None]) -> Callable[[Spec, Candidate], str | None]:
    """Return *check* as a filter; an order without needs passes it."""
    return lambda spec, candidate: check(spec.needs, candidate) if spec.needs is not None else None


FILTERS: tuple[tuple[str, Callable[[Spec, Candidate], str | None]], ...] = (
    ("kind", _kind),
    ("context length", _context),
    ("tier", _need(_tier)),
    ("VRAM", _need(_vram)),
    ("GPU", _need(_gpu)),
    ("GPU count", _need(lambda n, c: _short(n.gpus, c.capacity.gpus, ""))),
    ("CPU", _need(lambda n, c: _short(n.cpu_millis, c.capacity.cpu_millis, " thousandths of a core"))),
    ("memory", _need(lambda n, c: _short(n.memory_mib, c.capacity.memory_mib, " MiB"))),
    ("disk", _need(lambda n, c: _short(n.disk_mib, c.capacity.disk_mib, " MiB"))),
    ("region", _need(_region)),
    ("price cap", _price),
    ("rate cap", _need(_rate)),
    ("allow list", _need(lambda n, c: "not on it" if n.allow is not None and c.host_id not in n.allow else None)),
    ("deny list", _denied),
    ("reputation floor", _need(_reputation)),
    (
        "plain text",
        lambda s, c: "takes one text, a length and a temperature" if c.text_only and not s.text_only else None,
    ),
    ("promotions", lambda s, c: "takes no promotional credit" if s.promotional and c.no_promotions else None),
    ("capabilities", _capabilities),
    ("stopping", lambda s, c: "can't be stopped at once" if s.stoppable and not c.stops_at_once else None),
    ("continuation", lambda s, c: "can't go on from frames" if s.must_continue and not c.can_continue else None),
    ("container's door", lambda s, c: c.access.refuses(s.entry) if c.access is not None else None),
    ("newcomers' share", _newcomer),
    ("place", lambda s, c: "linked to another coordinator" if s.here and c.remote else None),
)
"""Name and check of every filter, in reporting order; a check returns the figure that failed, or ``None``."""


def largest_context(spec: Spec, candidates: Iterable[Candidate]) -> int:
    """Return the largest context among those of the first `EXPLAINED_MAX` of *candidates* that pass; 0: none does."""
    return max((one.context_tokens for one in islice(candidates, EXPLAINED_MAX) if passes(spec, one)), default=0)


def explain(spec: Spec, candidates: Iterable[Candidate], *, hosts: int | None = None) -> FilterReport:
    """Count for every filter how many of *candidates* it excludes, with the first as example.

    Args:
        hosts: how many there are in all, if *candidates* has no ``len``; at most `EXPLAINED_MAX` are examined.
    """
    counts = dict.fromkeys((name for name, _ in FILTERS), 0)
    examples: dict[str, str] = {}
    looked_at = total = 0
    for candidate in candidates:
        total += 1
        if looked_at == EXPLAINED_MAX:
            if hosts is not None:
                break
            continue
        looked_at += 1
        for name, check in FILTERS:
            why = check(spec, candidate)
            if why is not None:
                counts[name] += 1
                examples.setdefault(name, f"{public('host', candidate.host_id)}: {why}")
    told = tuple(FilterCount(name, n, examples[name]) for name, n in counts.items() if n)
    return FilterReport(spec.model, total if hosts is None else hosts, looked_at, told)
