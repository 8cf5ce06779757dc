"""The waiting queue: does a claim get slower when a million jobs wait? Claims from 1,000 and from 1,000,000 queued
jobs.

Usage: ``PYTHONPATH=src:. python -m bench.bench_queue``
"""

import statistics
import time

from comptoir.jobs import Queue
from comptoir.kit.ids import new_id

MODELS = [f"model-{n}" for n in range(8)]
CLAIMS = 500
ROUNDS = 5


def filled(count: int) -> Queue:
    """Return a queue with *count* jobs over all models."""
    queue = Queue()
    for number in range(count):
        queue.push(job_id=new_id(), model=MODELS[number % len(MODELS)], terms=None)
    return queue


def claim_us(queue: Queue) -> float:
    """Claim and put back a job many times; return the median microseconds of one claim."""
    taken = []
    for _ in range(CLAIMS):
        started = time.perf_counter()
        entry = queue.take(MODELS, lambda waiting: True)
        taken.append(time.perf_counter() - started)
        assert entry is not None
        queue.push(job_id=entry.job_id, model=entry.model, terms=None)
    return statistics.median(taken) * 1e6


def main() -> None:
    """Print both figures and their ratio."""
    small, large = filled(1_000), filled(1_000_000)
    pairs = [(claim_us(small), claim_us(large)) for _ in range(ROUNDS)]
    few, many = statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)
    ratio = statistics.median(p[1] / p[0] for p in pairs)
    print(f"claim from     1,000 queued jobs {few:8.2f} us")
    print(f"claim from 1,000,000 queued jobs {many:8.2f} us   ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
