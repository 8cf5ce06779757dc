"""Waits grow, are bounded, and start again after a stable minute."""

from comptoir.worker.backoff import BACKOFF_LAST_S, Backoff


class TestBackoff:
    def test_bounds_double_up_to_the_last(self) -> None:
        backoff = Backoff(jitter=lambda low, high: high)

        waits = [backoff.next_s() for _ in range(10)]

        assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, BACKOFF_LAST_S, BACKOFF_LAST_S]

    def test_jitter_is_full(self) -> None:
        assert Backoff(jitter=lambda low, high: low).next_s() == 0.0
        assert all(0.0 <= Backoff().next_s() <= 0.1 for _ in range(100))

    def test_only_a_stable_minute_starts_again(self) -> None:
        backoff = Backoff(jitter=lambda low, high: high)
        for _ in range(3):
            backoff.next_s()

        backoff.lived(59.9)
        assert backoff.next_s() == 0.8
        backoff.lived(60.0)
        assert backoff.next_s() == 0.1
