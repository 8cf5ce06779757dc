"""Token buckets: the rate holds over any stretch of time, refusals cost nothing, memory is bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comptoir.kit.clock import FakeClock
from comptoir.kit.errors import TooManyRequests
from comptoir.kit.ratelimit import SHARED_KEYS_MAX, RateLimiter, address_block, address_key


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
            limiter.take(f"{number}")

        assert len(limiter) <= 100


class TestCheck:
    def test_refuses_with_when_to_come_back(self, clock: FakeClock) -> None:
        limiter = RateLimiter(per_minute=1, clock=clock)
        limiter.check("a", "slow down")

        with pytest.raises(TooManyRequests, match="slow down") as refused:
            limiter.check("a", "slow down")

        assert refused.value.retry_after_s == pytest.approx(60.0)


class TestCharge:
    def test_what_was_taken_elsewhere_is_gone_here(self, clock: FakeClock) -> None:
        limiter = RateLimiter(per_minute=20, clock=clock)

        limiter.charge("a", 15)

        assert [limiter.take("a").allowed for _ in range(6)] == [True] * 5 + [False]
        assert limiter.take("b").remaining == 19

    def test_an_overdrawn_bucket_pays_back_before_it_gives_again(self, clock: FakeClock) -> None:
        limiter = RateLimiter(per_minute=20, clock=clock)
        for _ in range(20):
            limiter.take("a")

        limiter.charge("a", 10)

        assert limiter.take("a").retry_after_s == pytest.approx(33.0)
        clock.advance(seconds=33.0)
        assert limiter.take("a").allowed

    def test_a_debt_has_an_end(self, clock: FakeClock) -> None:
        limiter = RateLimiter(per_minute=20, clock=clock)

        limiter.charge("a", 1_000_000)

        assert limiter.take("a").retry_after_s == pytest.approx(63.0)

    def test_memory_is_bounded(self, clock: FakeClock) -> None:
        limiter = RateLimiter(per_minute=60, clock=clock, keys_max=100)

        for number in range(10_000):
            limiter.charge(b"%d" % number, 1)

        assert len(limiter) <= 100

    @given(
        asks=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=120), per_minute=st.integers(1, 600)
    )
    def test_two_together_give_what_one_would_and_one_interval_more(
        self, asks: list[tuple[int, int]], per_minute: int
    ) -> None:
        """Both are asked within each interval and hear of each other at its end: what was too much is paid back."""
        clock = FakeClock()
        limiters = [RateLimiter(per_minute=per_minute, clock=clock) for _ in range(2)]
        for limiter in limiters:
            limiter.drain_taken()

        allowed = 0
        for asked in asks:
            for limiter, times in zip(limiters, asked, strict=True):
                allowed += sum(limiter.take("a").allowed for _ in range(times))
            told = [limiter.drain_taken() for limiter in limiters]
            for limiter, taken in zip(limiters, reversed(told), strict=True):
                for key, count in taken.items():
                    limiter.charge(key, count)
            clock.advance(seconds=0.1)

        assert allowed <= 2 * per_minute + len(asks) * 0.1 * per_minute / 60 + 1e-3


class TestDrainTaken:
    def test_counts_from_the_first_call_on_and_only_what_was_allowed(self, clock: FakeClock) -> None:
        limiter = RateLimiter(per_minute=3, clock=clock)
        limiter.take("a")

        assert limiter.drain_taken() == {}
        for _ in range(5):
            limiter.take("a")
        limiter.take(b"b")
        limiter.charge("c", 2)
        assert limiter.drain_taken() == {"a": 2, b"b": 1}
        assert limiter.drain_taken() == {}

    def test_notes_a_bounded_number_of_keys(self, clock: FakeClock) -> None:
        limiter = RateLimiter(per_minute=3, clock=clock)
        limiter.drain_taken()

        for number in range(SHARED_KEYS_MAX + 10):
            limiter.take(f"{number}")
        limiter.take("0")

        taken = limiter.drain_taken()
        assert len(taken) == SHARED_KEYS_MAX
        assert taken["0"] == 2


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

    @pytest.mark.parametrize(
        ("address", "block"),
        [
            ("192.0.2.77", "192.0.2.0/24"),
            ("::ffff:192.0.2.77", "192.0.2.0/24"),
            ("2001:db8:0:1::7", "20010db800000001::/64"),
            ("not:an:address", "not:an:address"),
        ],
    )
    def test_a_block_is_what_one_owner_is_likely_to_have(self, address: str, block: str) -> None:
        assert address_block(address) == block
