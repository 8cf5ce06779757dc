"""Waiting between attempts: exponential with full jitter, so that a thousand workers don't reconnect at once."""

import random
from collections.abc import Callable

RELINK_FIRST_S = 0.05
"""Upper bound of the wait before the first attempt after losing a good connection, and before an untried address."""

BACKOFF_FIRST_S = 0.1
"""Upper bound of the first wait; each further one may be twice as long."""

BACKOFF_LAST_S = 15.0
"""Upper bound of any wait."""

STABLE_AFTER_S = 60.0
"""A connection that lasted this long resets the back-off."""


class Backoff:
    """How long to wait next. *jitter* picks a number between two bounds (tests replace it)."""

    def __init__(
        self, jitter: Callable[[float, float], float] = random.uniform, *, last_s: float | None = None
    ) -> None:
        """*last_s*: upper bound of any wait, instead of `BACKOFF_LAST_S`."""
        self._jitter = jitter
        self._last_s = last_s
        self._attempt = 0

    def next_s(self) -> float:
        """Return the next wait in seconds, between 0 and a bound that doubles from 0.1 to the last."""
        last_s = BACKOFF_LAST_S if self._last_s is None else self._last_s
        bound = min(last_s, BACKOFF_FIRST_S * 2**self._attempt)
        # The exponent stops growing at the bound, so that a week offline gives no astronomically large number.
        if bound < last_s:
            self._attempt += 1
        return self._jitter(0.0, bound)

    def soon_s(self) -> float:
        """Return a wait between 0 and `RELINK_FIRST_S`; it does not count as an attempt."""
        return self._jitter(0.0, RELINK_FIRST_S)

    def lived(self, seconds: float) -> None:
        """Note that a connection lasted *seconds*."""
        if seconds >= STABLE_AFTER_S:
            self._attempt = 0
