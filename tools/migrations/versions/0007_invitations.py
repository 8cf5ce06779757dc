"""Invitations: what operators give to people who may sign up or register hosts."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring a database at the revision before up to this one."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "invitations",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("invited_as", sa.Text(), nullable=False),
        sa.Column("uses", number, nullable=False),
        sa.Column("uses_max", number, nullable=False),
        sa.Column("credit_uusd", number, nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("made_by", sa.LargeBinary(), nullable=False),
        sa.Column("created_ms", number, nullable=False),
        sa.Column("expires_ms", number, nullable=False),
        sa.Column("revoked_ms", number, nullable=True),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("uq_invitations_id", "invitations", ["id"], unique=True)
