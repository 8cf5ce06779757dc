"""Work that is sold by the time it takes: how many milliseconds of it are believed, by the coordinator's own clock."""

CLOCK_SLACK_MS = 10
"""Milliseconds that a host may count beyond those that passed at the coordinator: each side rounds its own times. Few,
because many a job takes some tens of milliseconds."""

CLOCK_DRIFT = 1_000
"""One more in so many: clocks run at most 500 millionths faster or slower while they are being set."""


def most_in(passed_ms: int) -> int:
    """Return the most milliseconds of work that are believed where *passed_ms* (>= 0) passed at the coordinator."""
    return passed_ms + passed_ms // CLOCK_DRIFT + CLOCK_SLACK_MS
