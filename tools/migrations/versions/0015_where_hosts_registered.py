"""Where hosts registered: the block of addresses of those without an owner, which are tried as one."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring a database at the revision before up to this one."""
    op.add_column("hosts", sa.Column("address_block", sa.Text(), nullable=True))
