"""Rounding happens in one place: up for a hold, half to even at settlement, down for the fee."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comptoir.kit.money import (
    cost_half_even,
    cost_up,
    fee_of,
    price_from_usd_per_token,
    price_to_usd_per_token,
    to_credits,
    to_usd,
    usd_text,
)

MTOK = 1_000_000


class TestRounding:
    @pytest.mark.parametrize(
        ("scaled", "up", "even"),
        [
            # tokens times price, what a hold sets aside, what a settlement takes
            (0, 0, 0),
            (1, 1, 0),
            (MTOK // 2 - 1, 1, 0),
            (MTOK // 2, 1, 0),
            (MTOK // 2 + 1, 1, 1),
            (MTOK, 1, 1),
            (MTOK + MTOK // 2, 2, 2),
            (2 * MTOK + MTOK // 2, 3, 2),
            (256 * 100 * MTOK, 25_600, 25_600),
        ],
    )
    def test_a_hold_covers_and_a_settlement_is_fair(self, scaled: int, up: int, even: int) -> None:
        assert (cost_up(scaled), cost_half_even(scaled)) == (up, even)

    def test_the_fee_is_rounded_in_the_hosts_favour(self) -> None:
        assert [fee_of(amount, 1_200) for amount in (0, 8, 9, 100)] == [0, 0, 1, 12]

    @given(amount=st.integers(0, 10**15), bps=st.integers(0, 10_000))
    def test_rounding_costs_the_operator_less_than_a_micro_dollar(self, amount: int, bps: int) -> None:
        """docs/money.md: small jobs carry no fee, and that is all that is lost by it."""
        fee = fee_of(amount, bps)
        assert 0 <= amount * bps - fee * 10_000 < 10_000 and fee <= amount


class TestSpelling:
    def test_the_published_sample_agrees_with_itself(self) -> None:
        """256 tokens at $0.0001 are 2.56 credits."""
        price = price_from_usd_per_token(Decimal("0.0001"))

        assert to_credits(cost_up(256 * price)) == Decimal("2.56")
        assert price_to_usd_per_token(price) == Decimal("0.0001")

    @given(amount=st.integers(0, 10**15))
    def test_dollars_as_text_are_spelled_like_the_number(self, amount: int) -> None:
        assert usd_text(amount) == format(to_usd(amount), "f")

    @pytest.mark.parametrize("price", ["-0.1", "1.1", "NaN", "Infinity", "0.0000000000001"])
    def test_a_price_out_of_bounds_or_too_fine_is_refused(self, price: str) -> None:
        with pytest.raises(ValueError, match="between 0 and 1 dollar"):
            price_from_usd_per_token(Decimal(price))
