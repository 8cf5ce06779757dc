"""How long choosing a host takes at 100, 10,000 and 100,000 hosts, beside looking at every host in the same run.

Usage: PYTHONPATH=src python bench/bench_rank.py [--hosts 100,10000,100000]
Medians of single calls in microseconds. "full": share of hosts without a free slot. "update": one job given
and ended with four lists in use. "rare": only hosts of a region that one host in 1,000 is in, by price.
"""

import argparse
import gc
import random
import statistics
import time
from collections.abc import Callable

from comptoir.routing import FreeList, Spec, choose, preference_named, rank
from comptoir.routing.testing import give, make_candidate, make_free_list, make_spec, rank_naively, take_back

ROUNDS = 2_000
ROUNDS_NAIVE = 5


def median_us(call: Callable[[], object], rounds: int) -> float:
    """Time *rounds* single calls and return their median."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1000


def fleet(hosts: int, full: float) -> FreeList:
    """Make hosts of one model with figures spread as on a market; *full* of them have no free slot."""
    rng = random.Random(hosts)
    made = []
    for n in range(1, hosts + 1):
        slots = rng.choice((1, 2, 4, 8, 16))
        running = slots if rng.random() < full else rng.randrange(slots)
        made.append(
            make_candidate(
                n=n,
                slots=slots,
                running=running,
                price=rng.randrange(50, 5000) * 1000,
                reputation=rng.random(),
                first_frame_ms=rng.lognormvariate(5.5, 0.7),
                inter_frame_ms=rng.lognormvariate(3, 0.5),
                region="rare" if n % 1000 == 1 else rng.choice(("eu", "us", "asia")),
            )
        )
    return make_free_list(made)


def update(free: FreeList, spec: Spec) -> Callable[[], None]:
    """Return a call that gives the best host a job and takes it back."""
    balanced = preference_named("balanced")

    def once() -> None:
        candidate = choose(spec, free, balanced)
        assert candidate is not None
        give(free, candidate)
        take_back(free, candidate)

    return once


def measure(hosts: int, full: float) -> list[str]:
    """Measure one fleet and return a line of the table."""
    free = fleet(hosts, full)
    spec, rare = make_spec(prompt_tokens=400), make_spec(prompt_tokens=400, region="rare")
    capped = make_spec(prompt_tokens=400, price_cap_uusd=25)
    balanced, fastest, cheapest = (preference_named(name) for name in ("balanced", "fastest", "cheapest"))
    start = time.perf_counter()
    choose(spec, free, balanced)
    built_ms = (time.perf_counter() - start) * 1000
    for preference in (fastest, cheapest, preference_named("round_robin")):
        choose(spec, free, preference)
    for asked, preference in ((spec, balanced), (rare, cheapest), (capped, fastest)):
        assert [each.candidate for each in rank(asked, free, preference)] == rank_naively(asked, free, preference)
    naive_us = median_us(lambda: rank_naively(spec, free, balanced), ROUNDS_NAIVE)
    chosen_us = median_us(lambda: choose(spec, free, balanced), ROUNDS)
    figures = [
        chosen_us,
        median_us(lambda: rank(spec, free, balanced), ROUNDS),
        median_us(lambda: choose(rare, free, cheapest), ROUNDS),
        median_us(lambda: choose(capped, free, fastest), ROUNDS),
        median_us(update(free, spec), ROUNDS),
        naive_us,
        naive_us / chosen_us,
        built_ms,
    ]
    return [f"{hosts:,}", f"{full:.0%}", f"{free.free_hosts:,}", *(f"{figure:,.1f}" for figure in figures)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hosts", default="100,10000,100000")
    counts = [int(each) for each in parser.parse_args().hosts.split(",")]
    gc.collect()
    gc.disable()
    titles = ("hosts", "full", "free", "choose", "rank", "rare", "capped", "update", "naive", "ratio", "build ms")
    print("".join(f"{title:>12}" for title in titles))
    for count in counts:
        for full in (0.0, 0.97):
            print("".join(f"{cell:>12}" for cell in measure(count, full)), flush=True)


if __name__ == "__main__":
    main()
