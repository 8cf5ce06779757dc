"""Promotions: what of a balance and of a transfer is promotional; what was given and is not spent becomes so now."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

LEFT = """
INSERT INTO promo_corrections (id, account_id, amount_uusd)
SELECT a.id, a.id, x.left_uusd FROM accounts a JOIN (
    SELECT t.account_id, SUM(t.amount_uusd) AS left_uusd FROM (
        SELECT credit_id AS account_id, amount_uusd FROM transfers WHERE kind IN ('signup', 'allowance')
        UNION ALL
        SELECT debit_id, -amount_uusd FROM transfers
    ) t GROUP BY t.account_id
) x ON x.account_id = a.id
WHERE a.kind IN ('buyer', 'unnamed') AND x.left_uusd > 0
"""
"""What sign-up and allowance gave an account, less all it spent: spent first, so what is left of it is promotional."""

GIVEN = """
INSERT INTO promo_corrections (id, account_id, amount_uusd)
SELECT a.id, a.id, -(SELECT SUM(amount_uusd) FROM promo_corrections) FROM accounts a
WHERE a.kind = 'promotions' AND EXISTS (SELECT 1 FROM promo_corrections)
"""
"""The same on the account that gave it."""

RECORDED = """
UPDATE accounts SET promo_uusd = (SELECT c.amount_uusd FROM promo_corrections c WHERE c.id = accounts.id)
WHERE id IN (SELECT c.id FROM promo_corrections c)
"""


def upgrade() -> None:
    """Bring a database at the revision before up to this one."""
    integer = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "promo_corrections",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("account_id", sa.LargeBinary(), nullable=False),
        sa.Column("amount_uusd", integer, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    op.add_column("accounts", sa.Column("promo_uusd", integer, nullable=True))
    op.add_column("transfers", sa.Column("promo_uusd", integer, nullable=True))
    op.add_column("holds", sa.Column("own_money", integer, nullable=True))
    for statement in (LEFT, GIVEN, RECORDED):
        op.execute(statement.strip())
