"""Somebody lists 300,000 jobs without pause, and chat beside it hardly notices; in processes of their own."""

import pytest
from bench.bench_lists import KINDS, compare

ROUNDS = 7
"""Windows of each kind, in turns; the medians are compared, so that a busy machine slows all of them."""

RATE_MIN, P99_MAX = 0.8, 2.0
"""Of what they are with nobody who lists."""


TRIES = 3
"""Other work on the machine makes the ratios worse, and never better: one try that holds is enough."""


@pytest.mark.proof
class TestChatBesideLists:
    @pytest.mark.parametrize("database", ["SQLite", "postgres"])
    async def test_it_keeps_its_rate_and_its_latency(self, database: str) -> None:
        found = []
        for _ in range(TRIES):
            medians = await compare(ROUNDS, database)
            rate, p99, _ = medians["nobody"]
            ratios = {kind: (own / rate, own_p99 / p99) for kind, (own, own_p99, _) in medians.items()}
            assert tuple(medians) == KINDS
            assert all(pages > 1 for kind, (_, _, pages) in medians.items() if kind != "nobody"), medians
            if all(own >= RATE_MIN and own_p99 <= P99_MAX for own, own_p99 in ratios.values()):
                return
            found.append((ratios, medians))
        pytest.fail(f"{found}")
