"""When an intent that failed is tried again, and when it is given up. Pure."""

from comptoir.outbox.types import AttemptOutcome, Claimed, IntentState

WAITS_S = (5, 30, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Pauses between two attempts: 5 s, 30 s, 5 min, 30 min, 2, 5, 10, 14, 20 and 24 hours, a little over three days."""

ATTEMPTS_MAX = len(WAITS_S) + 1
"""Attempts at an intent before it is given up, and after each time it is sent again."""

AGE_MS_MAX = 5 * 24 * 3600 * 1000
"""Age at which an intent is given up, however few attempts there were (a coordinator that was off for long)."""

JITTER = 0.2
"""A pause is up to this part shorter or longer, so that what failed together does not come back together."""

RETRY_AFTER_S_MAX = 3_600.0
"""Longest pause that the far side can ask for; it can't ask for a shorter one than ours."""


def wait_ms(attempt: int, *, of_attempts: int, retry_after_s: float, luck: float) -> int:
    """Return how long to wait after failed attempt number *attempt*.

    Args:
        of_attempts: the attempt after which it is given up; the waits are counted back from there.
        luck: a random number, 0..1.
    """
    at = min(max(attempt - (of_attempts - ATTEMPTS_MAX) - 1, 0), len(WAITS_S) - 1)
    ours_s = WAITS_S[at] * (1 - JITTER + 2 * JITTER * luck)
    return round(1000 * max(ours_s, min(retry_after_s, RETRY_AFTER_S_MAX)))


def next_step(
    claimed: Claimed, outcome: AttemptOutcome, *, now_ms: int, wait_ms: int
) -> tuple[IntentState, int | None]:
    """Return the state after an attempt, and when the next one is due; None: never."""
    if outcome.done:
        return IntentState.DONE, None
    if outcome.final or claimed.attempt >= claimed.attempts_end or now_ms + wait_ms > claimed.give_up_ms:
        return IntentState.DEAD, None
    return IntentState.WAITING, now_ms + wait_ms
