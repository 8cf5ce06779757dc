"""What the fleet costs per event at 1,000 and 100,000 hosts: no event may grow with the number of hosts.

Usage: PYTHONPATH=src python bench/bench_fleet.py [--hosts 1000,100000]
Medians of single calls in microseconds, with one sorted list in use; memory per host in bytes (resident).
"""

import argparse
import gc
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from comptoir.hosts import DONE, Fleet
from comptoir.hosts.testing import make_active, make_offer, make_row
from comptoir.kit.clock import Clock
from comptoir.routing import Spec, choose, preference_named

CALLS = 5_000
PAGE_BYTES = 4096
MODELS = ("m", "n", "o")
BALANCED = preference_named("balanced")


def median_us(call: Callable[[int], object], calls: int = CALLS) -> float:
    """Time single calls and return their median."""
    times = []
    for n in range(calls):
        start = time.perf_counter_ns()
        call(n)
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1000


def resident_bytes() -> int:
    """Return the memory of this process (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def make(hosts: int) -> tuple[Fleet, list[bytes]]:
    """Make a fleet of linked hosts with one model of three each."""
    rng = random.Random(hosts)
    fleet = Fleet(Clock())
    for n in range(1, hosts + 1):
        offer = make_offer(name=MODELS[n % 3], price_out=rng.randrange(50, 5000) * 1000)
        make_active(fleet, make_row(n=n, models=(offer,), slots=rng.choice((1, 2, 4, 8))))
    return fleet, [host.id for host in fleet]


def job(fleet: Fleet) -> Callable[[int], None]:
    """Return a call that lives one whole job: choose, reserve, first frame, 4 batches of frames, outcome, release."""

    def once(n: int) -> None:
        hosts = fleet.free_list("m")
        assert hosts is not None
        candidate = choose(Spec("m", input_units=100, output_units=200), hosts, BALANCED)
        assert candidate is not None
        host_id = candidate.host_id
        fleet.reserve(host_id, "m")
        fleet.first_frame(host_id, "m", 180.0 + n % 40)
        for _ in range(4):
            fleet.frames(host_id, "m", 20.0 + n % 5, 8)
        fleet.outcome(host_id, DONE, tokens=32)
        fleet.release(host_id)

    return once


def measure(hosts: int) -> list[str]:
    """Measure one fleet and return a line of the table."""
    before = resident_bytes()
    start = time.perf_counter()
    fleet, ids = make(hosts)
    made_us = (time.perf_counter() - start) * 1e6 / hosts
    each_bytes = (resident_bytes() - before) / hosts
    random.Random(1).shuffle(ids)
    job(fleet)(0)

    def blink(n: int) -> None:
        fleet.unlinked(ids[n % hosts])
        fleet.mark_linked(ids[n % hosts])

    impossible = Spec("m", price_cap_uusd=0, output_units=100)
    figures = [
        made_us,
        each_bytes,
        median_us(job(fleet)),
        median_us(lambda n: fleet.seen(ids[n % hosts])),
        median_us(lambda n: fleet.frames(ids[0], fleet.get(ids[0]).row.models[0].name, 20.0, 8)),
        median_us(blink),
        median_us(lambda n: fleet.silent()),
        median_us(lambda n: fleet.models()),
        median_us(lambda n: fleet.possible(Spec("m", output_units=100))),
        median_us(lambda n: (fleet.possible(impossible), fleet.explain(impossible)), 5),
    ]
    return [f"{hosts:,}", *(f"{figure:,.1f}" for figure in figures)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hosts", default="1000,100000")
    counts = [int(each) for each in parser.parse_args().hosts.split(",")]
    gc.disable()
    titles = ("hosts", "add", "bytes", "job", "seen", "frames", "relink", "silent", "models", "possible", "refused")
    print("".join(f"{title:>11}" for title in titles))
    for count in counts:
        print("".join(f"{cell:>11}" for cell in measure(count)), flush=True)


if __name__ == "__main__":
    main()
