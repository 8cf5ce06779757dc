"""Forfeit: an operator takes the bond of a host, for a statement that it signed and that what arrived contradicts."""

from comptoir.dispatch.core import Core
from comptoir.dispatch.moderate import catch_up
from comptoir.events import ActRecorded
from comptoir.kit.db import Tx
from comptoir.kit.ids import new_id, public
from comptoir.ledger import BondState, Book, NoBond, bond_accounts, bond_rows, bonds_of, close_bond, open_bond
from comptoir.moderation import Act, Author, Decision, Verb, check_reason, lock, record
from comptoir.receipts import exhibit_rows, use_exhibit


async def forfeit_bond(
    core: Core, host_id: bytes, *, evidence: str, author: Author, reason: str, act_id: bytes | None = None
) -> Act:
    """Move a host's bond to the operator's account ``forfeits``, mark the evidence as used, and record it; one command.

    The host, retired or not, goes on as it was: suspending or retiring it is another act.

    Args:
        evidence: public id of an exhibit against this host (``exhibit_…``); it and the amount are recorded with the
            reason.
        act_id: given if an Idempotency-Key determines it.

    Raises:
        InvalidField: *reason* is empty, too long or not one line.
        NoBond: nothing was put up for the host, or it was returned or forfeited before.
        UnknownExhibit: there is no such evidence of this host; nothing is written.
    """
    check_reason(reason)
    bond = (await bonds_of(core.db, [host_id])).get(host_id)
    if bond is None:
        raise NoBond("none")
    owner_id, now = bond.owner_id, core.clock.now_ms()
    whole = check_reason(f"{reason} ({evidence}, {bond.amount_uusd} micro-dollars)")
    one = Decision(act_id or new_id(), author, Verb.BOND_FORFEIT, public("host", host_id), whole, now)

    def command(tx: Tx) -> Act:
        book = Book.load(tx, bond_accounts(owner_id))
        found = open_bond(tx, host_id)
        use_exhibit(tx, evidence, host_id, now)
        lock(tx)
        close_bond(tx, found, book, as_=BondState.FORFEITED, at_ms=now)
        book.apply(tx)
        return record(tx, one)

    act = await core.db.run(command, locks=[*bond_rows(host_id, owner_id), exhibit_rows(evidence)])
    core.events.publish(ActRecorded(act.number))
    await catch_up(core)
    return act
