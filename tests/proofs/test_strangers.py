"""Among strangers: a market with three hostile hosts in ten still serves its buyers, and hostility does not pay."""

import pytest
from bench.bench_strangers import HOSTILE, Result, run

HOSTS, JOBS = 220, 4_000


@pytest.fixture(scope="module")
def on() -> Result:
    return run(hosts=HOSTS, jobs=JOBS, seed=11)


@pytest.fixture(scope="module")
def off() -> Result:
    return run(hosts=HOSTS, jobs=JOBS, seed=11, rules=False)


@pytest.mark.proof
class TestAMarketAmongStrangers:
    def test_buyers_are_served(self, on: Result) -> None:
        assert on.asked > 0.9 * JOBS
        # Each hostile host is found out by somebody: the fewer jobs there are, the larger a share those are.
        assert on.success > 0.99, on.ends

    def test_hostility_does_not_pay(self, on: Result) -> None:
        assert on.per_cost(hostile=True) < on.per_cost(hostile=False)

    def test_no_honest_host_is_ruined(self, on: Result) -> None:
        # Below the start stand only some that poisoned jobs came to before they had a name.
        assert on.honest_blamed <= HOSTS // 50

    def test_who_only_does_harm_gets_next_to_no_jobs(self, on: Result) -> None:
        harmful = sum(on.attempts[way.name] for way in HOSTILE if "a" not in way.acts)
        assert harmful < 0.1 * sum(on.attempts.values())
        assert all(on.until_out[name][-1] < 100 for name in on.until_out)

    def test_without_the_rules_the_market_is_theirs(self, off: Result) -> None:
        """What the rules are for; and that the simulation would show if they did nothing."""
        assert off.success < 0.5
