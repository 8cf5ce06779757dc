"""Evidence: what hosts signed that what arrived contradicts."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring a database at the revision before up to this one."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "evidence",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("host_id", sa.LargeBinary(), nullable=False),
        sa.Column("job_id", sa.LargeBinary(), nullable=False),
        sa.Column("at_ms", number, nullable=False),
        sa.Column("keyid", sa.LargeBinary(), nullable=False),
        sa.Column("stated", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("arrived_keyid", sa.LargeBinary(), nullable=False),
        sa.Column("arrived", sa.LargeBinary(), nullable=False),
        sa.Column("arrived_signature", sa.LargeBinary(), nullable=False),
        sa.Column("used_ms", number, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_evidence_host_id", "evidence", ["host_id"], unique=False)
