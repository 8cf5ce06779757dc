"""Bonds: what owners put up for their hosts."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring a database at the revision before up to this one."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "bonds",
        sa.Column("host_id", sa.LargeBinary(), nullable=False),
        sa.Column("owner_id", sa.LargeBinary(), nullable=False),
        sa.Column("amount_uusd", number, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_ms", number, nullable=False),
        sa.Column("closed_ms", number, nullable=True),
        sa.PrimaryKeyConstraint("host_id"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_bonds_host_id_partial",
        "bonds",
        ["host_id"],
        unique=False,
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
