"""Builders and the naive ranking, for tests and benchmarks."""

from collections.abc import Iterable

from comptoir.routing.filters import is_able, passes
from comptoir.routing.freelist import FreeList
from comptoir.routing.needs import NOTHING, Needs
from comptoir.routing.score import BONUS_PREFIX, NOMINAL, Preference, size_of
from comptoir.routing.types import Candidate, Slots, Spec


def make_host_id(n: int) -> bytes:
    """Return a readable host id."""
    return n.to_bytes(16, "big")


def make_candidate(
    *,
    n: int = 1,
    model: str = "m",
    slots: int = 4,
    running: int = 0,
    price: int = 1_000_000,
    first_frame_ms: float = 200.0,
    inter_frame_ms: float = 20.0,
    reputation: float = 0.5,
    region: str = "eu",
    vram_mib: int = 24_000,
    context_tokens: int = 8192,
    able: frozenset[str] = frozenset(),
    lacking: frozenset[str] = frozenset(),
) -> Candidate:
    """Return a candidate with *running* jobs; *n* is its id and its order."""
    places = Slots(slots)
    places.running = running
    places.count()
    return Candidate(
        make_host_id(n),
        model,
        places,
        n,
        context_tokens=context_tokens,
        rate_in=price // 4,
        rate_out=price,
        region=region,
        vram_mib=vram_mib,
        reputation=reputation,
        first_frame_ms=first_frame_ms,
        inter_frame_ms=inter_frame_ms,
        able=able,
        lacking=lacking,
    )


def make_spec(
    *,
    model: str = "m",
    prompt_tokens: int = 100,
    max_tokens: int = 256,
    price_cap_uusd: int | None = None,
    region: str = "",
    vram_mib: int = 0,
    min_reputation: float = 0.0,
    allow: frozenset[bytes] | None = None,
    deny: frozenset[bytes] = frozenset(),
    prefix_key: bytes | None = None,
    capabilities: frozenset[str] = frozenset(),
) -> Spec:
    """Return the spec of a small chat job without requirements."""
    needs = Needs(region=region, vram_mib=vram_mib, min_reputation=min_reputation, allow=allow)
    return Spec(
        model,
        input_units=prompt_tokens,
        output_units=max_tokens,
        context_tokens=prompt_tokens + max_tokens,
        price_cap_uusd=price_cap_uusd,
        needs=needs if needs != NOTHING else None,
        deny=deny,
        prefix_key=prefix_key,
        capabilities=capabilities,
    )


def make_free_list(candidates: Iterable[Candidate]) -> FreeList:
    """Return the list of model ``m`` with *candidates*."""
    free = FreeList("m")
    for candidate in candidates:
        free.add(candidate)
    return free


def give(free: FreeList, candidate: Candidate, *, prefix_key: bytes | None = None) -> None:
    """Give *candidate* a job, as the fleet does."""
    candidate.slots.running += 1
    candidate.slots.count()
    free.took(candidate, prefix_key)
    free.place(candidate)


def take_back(free: FreeList, candidate: Candidate) -> None:
    """End one of the candidate's jobs, as the fleet does."""
    candidate.slots.running -= 1
    candidate.slots.count()
    free.place(candidate)


def rank_naively(spec: Spec, free: FreeList, preference: Preference, *, limit: int = 1) -> list[Candidate]:
    """Return what `rank` must return, by examining every host."""
    size = size_of(spec) if preference.sized else NOMINAL
    holders = free.holders(spec.prefix_key)
    keyed = []
    for candidate in free.all.values():
        if candidate.slots.free > 0 and passes(spec, candidate):
            measure, minus_score = preference.key(candidate, size)
            bonus = BONUS_PREFIX if candidate in holders else 0.0
            named = spec.needs is not None and spec.needs.allow is not None
            last = not named and free.comes_last(candidate)
            unknown = not is_able(spec, candidate)
            keyed.append((last, unknown, measure, minus_score - bonus, candidate.order, candidate))
    return [entry[5] for entry in sorted(keyed)[:limit]]
