"""When an intent is tried again: bounded both ways, whatever the far side asks for."""

import pytest

from comptoir.outbox import ATTEMPTS_MAX, Attempt, AttemptOutcome, Claimed, IntentState, next_step, wait_ms
from comptoir.outbox.schedule import AGE_MS_MAX, WAITS_S

FAILED, DONE, FINAL = (
    AttemptOutcome(Attempt(0, 0)),
    AttemptOutcome(Attempt(0, 0), done=True),
    AttemptOutcome(Attempt(0, 0), final=True),
)


def claimed(attempt: int, *, give_up_ms: int = AGE_MS_MAX) -> Claimed:
    return Claimed(b"i" * 16, "toy", b"a" * 16, b"l" * 16, 1, b"", attempt, ATTEMPTS_MAX, give_up_ms, True)


class TestWait:
    @pytest.mark.parametrize(
        ("attempt", "retry_after_s", "luck", "wait_s"),
        [
            (1, 0.0, 0.5, 5.0),
            (1, 0.0, 0.0, 4.0),  # Jitter, down
            (1, 0.0, 1.0, 6.0),  # and up.
            (3, 0.0, 0.5, 300.0),
            (ATTEMPTS_MAX - 1, 0.0, 0.5, 86_400.0),
            (1, 60.0, 0.5, 60.0),  # The far side may ask for more,
            (1, 1e9, 0.5, 3_600.0),  # but not for ever,
            (3, 1.0, 0.5, 300.0),  # and never for less.
        ],
    )
    def test_it_is(self, attempt: int, retry_after_s: float, luck: float, wait_s: float) -> None:
        waited = wait_ms(attempt, of_attempts=ATTEMPTS_MAX, retry_after_s=retry_after_s, luck=luck)

        assert waited == wait_s * 1000

    def test_a_replay_begins_with_short_ones_again(self) -> None:
        assert wait_ms(20, of_attempts=19 + ATTEMPTS_MAX, retry_after_s=0, luck=0.5) == WAITS_S[0] * 1000

    def test_all_attempts_fit_into_the_longest_age(self) -> None:
        """Otherwise the last ones would never be made."""
        assert sum(WAITS_S) * 1.2 * 1000 < AGE_MS_MAX


class TestNextStep:
    @pytest.mark.parametrize(
        ("attempt", "outcome", "now_ms", "step"),
        [
            (1, DONE, 0, (IntentState.DONE, None)),
            (1, FAILED, 0, (IntentState.WAITING, 10)),
            (1, FINAL, 0, (IntentState.DEAD, None)),
            (ATTEMPTS_MAX - 1, FAILED, 0, (IntentState.WAITING, 10)),
            (ATTEMPTS_MAX, FAILED, 0, (IntentState.DEAD, None)),
            (1, FAILED, AGE_MS_MAX - 10, (IntentState.WAITING, AGE_MS_MAX)),
            (1, FAILED, AGE_MS_MAX - 9, (IntentState.DEAD, None)),
        ],
    )
    def test_it_is(
        self, attempt: int, outcome: AttemptOutcome, now_ms: int, step: tuple[IntentState, int | None]
    ) -> None:
        assert next_step(claimed(attempt), outcome, now_ms=now_ms, wait_ms=10) == step
