"""Scores and strategies: what makes one host better than another, as a key that a list can be sorted by.

A key is ``(measure, -balanced score)``, smaller is better. `balanced` has no measure of its own; every other strategy
orders by exactly what its name says, and the balanced score breaks ties. Price and time are computed for the job's
*size class*, so that hosts can be kept sorted; caps and costs are exact.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import isqrt, log2
from types import MappingProxyType

from comptoir.kit.money import cost_up, to_usd
from comptoir.routing.errors import UnknownPreference
from comptoir.routing.filters import cost_scaled
from comptoir.routing.types import LOAD_STEPS, Candidate, Ranked, Size, Spec

PROMPT_SIZES = (512, 8192)
ANSWER_SIZES = (64, 512, 4096)
"""Representative sizes. Six classes: each costs one more sorted list per model and strategy in use."""

WEIGHT_PRICE, WEIGHT_FINISH, WEIGHT_REPUTATION, WEIGHT_LOAD = 0.35, 0.30, 0.25, 0.10
BONUS_PREFIX = 0.10
"""For a host that recently served the same beginning of a prompt: its cache saves about that much of the time."""

PRICE_LOW_UUSD_PER_MTOK, PRICE_HIGH_UUSD_PER_MTOK = 10_000, 100_000_000
"""A cent and $100 per million tokens: in between, every halving of the price gains the same."""
FINISH_LOW_MS, FINISH_HIGH_MS = 100.0, 1_000_000.0
"""A tenth of a second and 17 minutes: in between, every halving of the time gains the same."""

_PRICE_SPAN = log2(1 + PRICE_HIGH_UUSD_PER_MTOK / PRICE_LOW_UUSD_PER_MTOK)
_FINISH_SPAN = log2(1 + FINISH_HIGH_MS / FINISH_LOW_MS)
LOAD_TERM = tuple(WEIGHT_LOAD * (1.0 - step / LOAD_STEPS) for step in range(LOAD_STEPS + 1))
STRIDE = 1 << 32
"""One job on a host of weight 1, in virtual time of `weighted_round_robin`; large enough to divide by any weight."""


def _limits(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the largest value of each class but the last: the geometric mean of its representative and the next."""
    return tuple(isqrt(small * big) for small, big in pairwise(sizes))


_PROMPT_LIMITS, _ANSWER_LIMITS = _limits(PROMPT_SIZES), _limits(ANSWER_SIZES)
_SIZES = tuple(tuple(Size(prompt, answer) for answer in ANSWER_SIZES) for prompt in PROMPT_SIZES)
NOMINAL = _SIZES[0][1]


def size_of(spec: Spec) -> Size:
    """Return the size class of a job: the representative sizes nearest to its own by ratio."""
    return _SIZES[bisect_left(_PROMPT_LIMITS, spec.input_units)][bisect_left(_ANSWER_LIMITS, spec.output_units)]


def price_of(candidate: Candidate, size: Size) -> int:
    """Return the price of a job of that class, in micro-dollars times a million."""
    return size.input_units * candidate.rate_in + size.output_units * candidate.rate_out


def finish_ms_of(candidate: Candidate, output_units: int) -> float:
    """Predict milliseconds from lease to last frame, from the host's own medians."""
    return candidate.first_frame_ms + candidate.inter_frame_ms * output_units


def _price_term(candidate: Candidate, size: Size) -> float:
    per_mtok = price_of(candidate, size) / (size.input_units + size.output_units)
    return max(0.0, 1.0 - log2(1 + per_mtok / PRICE_LOW_UUSD_PER_MTOK) / _PRICE_SPAN)


def _finish_term(candidate: Candidate, size: Size) -> float:
    return max(0.0, 1.0 - log2(1 + finish_ms_of(candidate, size.output_units) / FINISH_LOW_MS) / _FINISH_SPAN)


def terms(candidate: Candidate, size: Size) -> dict[str, float]:
    """Return the terms of the balanced score, each from 0 to its weight."""
    return {
        "price": WEIGHT_PRICE * _price_term(candidate, size),
        "finish": WEIGHT_FINISH * _finish_term(candidate, size),
        "reputation": WEIGHT_REPUTATION * candidate.reputation,
        "load": LOAD_TERM[candidate.slots.load_step],
    }


def balanced(candidate: Candidate, size: Size) -> float:
    """Return the balanced score without bonus; all of it but the load is cached on the candidate."""
    settled = candidate.balance.get(size)
    if settled is None:
        parts = terms(candidate, size)
        settled = candidate.balance[size] = parts["price"] + parts["finish"] + parts["reputation"]
    slots = candidate.slots
    running, total = slots.running, slots.total
    return settled + LOAD_TERM[LOAD_STEPS * running // total if running < total else LOAD_STEPS]


def moved(candidate: Candidate) -> None:
    """Drop the cached scores; call after changing a price, a measured field or the number of slots."""
    candidate.balance.clear()


Key = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Preference:
    """A strategy: its name, what it promises, and its own measure."""

    name: str
    promise: str
    """One sentence for people."""
    measure: Callable[[Candidate, Size], float] | None
    """Smaller is better; ``None`` orders by the balanced score alone."""
    sized: bool
    """Whether the order depends on the job's size; otherwise one list serves all."""
    unit: str = ""

    def key(self, candidate: Candidate, size: Size) -> Key:
        """Return what the lists are sorted by, without bonus."""
        measure = self.measure
        return (0.0 if measure is None else measure(candidate, size), -balanced(candidate, size))


def _finish(candidate: Candidate, size: Size) -> float:
    return finish_ms_of(candidate, size.output_units)


PREFERENCES: Mapping[str, Preference] = MappingProxyType(
    {
        each.name: each
        for each in (
            Preference("balanced", "best mix of price, time, reputation and load", None, True),
            Preference("cheapest", "lowest price for a job of this size", price_of, True, "uusd x 1e6"),
            Preference("fastest", "earliest predicted last token", _finish, True, "ms"),
            Preference("round_robin", "hosts take turns", lambda c, s: c.turn, False, "turn"),
            Preference(
                "equal_weighted", "every host gets the same number of jobs", lambda c, s: c.picks, False, "jobs"
            ),
            Preference(
                "weighted_round_robin",
                "jobs in proportion to slots",
                lambda c, s: c.virtual_time,
                False,
                "virtual time",
            ),
            Preference("least_connections", "fewest running jobs", lambda c, s: c.slots.running, False, "jobs"),
            Preference(
                "least_response_time", "shortest time to the first token", lambda c, s: c.first_frame_ms, False, "ms"
            ),
        )
    }
)


MOST_TRUSTED = Preference("most_trusted", "best reputation", lambda c, s: -c.reputation, False)
"""For second opinions, and not to be had by name: by price, those who conspire would be asked one after the other."""


def preference_named(name: str) -> Preference:
    """Return the strategy called *name*.

    Raises:
        UnknownPreference: there is none.
    """
    found = PREFERENCES.get(name)
    if found is None:
        raise UnknownPreference("preference", f"must be one of {', '.join(PREFERENCES)}")
    return found


def reasons_of(spec: Spec, candidate: Candidate, preference: Preference, *, bonus: float) -> Ranked:
    """Explain one position in a ranking."""
    size = size_of(spec) if preference.sized else NOMINAL
    reasons = terms(candidate, size)
    score = balanced(candidate, size)
    if bonus:
        reasons["prefix"] = bonus
        score += bonus
    if preference.measure is not None:
        reasons[preference.name] = float(preference.measure(candidate, size))
    cost_uusd = cost_up(cost_scaled(spec, candidate))
    finish_ms = finish_ms_of(candidate, spec.output_units)
    slots = candidate.slots
    sentence = (
        f"{preference.name} ({preference.promise}): costs at most ${to_usd(cost_uusd)}, "
        f"done in about {finish_ms / 1000:.1f} s, reputation {candidate.reputation:.2f}, "
        f"{slots.running} of {slots.total} slots busy"
        + (", has lately served the same beginning of a prompt" if bonus else "")
    )
    return Ranked(candidate, score, MappingProxyType(reasons), sentence, cost_uusd, finish_ms)
