"""How fast a host is: medians and tails of its frame times, measured in constant time and space per batch of frames.

A histogram over the logarithm of time, three bins per doubling from 0.1 ms to 14 minutes, whose old counts decay: after
`HALF_LIFE` further observations an old one counts half. The error of a quantile is below half a bin, 12 %.
"""

from array import array
from bisect import bisect_left
from itertools import accumulate
from math import log2

from comptoir.hosts.types import PaceFigures
from comptoir.routing import PRIOR_FIRST_FRAME_MS, PRIOR_INTER_FRAME_MS

LOW_MS = 0.1
BINS_PER_DOUBLING = 3
BINS = 69
"""23 doublings: 0.1 ms to 839 s. Values outside count in the first or last bin."""
HALF_LIFE_FIRST = 64
HALF_LIFE_INTER = 1024
"""In observations, not seconds: a host that was idle keeps its figures."""
RESCALE_AT = 1e12
COUNT_MAX = 4096
"""Most counts of one value at once: more add nothing, since older ones have decayed, and the weight stays finite."""
PRIOR_TAIL = 8.0
"""Before anything is measured, p99 is assumed to be this many medians."""
PRIOR_LATE = 4.0
"""And p95 this many medians."""
TAIL_NEEDS = 32
"""Observations before a measured p99 may fall below the prior: a few frames do not show the tail."""
LONGEST_FADES = 0.999
READ_EVERY_MAX = 512
"""Frames between two readings once there are many; before that, one reading per doubling."""

PRIOR = PaceFigures(
    PRIOR_FIRST_FRAME_MS,
    PRIOR_FIRST_FRAME_MS * PRIOR_TAIL,
    PRIOR_INTER_FRAME_MS,
    PRIOR_INTER_FRAME_MS * PRIOR_TAIL,
    False,
    PRIOR_FIRST_FRAME_MS * PRIOR_LATE,
)


class LogHistogram:
    """Counts per bin with exponential decay; O(1) to add, O(bins) to read."""

    __slots__ = ("_counts", "_growth", "_weight", "total")

    def __init__(self, half_life: int) -> None:
        self._counts = array("d", bytes(8 * BINS))
        self._growth = 2.0 ** (1.0 / half_life)
        self._weight = 1.0
        self.total = 0
        """Observations so far, without decay."""

    def add(self, value_ms: float, count: int = 1) -> None:
        """Count *value_ms* (>= 0) *count* times (>= 1)."""
        count = min(count, COUNT_MAX)
        at = int(BINS_PER_DOUBLING * log2(value_ms / LOW_MS)) if value_ms > LOW_MS else 0
        # New observations weigh more, instead of old ones less, so that one number changes and not all bins.
        self._counts[at if at < BINS else BINS - 1] += self._weight * count
        self._weight *= self._growth**count
        self.total += count
        if self._weight > RESCALE_AT:
            for bin_at in range(BINS):
                self._counts[bin_at] /= self._weight
            self._weight = 1.0

    def quantiles(self, *shares: float) -> list[float]:
        """Return the values below which each of *shares* (0..1, ascending) lies, in milliseconds; interpolated."""
        found = []
        sums = list(accumulate(self._counts))
        for share in shares:
            wanted = share * sums[-1]
            at = bisect_left(sums, wanted, hi=BINS - 1)
            below = sums[at - 1] if at else 0.0
            inside = (wanted - below) / self._counts[at] if self._counts[at] else 0.0
            found.append(LOW_MS * 2.0 ** ((at + min(1.0, max(0.0, inside))) / BINS_PER_DOUBLING))
        return found


FIRST_EACH = 16
"""The first 16 first frames cause a reading each, later ones every 16th: a reading costs 10 us."""


class Pace:
    """The two histograms of one host with one model, and the figures last read from them."""

    __slots__ = ("_first", "_inter", "_read_at", "figures", "longest_gap_ms")

    def __init__(self) -> None:
        self._first: LogHistogram | None = None
        self._inter: LogHistogram | None = None
        self._read_at = 0
        self.figures = PRIOR
        """As of the last :meth:`read`."""
        self.longest_gap_ms = 0.0
        """Longest pause between two arrivals of frames, halved in about 700 arrivals: unlike the quantiles it shows
        frames that come in bursts, and rare pauses."""

    def first_frame(self, value_ms: float) -> bool:
        """Count one time from lease to first frame; ``True`` when there is enough new data for a `read`."""
        if self._first is None:
            self._first = LogHistogram(HALF_LIFE_FIRST)
        self._first.add(value_ms)
        return self._first.total <= FIRST_EACH or self._first.total % FIRST_EACH == 0

    def frames(self, gap_ms: float, count: int) -> bool:
        """Count *count* frames that came *gap_ms* apart; ``True`` when there is enough new data for a `read`."""
        if self._inter is None:
            self._inter = LogHistogram(HALF_LIFE_INTER)
        self._inter.add(gap_ms, count)
        pause_ms = gap_ms * count
        self.longest_gap_ms = pause_ms if pause_ms > self.longest_gap_ms else self.longest_gap_ms * LONGEST_FADES
        return self._inter.total > self._read_at + READ_EVERY_MAX or self._inter.total > 2 * self._read_at

    def read(self) -> PaceFigures:
        """Recompute the quantiles (about 10 us) and keep them in `figures`."""
        first_p50, first_p95, first_p99 = _read(
            self._first, PRIOR.first_frame_p50_ms, PRIOR.first_frame_p95_ms, PRIOR.first_frame_p99_ms
        )
        inter_p50, _, inter_p99 = _read(self._inter, PRIOR.inter_frame_p50_ms, 0.0, PRIOR.inter_frame_p99_ms)
        self._read_at = self._inter.total if self._inter else 0
        measured = self._first is not None or self._inter is not None
        self.figures = PaceFigures(first_p50, first_p99, inter_p50, inter_p99, measured, first_p95)
        return self.figures


def _read(
    seen: LogHistogram | None, prior_p50_ms: float, prior_p95_ms: float, prior_p99_ms: float
) -> tuple[float, float, float]:
    if seen is None:
        return prior_p50_ms, prior_p95_ms, prior_p99_ms
    p50_ms, p95_ms, p99_ms = seen.quantiles(0.5, 0.95, 0.99)
    if seen.total < TAIL_NEEDS:
        return p50_ms, max(p95_ms, prior_p95_ms), max(p99_ms, prior_p99_ms)
    return p50_ms, p95_ms, p99_ms
