"""Reputation by buyers: which groups of buyers a host's evidence is from, so that none can say too much."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring a database at the revision before up to this one."""
    op.add_column("hosts", sa.Column("evidence", sa.LargeBinary(), nullable=True))
