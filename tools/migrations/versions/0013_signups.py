"""Signups: how many new users of an address got sign-up credit on a day."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring a database at the revision before up to this one."""
    integer = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "signups",
        sa.Column("day", integer, nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("credited", integer, nullable=False),
        sa.PrimaryKeyConstraint("day", "address"),
    )
