"""The ledger: accounts, transfers and holds, in whole micro-dollars (``_uusd``).

Owns: tables ``accounts``, ``transfers``, ``holds``, ``bonds``, ``promo_corrections``.
Invariant: every transfer takes from one account what it gives to another, so all balances sum to zero; an
account's ``held_uusd`` is the sum of its open holds; a buyer's balance never falls below what is held. The promotional
part of a balance moves with transfers only, is never more than the balance, and never leaves the trading post.
Knows: nobody. An account's id is its owner's id (a user or a host); the operator's accounts have fixed ids.
Writes happen inside the caller's command: `load` (and lock) the accounts of a batch, decide on a `Book`, `apply` it.
"""

from comptoir.ledger.audit import LedgerDifference, audit, differences
from comptoir.ledger.bonds import (
    Bond,
    bond_accounts,
    bond_rows,
    bonds_of,
    close_bond,
    open_bond,
    open_bonds,
    put_up_bond,
)
from comptoir.ledger.book import Book, account_rows, posted_transfers
from comptoir.ledger.errors import (
    BondNotCovered,
    HoldMismatch,
    InsufficientCredit,
    NoBond,
    OwnMoneyShort,
    UnknownAccount,
)
from comptoir.ledger.notes import read_transfer_note
from comptoir.ledger.service import Ledger
from comptoir.ledger.tables import TABLES
from comptoir.ledger.types import (
    ANONYMOUS_CALLERS,
    BONDS,
    FEES,
    FORFEITS,
    OPERATOR_ACCOUNTS,
    PAYMENTS_IN,
    PROMOTIONS,
    Account,
    BondState,
    Transfer,
)

__all__ = [
    "ANONYMOUS_CALLERS",
    "BONDS",
    "FEES",
    "FORFEITS",
    "OPERATOR_ACCOUNTS",
    "PAYMENTS_IN",
    "PROMOTIONS",
    "TABLES",
    "Account",
    "Bond",
    "BondNotCovered",
    "BondState",
    "Book",
    "HoldMismatch",
    "InsufficientCredit",
    "Ledger",
    "LedgerDifference",
    "NoBond",
    "OwnMoneyShort",
    "Transfer",
    "UnknownAccount",
    "account_rows",
    "audit",
    "bond_accounts",
    "bond_rows",
    "bonds_of",
    "close_bond",
    "differences",
    "open_bond",
    "open_bonds",
    "posted_transfers",
    "put_up_bond",
    "read_transfer_note",
]
