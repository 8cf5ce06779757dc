"""Bill: what each host of an answer earns, as a table."""

import pytest

from comptoir.dispatch.bill import DeliveredPart, HostShare, shares
from comptoir.jobs import Lease

PRICE = 100_000_000
"""100 micro-dollars a unit of the output; the input costs a hundredth."""


def part(count: int, *, unpaid: bool = False, rate_out: int = PRICE) -> DeliveredPart:
    lease = Lease(
        id=b"l", host_id=b"h", model="m", first_frame=0, rate_in=PRICE // 100, rate_out=rate_out, started_ms=0, started_s=0.0
    )  # fmt: skip
    return DeliveredPart(lease, 0, count, b"", count, unpaid)


CASES = [
    # parts, what each costs the buyer of an order for 7 units in and at most 10 out, with a hold of 1,007
    ([part(10)], [1_007]),
    ([part(3), part(4)], [307, 400]),
    # What is delivered beyond the bound of the whole answer is free.
    ([part(14)], [1_007]),
    ([part(6), part(9)], [607, 400]),
    ([part(10), part(2)], [1_007, 0]),
    # The input is paid to the first who is paid at all; what the unpaid delivered counts against the bound.
    ([part(3, unpaid=True), part(9)], [0, 707]),
    # Where the prices differ the last gets what is left of the hold.
    ([part(4, rate_out=2 * PRICE), part(6)], [807, 200]),
]


class TestShares:
    @pytest.mark.parametrize(("parts", "costs"), CASES)
    def test_each_is_paid_for_its_part(self, parts: list[DeliveredPart], costs: list[int]) -> None:
        bill = shares(parts, input_count=7, output_max=10, hold_uusd=1_007, fee_bps=1_200)

        assert [share.cost_uusd for share in bill] == costs
        assert sum(costs) <= 1_007

    @pytest.mark.parametrize(("cost", "fee"), [(0, 0), (8, 0), (9, 1), (99, 11), (1_000, 120)])
    def test_the_fee_is_rounded_down(self, cost: int, fee: int) -> None:
        (share,) = shares([part(10)], input_count=0, output_max=10, hold_uusd=cost, fee_bps=1_200)

        assert (share, share.earned_uusd) == (HostShare(cost, fee), cost - fee)
