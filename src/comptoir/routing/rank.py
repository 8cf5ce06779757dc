"""Choosing and ranking hosts for a job."""

from comptoir.routing.freelist import FreeList
from comptoir.routing.score import BONUS_PREFIX, Preference, reasons_of
from comptoir.routing.types import Candidate, Ranked, Spec


def choose(spec: Spec, free: FreeList, preference: Preference) -> Candidate | None:
    """Return the best free host without the explanation (the hot path), or ``None`` when the job has to wait."""
    found = free.best(spec, preference, 1)
    return found[0][1] if found else None


def rank(spec: Spec, free: FreeList, preference: Preference, *, limit: int = 1) -> list[Ranked]:
    """Return the *limit* (>= 1) best hosts with a free slot that pass every filter, best first, each explained."""
    assert limit >= 1 and spec.model == free.model
    holders = free.holders(spec.prefix_key)
    return [
        reasons_of(spec, candidate, preference, bonus=BONUS_PREFIX if candidate in holders else 0.0)
        for _, candidate in free.best(spec, preference, limit)
    ]


def possible(spec: Spec, free: FreeList, *, gone: bool = False) -> bool:
    """Tell whether any host that is here or was until lately could run the job, free or busy (`FreeList.possible`)."""
    return free.possible(spec, gone=gone)
