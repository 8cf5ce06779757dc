"""Routing: which host should run a job, and why. Pure: no clock, no database, no network.

Owns the request (`Spec`), the hosts to choose from (`Candidate`, which the fleet keeps in a `FreeList` per model), the
hard filters, the scores and the strategies.
Invariant: `rank` returns exactly what examining every host would, and changes no candidate.
Units: micro-dollars per million tokens, milliseconds, MiB; reputation 0..1. Knows nobody.
"""

from comptoir.routing.errors import UnknownPreference
from comptoir.routing.filters import FILTERS, explain, largest_context, passes
from comptoir.routing.freelist import FreeList
from comptoir.routing.needs import NO_CAPACITY, Capacity, Needs, decode_needs, encode_needs
from comptoir.routing.rank import choose, possible, rank
from comptoir.routing.score import MOST_TRUSTED, PREFERENCES, Preference, preference_named
from comptoir.routing.types import (
    PRIOR_FIRST_FRAME_MS,
    PRIOR_INTER_FRAME_MS,
    PROVEN_REPUTATION,
    Candidate,
    FilterReport,
    Slots,
    Spec,
)

__all__ = [
    "FILTERS",
    "MOST_TRUSTED",
    "NO_CAPACITY",
    "PREFERENCES",
    "PRIOR_FIRST_FRAME_MS",
    "PRIOR_INTER_FRAME_MS",
    "PROVEN_REPUTATION",
    "Candidate",
    "Capacity",
    "FilterReport",
    "FreeList",
    "Needs",
    "Preference",
    "Slots",
    "Spec",
    "UnknownPreference",
    "choose",
    "decode_needs",
    "encode_needs",
    "explain",
    "largest_context",
    "passes",
    "possible",
    "preference_named",
    "rank",
]
