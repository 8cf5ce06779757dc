"""Bill: what each host earns from a job, and what the buyer pays. Pure, in whole micro-dollars.

Each host is paid at its own price for the units that it delivered. The input is paid once, to the first host that is
paid at all, because that host had to process it; a host that delivered nothing is not paid. The sum never exceeds the
hold: if prices differ so much that it would, the last hosts get what is left.
"""

from collections.abc import Sequence

import msgspec

from comptoir.jobs import Lease
from comptoir.kit.money import cost_half_even, fee_of


class DeliveredPart(msgspec.Struct, frozen=True, gc=False):
    """What one host delivered."""

    lease: Lease
    first_frame: int
    end_frame: int
    """Exclusive."""
    running_hash: bytes
    """Running hash after its last frame."""
    count: int
    """Units delivered that may be billed (`comptoir.kinds.Kind.billable`); billed as far as the job's bound allows."""
    unpaid: bool = False
    """The host can't vouch for what it delivered, so it earns nothing."""
    claimed: int = 0
    """Units delivered by the host's own count."""
    output_bytes: int = 1
    """Bytes of output that bound what is billed; without any the host earns nothing, for the input neither."""
    passed_ms: int = 0
    """Of a timed kind: milliseconds that bound it instead (`comptoir.jobs.LiveJob.passed_ms`)."""


class HostShare(msgspec.Struct, frozen=True, gc=False):
    """What one host earns, in the order of the parts."""

    cost_uusd: int
    """What the buyer pays for the part."""
    fee_uusd: int
    """The platform's share of the cost."""

    @property
    def earned_uusd(self) -> int:
        """What the host gets."""
        return self.cost_uusd - self.fee_uusd


NOTHING = HostShare(0, 0)


def shares(
    parts: Sequence[DeliveredPart], *, input_count: int, output_max: int, hold_uusd: int, fee_bps: int
) -> list[HostShare]:
    """Return the cost of each of *parts*; a cost is rounded once, half to even, and its fee down.

    Args:
        input_count: units of the input, bounded by what the hold covers; paid once.
        output_max: units of output billed at most, over all parts; anything beyond is free.
    """
    found: list[HostShare] = []
    left, hold_left = output_max, hold_uusd
    for part in parts:
        billed = min(part.count, left)
        left -= billed
        if part.unpaid or not part.output_bytes:
            found.append(NOTHING)
            continue
        lease = part.lease
        cost = min(hold_left, cost_half_even(input_count * lease.rate_in + billed * lease.rate_out))
        hold_left -= cost
        input_count = 0
        found.append(HostShare(cost, fee_of(cost, fee_bps)))
    return found
