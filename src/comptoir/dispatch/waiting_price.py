"""Waiting price: the price cap of a job that has to wait, the median price of the hosts that could run it."""

from comptoir.dispatch.core import Core, State
from comptoir.routing import Candidate, FreeList, Spec, passes

WAITING_PRICE_S = 1.0
"""How long a model's median price is reused: computing it visits every host that offers the model."""

WAITING_PRICES_MAX = 10_000
"""Median prices cached; beyond it the cache is cleared."""


class WaitingPrices(State):
    """Cached median prices (in, out), each with the time at which it expires."""

    def __init__(self, core: Core) -> None:
        self.cached: dict[tuple[object, ...], tuple[float, int, int]] = {}


def waiting_prices(core: Core, spec: Spec, known: FreeList) -> tuple[int, int]:
    """Return the median (in, out) prices of the hosts that could run *spec*; at most a second old."""
    catalog = core.fleet.catalog
    key = (
        spec.model,
        spec.kind,
        catalog.relevant_part(spec.model, spec.entry),
        spec.needs,
        spec.promotional,
        spec.capabilities,
    )
    prices = core.state(WaitingPrices).cached
    now = core.clock.monotonic_s()
    cached = prices.get(key)
    if cached is None or cached[0] < now:
        fitting = [c for c in known.all.values() if not c.gone and passes(spec, c)]
        fitting.sort(key=_by_price)
        middle = fitting[len(fitting) // 2]
        cached = (now + WAITING_PRICE_S, middle.rate_in, middle.rate_out)
        if len(prices) >= WAITING_PRICES_MAX:
            prices.clear()
        prices[key] = cached
    return cached[1], cached[2]


def _by_price(candidate: Candidate) -> tuple[int, int]:
    return candidate.rate_out, candidate.rate_in
