"""Hard filters: what a host must have to be considered, each with the words for why it was turned away."""

from collections.abc import Callable, Iterable

from comptoir.kit.ids import public
from comptoir.kit.money import TOKENS_PER_MTOK, cost_up
from comptoir.routing.types import Candidate, FilterCount, Refused, Spec

EXPLAINED_MAX = 1_000
"""Most hosts counted for one refusal: an impossible wish must not cost more than a few milliseconds."""


def cost_scaled(spec: Spec, candidate: Candidate) -> int:
    """Return the most the job can cost, in micro-dollars times a million (exact)."""
    return spec.input_units * candidate.rate_in + spec.output_units * candidate.rate_out


def passes(spec: Spec, candidate: Candidate) -> bool:
    """Say whether every filter lets *candidate* through; free slots are not looked at."""
    return not (
        spec.kind not in candidate.kinds
        or spec.context_tokens > candidate.context_tokens
        or (spec.tier and spec.tier != candidate.tier)
        or spec.min_vram_mib > candidate.vram_mib
        or (spec.region and spec.region != candidate.region)
        or (spec.price_cap_uusd is not None and cost_scaled(spec, candidate) > spec.price_cap_uusd * TOKENS_PER_MTOK)
        or (spec.allow is not None and candidate.host_id not in spec.allow)
        or candidate.host_id in spec.deny
        or spec.min_reputation > candidate.reputation
        or (spec.must_continue and not candidate.can_continue)
        or (candidate.text_only and not spec.plain)
        or (spec.stoppable and not candidate.stops_at_once)
        or (spec.here and candidate.away)
        or (candidate.access is not None and candidate.access.refuses(spec.entry) is not None)
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


def _tier(spec: Spec, candidate: Candidate) -> str | None:
    return f"tier {candidate.tier or 'unknown'}" if spec.tier and spec.tier != candidate.tier else None


def _vram(spec: Spec, candidate: Candidate) -> str | None:
    short = spec.min_vram_mib > candidate.vram_mib
    return f"{candidate.vram_mib} MiB of {spec.min_vram_mib}" if short else None


def _region(spec: Spec, candidate: Candidate) -> str | None:
    return f"region {candidate.region or 'unknown'}" if spec.region and spec.region != candidate.region else None


def _reputation(spec: Spec, candidate: Candidate) -> str | None:
    short = spec.min_reputation > candidate.reputation
    return f"{candidate.reputation:.2f} of {spec.min_reputation:.2f}" if short else None


FILTERS: tuple[tuple[str, Callable[[Spec, Candidate], str | None]], ...] = (
    ("kind", _kind),
    ("context length", _context),
    ("tier", _tier),
    ("VRAM", _vram),
    ("region", _region),
    ("price cap", _price),
    ("allow list", lambda s, c: "not on it" if s.allow is not None and c.host_id not in s.allow else None),
    ("deny list", lambda s, c: "on it" if c.host_id in s.deny else None),
    ("reputation floor", _reputation),
    ("plain text", lambda s, c: "takes one text, a length and a temperature" if c.text_only and not s.plain else None),
    ("stopping", lambda s, c: "can't be stopped at once" if s.stoppable and not c.stops_at_once else None),
    ("continuation", lambda s, c: "can't go on from frames" if s.must_continue and not c.can_continue else None),
    ("container's door", lambda s, c: c.access.refuses(s.entry) if c.access is not None else None),
    ("place", lambda s, c: "linked to another coordinator" if s.here and c.away else None),
)
"""Name and check of every filter, in the order they are told; a check answers the figure that failed, or ``None``."""


def explain(spec: Spec, candidates: Iterable[Candidate], *, hosts: int | None = None) -> Refused:
    """Count for every filter how many of *candidates* it turns away, with the first as example.

    Args:
        hosts: how many there are in all, when *candidates* can't say by ``len``; at most `EXPLAINED_MAX` are looked at.
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
    return Refused(spec.model, total if hosts is None else hosts, looked_at, told)
