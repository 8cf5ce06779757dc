"""Quantiles from fading histograms: right within half a bin, also after the counts were rescaled."""

import random

import pytest

from comptoir.hosts.pace import BINS_PER_DOUBLING, HALF_LIFE_INTER, LogHistogram

ERROR = 2 ** (1 / BINS_PER_DOUBLING) - 1


class TestLogHistogram:
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
    def test_is_right_within_a_bin(self, share: float) -> None:
        rng = random.Random(3)
        values = [rng.lognormvariate(3, 1) for _ in range(5000)]
        histogram = LogHistogram(10**6)
        for value in values:
            histogram.add(value)

        assert histogram.quantiles(share)[0] == pytest.approx(sorted(values)[int(share * 5000)], rel=ERROR)

    def test_a_batch_counts_as_so_many(self) -> None:
        histogram = LogHistogram(10**6)
        histogram.add(10, 90)
        histogram.add(1000, 10)

        assert histogram.total == 100
        assert histogram.quantiles(0.5, 0.95) == pytest.approx([10, 1000], rel=ERROR)

    def test_half_a_life_ago_counts_half(self) -> None:
        histogram = LogHistogram(HALF_LIFE_INTER)
        for value in (10, 1000):
            for _ in range(HALF_LIFE_INTER):
                histogram.add(value)

        below, above = histogram.quantiles(0.32, 0.35)
        assert (below, above) == pytest.approx((10, 1000), rel=2 * ERROR)

    def test_what_is_new_counts_also_after_very_many(self) -> None:
        histogram = LogHistogram(8)
        for value, count in ((10, 2000), (1000, 100)):
            for _ in range(count):
                histogram.add(value)
            assert histogram.quantiles(0.5)[0] == pytest.approx(value, rel=ERROR)

    @pytest.mark.parametrize("value", [0.0, 1e-9, 1e12])
    def test_what_lies_outside_counts_at_the_edge(self, value: float) -> None:
        histogram = LogHistogram(8)
        histogram.add(value)

        low, high = 0.1, 0.1 * 2**23
        assert low <= histogram.quantiles(0.5)[0] <= high
