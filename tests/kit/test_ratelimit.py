"""Token buckets: the rate holds over any stretch of time, refusals cost nothing, memory is bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comptoir.kit.clock import FakeClock
from comptoir.kit.errors import TooManyRequests
from comptoir.kit.ratelimit import RateLimiter, address_key


class TestTake:
    def test_a_full_bucket_gives_its_limit_and_no_more(self, clock: FakeClock) -> None:
        limiter = RateLimiter(per_minute=20, clock=clock)

        allowances = [limiter.take("a") for _ in range(21)]

        assert [allowance.remaining for allowance in allowances] == [*range(19, -1, -1), 0]
        assert [allowance.allowed for allowance in allowances] == [True] * 20 + [False]
        assert allowances[-1].retry_after_s == pytest.approx(3.0)
        assert allowances[-1].reset_s == pytest.approx(60.0)

    def test_waiting_as_told_is_enough(self, clock: FakeClock) -> None:
        limiter = RateLimiter(per_minute=20, clock=clock)
        while (refused := limiter.take("a")).allowed:
            pass

        clock.advance(seconds=refused.retry_after_s)

        assert limiter.take("a").allowed
        assert not limiter.take("a").allowed

    def test_a_refused_request_takes_nothing(self, clock: FakeClock) -> None:
        limiter = RateLimiter(per_minute=1, clock=clock)
        limiter.take("a")
        for _ in range(100):
            limiter.take("a")

        clock.advance(seconds=60)

        assert limiter.take("a").allowed

    def test_keys_have_buckets_of_their_own(self, clock: FakeClock) -> None:
        limiter = RateLimiter(per_minute=1, clock=clock)

        assert limiter.take("a").allowed
        assert limiter.take("b").allowed
        assert not limiter.take("a").allowed

    @given(waits=st.lists(st.floats(0, 20), max_size=200), per_minute=st.integers(1, 100))
    def test_never_more_than_the_bucket_and_what_flowed_in(self, waits: list[float], per_minute: int) -> None:
        clock = FakeClock()
        limiter = RateLimiter(per_minute=per_minute, clock=clock)

        allowed = 0
        for wait in waits:
            clock.advance(seconds=wait)
            allowed += limiter.take("a").allowed

        assert allowed <= per_minute + sum(waits) * per_minute / 60 + 1e-3

    def test_forgetting_old_buckets_gives_nobody_more(self, clock: FakeClock) -> None:
        limiter = RateLimiter(per_minute=60, clock=clock)

        allowed = 0
        for second in range(600):
            limiter.take(f"other {second}")
            allowed += sum(limiter.take("a").allowed for _ in range(5))
            clock.advance(seconds=1)

        assert allowed <= 60 + 600

    def test_memory_is_bounded(self, clock: FakeClock) -> None:
        limiter = RateLimiter(per_minute=60, clock=clock, keys_max=100)

        for number in range(10_000):
            limiter.take(number)

        assert len(limiter) <= 100


class TestCheck:
    def test_refuses_with_when_to_come_back(self, clock: FakeClock) -> None:
        limiter = RateLimiter(per_minute=1, clock=clock)
        limiter.check("a", "slow down")

        with pytest.raises(TooManyRequests, match="slow down") as refused:
            limiter.check("a", "slow down")

        assert refused.value.retry_after_s == pytest.approx(60.0)


class TestAddressKey:
    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ("192.0.2.1", "192.0.2.1", True),
            ("192.0.2.1", "192.0.2.2", False),
            ("::ffff:192.0.2.1", "192.0.2.1", True),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
            ("2001:db8::1", "2001:db8::ffff:ffff", True),
            ("2001:db8::1", "2001:db8:0:1::1", False),
            ("fe80::1%eth0", "fe80::2%eth1", True),
            ("not:an:address", "not:another", False),
        ],
    )
    def test_counts_what_one_party_holds_as_one(self, one: str, other: str, same: bool) -> None:
        assert (address_key(one) == address_key(other)) is same
