"""Bonds: what an owner puts up for a host, where the trading post asks for it.

The amount leaves the owner's account for the operator's account `BONDS` in the command that registers the host; a row
says whose it is. It goes back to the owner, or is forfeited to the operator's account `FORFEITS`, once. So it is
neither in a host's earnings nor in the owner's credit, and the balance of `BONDS` is the sum of the open bonds, which
the audit recomputes.
"""

from collections.abc import Sequence

import msgspec

from comptoir.kit.db import Database, Rows, Tx
from comptoir.ledger.book import Book, account_rows
from comptoir.ledger.errors import BondNotCovered, InsufficientCredit, NoBond
from comptoir.ledger.tables import BONDS_TABLE
from comptoir.ledger.types import BONDS, FORFEITS, BondState

OPEN_PAGE = 500
"""Open bonds read at once by the walk that returns those of retired hosts."""

_COLUMNS = "host_id, owner_id, amount_uusd, state, created_ms, closed_ms"


class Bond(msgspec.Struct, frozen=True):
    """What was put up for one host."""

    host_id: bytes
    owner_id: bytes
    amount_uusd: int
    """> 0."""
    state: BondState
    created_ms: int
    closed_ms: int | None


def put_up_bond(tx: Tx, *, host_id: bytes, owner_id: bytes, amount_uusd: int, at_ms: int) -> None:
    """Move *amount_uusd* (> 0) from the owner's account into a bond, inside the command that registers the host.

    Promotional credit is no bond.

    Raises:
        BondNotCovered: the owner's free credit that is not promotional is below the amount.
        UnknownAccount: the owner has no account.
    """
    book = Book.load(tx, (owner_id, BONDS))
    try:
        book.move(
            debit=owner_id, credit=BONDS, amount_uusd=amount_uusd, kind="bond", job_id=None, at_ms=at_ms, own_money=True
        )
    except InsufficientCredit as short:
        raise BondNotCovered(needed_uusd=amount_uusd, free_uusd=short.free_uusd) from short
    book.apply(tx)
    tx.insert(BONDS_TABLE, [(host_id, owner_id, amount_uusd, BondState.OPEN.value, at_ms, None)])


def close_bond(tx: Tx, bond: Bond, book: Book, *, as_: BondState, at_ms: int) -> bytes:
    """Give an open bond back to its owner, or forfeit it; the caller applies *book*. Return the transfer's id.

    *book* has loaded `bond_accounts`, and then `open_bond` returned *bond*, both in the same command.
    """
    assert bond.state is BondState.OPEN and as_ is not BondState.OPEN
    taker, kind = (FORFEITS, "forfeit") if as_ is BondState.FORFEITED else (bond.owner_id, "bond_back")
    tx.update(BONDS_TABLE, ("state", "closed_ms"), [(bond.host_id, as_.value, at_ms)])
    return book.move(debit=BONDS, credit=taker, amount_uusd=bond.amount_uusd, kind=kind, job_id=None, at_ms=at_ms)


def open_bond(tx: Tx, host_id: bytes) -> Bond:
    """Return and lock the open bond of a host; load the accounts before (rows are locked in the order of tables).

    Raises:
        NoBond: nothing was put up for it, or it was closed before.
    """
    rows = tx.select(BONDS_TABLE, BONDS_TABLE.names, [host_id], lock=True)
    bond = _bond(rows[0]) if rows else None
    if bond is None or bond.state is not BondState.OPEN:
        raise NoBond(bond.state.value if bond is not None else "none")
    return bond


def bond_accounts(owner_id: bytes) -> tuple[bytes, ...]:
    """Return the accounts that a bond of *owner_id* moves between."""
    return (owner_id, BONDS, FORFEITS)


def bond_rows(host_id: bytes, owner_id: bytes) -> Rows:
    """Return the rows that a command about a host's bond locks, for it to declare."""
    return [account_rows(bond_accounts(owner_id)), (BONDS_TABLE, [host_id])]


async def bonds_of(db: Database, host_ids: Sequence[bytes]) -> dict[bytes, Bond]:
    """Return what was put up for those of *host_ids* (at most 1,000) that have or had a bond, by host."""
    if not host_ids:
        return {}
    marks = ",".join("?" * len(host_ids))
    rows = await db.fetch(f"SELECT {_COLUMNS} FROM bonds WHERE host_id IN ({marks})", list(host_ids))
    return {row[0]: _bond(row) for row in rows}


async def open_bonds(db: Database, after: bytes) -> list[Bond]:
    """Return at most `OPEN_PAGE` open bonds, in the order of their hosts, those behind host *after*."""
    sql = f"SELECT {_COLUMNS} FROM bonds WHERE state = 'open' AND host_id > ? ORDER BY host_id LIMIT {OPEN_PAGE}"
    return [_bond(row) for row in await db.fetch(sql, (after,))]


def _bond(row: tuple) -> Bond:  # type: ignore[type-arg]
    host_id, owner_id, amount_uusd, state, created_ms, closed_ms = row
    return Bond(host_id, owner_id, amount_uusd, BondState(state), created_ms, closed_ms)
