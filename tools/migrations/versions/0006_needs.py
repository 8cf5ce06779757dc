"""Needs: what an order asks of a host stays with its job, and hosts say what their machines have."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring a database at the revision before up to this one."""
    op.add_column("hosts", sa.Column("capacity", sa.LargeBinary(), nullable=True))
    op.add_column("jobs", sa.Column("needs", sa.LargeBinary(), nullable=True))
