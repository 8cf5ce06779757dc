"""Bonds: give them back some time after their hosts were retired."""

import logging
from functools import partial

from comptoir.dispatch.core import Core, State
from comptoir.events import CreditAdded, Events
from comptoir.kit.db import Tx
from comptoir.ledger import Bond, BondState, Book, NoBond, bond_accounts, bond_rows, close_bond, open_bond, open_bonds

log = logging.getLogger(__name__)

DAY_MS = 24 * 3600 * 1000

WALK_AGAIN_S = 3600.0
"""Pause after a walk over all open bonds; ``host_bond_days`` is precise to an hour."""


class BondWalk(State):
    """Progress of the walk over the open bonds."""

    def __init__(self, core: Core) -> None:
        self.after = b""
        """Id of the last host looked at."""
        self.again_s = 0.0
        """Monotonic time before which no new walk begins."""


async def return_bonds(core: Core) -> int:
    """Give back bonds of hosts that were retired ``host_bond_days`` ago; return how many.

    Bounded: one page of open bonds a call; the next call goes on. Each is given back once, however many coordinators
    try.
    """
    walk = core.state(BondWalk)
    if core.clock.monotonic_s() < walk.again_s:
        return 0
    page = await open_bonds(core.db, walk.after)
    walk.after = page[-1].host_id if page else b""
    if not page:
        walk.again_s = core.clock.monotonic_s() + WALK_AGAIN_S
        return 0
    due_ms = core.clock.now_ms() - core.settings.host_bond_days * DAY_MS
    due = await core.hosts.retired_before([bond.host_id for bond in page], due_ms)
    returned = 0
    for bond in page:
        if bond.host_id in due:
            returned += await _return(core, bond)
    if returned:
        log.info("returned the bonds of %d retired hosts", returned)
    return returned


async def _return(core: Core, bond: Bond) -> bool:
    now = core.clock.now_ms()
    try:
        added = await core.db.run(partial(_give_back, bond=bond, now=now), locks=bond_rows(bond.host_id, bond.owner_id))
    except NoBond:
        # Another coordinator was faster, or an operator forfeited it since the page was read.
        return False
    core.events.publish(added)
    return True


def _give_back(tx: Tx, *, bond: Bond, now: int) -> CreditAdded:
    book = Book.load(tx, bond_accounts(bond.owner_id))
    transfer = close_bond(tx, open_bond(tx, bond.host_id), book, as_=BondState.RETURNED, at_ms=now)
    number = book.number(bond.owner_id)
    added = CreditAdded(bond.owner_id, now, number, transfer, bond.amount_uusd, "bond_back")
    book.apply(tx)
    Events.insert_rows(tx, [added])
    return added
