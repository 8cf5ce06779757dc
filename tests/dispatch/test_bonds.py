"""Bonds come back some time after their hosts were retired, once, and not before."""

from pathlib import Path

from comptoir.dispatch.bonds import return_bonds
from comptoir.dispatch.moderate import act_on_host
from comptoir.dispatch.onboard import add_host
from comptoir.events import CreditAdded
from comptoir.hosts import LINK, NewHost
from comptoir.ledger import BONDS, audit
from comptoir.moderation import COORDINATOR, Verb
from tests.street import OFFER, Street, open_street

BOND_UUSD = 400
DAY_S = 24 * 3600.0
HOUR_S = 3600.0


async def owned_host(street: Street) -> bytes:
    new = NewHost(gpu="x", models=(OFFER,), transport=LINK, owner_id=street.buyer_id)
    return (await add_host(street.core, new)).host_id


async def walked(street: Street) -> int:
    """Walk over all open bonds as the sweeps do; return how many came back."""
    street.clock.advance(seconds=HOUR_S)
    return await return_bonds(street.core) + await return_bonds(street.core)


async def test_a_retired_hosts_bond_comes_back_after_its_days(tmp_path: Path) -> None:
    asks = {"host_registration": "bond", "host_bond_uusd": BOND_UUSD, "host_bond_days": 3}
    async with open_street(tmp_path, **asks) as street:
        core, heard = street.core, list[CreditAdded]()
        await core.ledger.deposit(owner_id=street.buyer_id, amount_uusd=1000)
        before = await street.free_uusd()
        core.events.subscribe(CreditAdded, heard.append)
        gone, stays = [await owned_host(street) for _ in range(2)]
        assert await street.free_uusd() == before - 2 * BOND_UUSD

        assert await walked(street) == 0
        await act_on_host(core, Verb.HOST_RETIRE, gone, author=COORDINATOR, reason="for the test")
        street.clock.advance(seconds=2 * DAY_S)
        assert await walked(street) == 0
        street.clock.advance(seconds=DAY_S)
        assert await walked(street) == 1
        assert await walked(street) == 0

        assert await street.free_uusd() == before - BOND_UUSD
        assert (await core.ledger.account(BONDS)).balance_uusd == BOND_UUSD
        assert [(one.owner_id, one.amount_uusd, one.kind) for one in heard] == [
            (street.buyer_id, BOND_UUSD, "bond_back")
        ]
        assert core.fleet.find(stays) is not None
        assert await audit(core.db) == []
