"""The bounded cache: what is used stays, what is not goes, nothing outlives its time."""

from comptoir.kit.cache import BoundedCache
from comptoir.kit.clock import FakeClock


class TestBoundedCache:
    def test_returns_what_was_put_until_its_time_is_up(self, clock: FakeClock) -> None:
        cache: BoundedCache[str, int] = BoundedCache(entries_max=10, ttl_s=60, clock=clock)
        cache.put("a", 1)

        clock.advance(seconds=59)
        assert cache.get("a") == 1
        clock.advance(seconds=1)
        assert cache.get("a") is None
        assert len(cache) == 0

    def test_being_asked_for_does_not_prolong_it(self, clock: FakeClock) -> None:
        cache: BoundedCache[str, int] = BoundedCache(entries_max=4, ttl_s=60, clock=clock)
        cache.put("a", 1)

        for second in range(60):
            clock.advance(seconds=1)
            cache.put(f"other {second}", 0)
            cache.get("a")

        assert cache.get("a") is None

    def test_holds_no_more_than_its_bound_and_keeps_what_is_used(self, clock: FakeClock) -> None:
        cache: BoundedCache[object, int] = BoundedCache(entries_max=100, ttl_s=60, clock=clock)
        cache.put("used", 1)

        for number in range(1_000):
            cache.put(number, number)
            assert cache.get("used") == 1

        assert len(cache) <= 100
        assert cache.get(0) is None

    def test_forgets_on_demand(self, clock: FakeClock) -> None:
        cache: BoundedCache[str, int] = BoundedCache(entries_max=4, ttl_s=60, clock=clock)
        for name in "abcd":
            cache.put(name, 1)

        cache.discard("a")
        cache.discard("d")
        assert [cache.get(name) for name in "abcd"] == [None, 1, 1, None]
        cache.clear()
        assert len(cache) == 0
